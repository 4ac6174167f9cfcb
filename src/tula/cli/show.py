"""``tula status`` and ``tula trace``: the current state, and why a flow goes where it goes."""

from __future__ import annotations

import time
from dataclasses import replace
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    FAILED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    applied_config,
    config_of,
    errors,
    fail,
    kernel_adapters,
    open_balancer,
    open_store,
    print_json,
)
from tula.cli.completion import complete_services
from tula.cli.daemon import daemon_errors, daemon_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tula.engine.balancer import Balancer
    from tula.engine.peer_facts import BalancerFacts
    from tula.model.config import Config, IPAddress
    from tula.model.health import BackendName, BackendStatus

_COUNTED_WITHIN = 0.1
"""Seconds that counting connections may take."""
_BETWEEN = 1.0
"""Seconds between two readings of the counters."""


def status(
    service: Annotated[
        str | None,
        typer.Argument(metavar="SERVICE", help="One service.", autocompletion=complete_services),
    ] = None,
    problems: Annotated[
        bool, typer.Option("--problems", help="Only what does not serve, and all warnings.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="Every backend, however many there are.")
    ] = False,
    rates: Annotated[
        bool,
        typer.Option("--rates", help="Packets and bytes a second, if need be by waiting for one."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 when something is down or out of sync."),
    ] = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show services and backends, their states, packets and bytes.

    The first line says whether all serves, or what does not.
    """
    daemon = daemon_of(run_dir)
    if daemon is None:
        answer = _status_here(state_dir, run_dir, rates=rates)
    else:
        with daemon_errors():
            answer = daemon.get("/status")
            if rates and any(each["rates"] is None for each in answer["services"]):
                time.sleep(_BETWEEN)
                answer = daemon.get("/status")
    if service is not None:
        answer = _only(answer, service)
    if json:
        print_json(answer)
    else:
        from tula.cli.status_text import print_status

        print_status(answer, problems=problems, whole=whole or service is not None)
    if check and not answer["summary"]["fine"]:
        raise typer.Exit(FAILED)


def _only(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """The answer with this service alone, and its own first line."""
    from tula.engine.summary import summarize

    known = [service["name"] for service in answer["services"]]
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        fail(WRONG, f"tula: no service {name!r} in the running configuration{hint}")
    services = [service for service in answer["services"] if service["name"] == name]
    answer = answer | {"services": services}
    summary = summarize(answer)
    return answer | {"summary": {"fine": summary.fine, "text": summary.text}}


def _status_here(state_dir: Path, run_dir: Path, *, rates: bool) -> dict[str, Any]:
    """Without a daemon: the last applied configuration, and the kernel beside it."""
    from tula.engine.kernel_state import observe_kernel
    from tula.engine.rates import RateMeter
    from tula.engine.status import describe_status

    store = open_store(state_dir)
    _, configuration = applied_config(store)
    config = configuration.config
    with errors():
        balancer = open_balancer(store, run_dir)
        statuses = balancer.left_statuses(config)
        stats, meter = balancer.stats(), RateMeter()
        meter.note(time.monotonic(), stats.backends)
        if rates:
            time.sleep(_BETWEEN)
            stats = balancer.stats()
        return describe_status(
            config,
            stats.backends,
            stats.counters,
            stats.tables,
            balancer.endpoints(config),
            statuses={name: _without_reason(s) for name, s in statuses.items()},
            connections=_connections(balancer, config),
            kernel=observe_kernel(balancer, config, statuses),
            rates=meter.note(time.monotonic(), stats.backends),
            no_backend=stats.no_backend,
            refused=stats.refused,
            bgp=balancer.bgp_sessions(config),
            balancers=_balancers_here(config, state_dir, run_dir),
        )


def _balancers_here(config: Config, state_dir: Path, run_dir: Path) -> BalancerFacts:
    """Which balancer this is and its role, by what the machine has: engines need no daemon. Of the
    others nobody knows without one."""
    from tula.engine.peer_facts import BalancerFacts
    from tula.engine.served import StandbyFile
    from tula.plan.high_availability import own_balancer, plan_role

    if not config.high_availability.enabled:
        return BalancerFacts()
    host = kernel_adapters(run_dir).network.view(())
    own = own_balancer(config, host)
    standby = StandbyFile(state_dir).read() is not None
    role = plan_role(config, host, standby=standby)
    return BalancerFacts(
        "" if own is None else own[0], None if role is None else str(role), standby
    )


def _connections(balancer: Balancer, config: Config) -> Mapping[BackendName, int] | None:
    """As many as each backend has, where they are soon counted."""
    from tula.daemon.connection_counts import name_counts

    counts = balancer.connections(_COUNTED_WITHIN) if config.connections.enabled else None
    return None if counts is None else name_counts(config, counts)


def _without_reason(status: BackendStatus) -> BackendStatus:
    """Without a daemon nothing is checked; that needs no reason in every line."""
    from tula.model.health import State

    return replace(status, reason="") if status.state is State.UNKNOWN else status


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
            help="Trace a later fragment of the datagram with this identification, 0x1f or 31.",
        ),
    ] = None,
    file: MaybeFile = None,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show which backend a flow goes to, and why.

    Without -f the answer includes connections that the kernel already tracks; with -f it is what
    that configuration would do with a new one. ICMP errors go where their flow goes. Later
    fragments of a datagram follow the first one, which the kernel remembers for 30 seconds.
    """
    from tula.engine.follow import trace_now
    from tula.model.config import Protocol
    from tula.model.flow import Flow
    from tula.plan.trace import describe_trace

    vip, port = _endpoint(target, "VIP:PORT")
    address, client_port = _endpoint(client, "--client")
    if vip.version != address.version:
        fail(WRONG, f"tula: {vip} and {address} have different IP versions")
    if protocol not in list(Protocol):
        fail(WRONG, f"tula: invalid --protocol {protocol!r}; give tcp or udp")
    datagram = None if fragment is None else _identification(fragment, vip.version)
    # With -f, the question is what that file would do, whatever is running.
    daemon = daemon_of(run_dir) if file is None else None
    if daemon is not None:
        with daemon_errors():
            answer = daemon.get(
                "/trace",
                vip=vip,
                port=port,
                client=address,
                client_port=client_port,
                protocol=protocol,
                fragment=datagram,
            )
    else:
        store = open_store(state_dir)
        _, configuration = config_of(file, store)
        flow = Flow(address, client_port, vip, port, Protocol(protocol))
        config, balancer = configuration.config, open_balancer(store, run_dir)
        if file is None:
            with errors():
                found = trace_now(balancer, config, balancer.left_statuses(config), flow, datagram)
        else:
            found = balancer.trace(config, flow)
        answer = describe_trace(found)
    if json:
        print_json(answer)
    else:
        print(f"{answer['service'] or '-'}/{answer['backend'] or '-'}: {answer['reason']}")


def _identification(text: str, version: int) -> int:
    """A datagram's identification: 16 bits in IPv4, 32 bits in IPv6."""
    most = 0xFFFF if version == 4 else 0xFFFFFFFF
    try:
        number = int(text, 0) if len(text) < 16 and text.isascii() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        fail(WRONG, f"tula: invalid --fragment {text!r}; give the identification, 0 to {most}")
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
        fail(WRONG, f"tula: {what} {text!r}: invalid port {port!r}; give 0 to 65535")
    return address, int(port)
