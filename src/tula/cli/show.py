"""``tula status`` and ``tula trace``: what is, and why."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    RUN_DIR,
    STATE_DIR,
    WRONG,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    applied_document,
    document_of,
    errors,
    fail,
    open_balancer,
    open_store,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from tula.model.config import IPAddress

_HEADINGS = ["SERVICE", "VIP", "PORTS", "BACKEND", "ADDRESS", "WEIGHT", "STATE", "PACKETS", "BYTES"]


def status(
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show services and backends, their states, packets and bytes."""
    from tula.daemon.status import describe_status

    store = open_store(state_dir)
    _, document = applied_document(store)
    with errors():
        balancer = open_balancer(store)
        counts = balancer.backend_counts(document.config)
        answer = describe_status(
            document.config,
            counts,
            balancer.named_counts(),
            balancer.flow_tables(),
            balancer.outers(document.config),
        )
    if json:
        print_json(answer)
    else:
        rows = [row for service in answer["services"] for row in _rows(service)]
        print_table(_HEADINGS, rows, frozenset({5, 7, 8}))
        _print_rest(answer)


def _print_rest(answer: dict[str, Any]) -> None:
    """What is not of one service: connections held, and packets that took unusual ways."""
    held = [
        f"{name} {table['entries']} of {table['size']}"
        for name, table in answer["connections"].items()
        if table["entries"]
    ]
    if held:
        print("connections: " + ", ".join(held))
    for name, count in answer["counters"].items():
        if count["packets"]:
            print(f"{name.replace('_', ' ')}: {count['packets']} packets")


def _rows(service: dict[str, Any]) -> list[list[str]]:
    protocols = "+".join(service["protocols"])
    counts = [str(service["packets"]), str(service["bytes"])]
    head = [service["name"], " ".join(service["vips"]), f"{protocols} {','.join(service['ports'])}"]
    rows = [[*head, "", "", "", "", *counts]]
    for backend in service["backends"]:
        address, tunnel = backend["address"], backend["tunnel"]
        shown = address if isinstance(address, str) else " ".join(address)
        rows.append(
            [
                *("", "", ""),
                backend["name"],
                f"{shown} {tunnel['kind']}" if tunnel else shown,
                str(backend["weight"]),
                backend["state"],
                str(backend["packets"]),
                str(backend["bytes"]),
            ]
        )
    return rows


def trace(
    target: Annotated[str, typer.Argument(metavar="VIP:PORT", help="[VIP]:PORT for IPv6.")],
    client: Annotated[
        str, typer.Option("--client", metavar="ADDR:PORT", help="The client's address and port.")
    ],
    protocol: Annotated[str, typer.Option("--protocol", help="tcp or udp.")] = "tcp",
    fragment: Annotated[
        str | None,
        typer.Option(
            "--fragment",
            metavar="ID",
            help="A later fragment of the datagram with this identification, 0x1f or 31.",
        ),
    ] = None,
    file: MaybeFile = None,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Tell which backend a flow goes to, and why.

    ICMP errors about a flow go where the flow goes. With -f, what the document means for a new
    flow; without, what the kernel holds for it, if anything. Later fragments of a datagram go
    where its first went, which the kernel holds for 30 seconds.
    """
    from tula.model.config import Protocol
    from tula.plan.trace import Flow, plan_trace

    vip, port = _endpoint(target, "VIP:PORT")
    address, client_port = _endpoint(client, "--client")
    if vip.version != address.version:
        fail(WRONG, f"tula: {vip} and {address} are of different IP versions")
    if protocol not in list(Protocol):
        fail(WRONG, f"tula: --protocol {protocol!r}: give tcp or udp")
    datagram = None if fragment is None else _identification(fragment, vip.version)
    store = open_store(state_dir)
    _, document = document_of(file, store)
    flow = Flow(address, client_port, vip, port, Protocol(protocol))
    entry = None
    if file is None:  # with a document, the question is what it would do
        with errors():
            entry = open_balancer(store).find_entry(flow, datagram)
    later = file is None and datagram is not None
    found = plan_trace(document.config, flow, entry, later_fragment=later)
    if json:
        print_json({"service": found.service, "backend": found.backend, "reason": found.reason})
    else:
        print(f"{found.service or '-'}/{found.backend or '-'}: {found.reason}")


def _identification(text: str, version: int) -> int:
    """A datagram's identification: 16 bits in IPv4, 32 in IPv6."""
    most = 0xFFFF if version == 4 else 0xFFFFFFFF
    try:
        number = int(text, 0) if len(text) < 16 and text.isascii() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        fail(WRONG, f"tula: --fragment {text!r}: give the identification, 0 to {most}")
    return number


def _endpoint(text: str, what: str) -> tuple[IPAddress, int]:
    """An address and a port, ``10.0.0.1:80`` or ``[2001:db8::1]:80``."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        fail(WRONG, f"tula: {what} {text!r}: write an IPv6 address with its port as [ADDR]:PORT")
    try:
        address = ip_address(host)
    except ValueError:
        fail(WRONG, f"tula: {what} {text!r}: give an address and a port, such as 192.0.2.1:443")
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) <= 65535):
        fail(WRONG, f"tula: {what} {text!r}: {port!r} is no port; give 0 to 65535")
    return address, int(port)
