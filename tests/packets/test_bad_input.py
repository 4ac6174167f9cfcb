"""Wrong input: every problem as one line with its place, exit status 2, and nothing changed.

::

    client-1               lb  web: VIP 10.9.0.100, fd09::100      backend-1, -2
        │                   │                                       │   (VIPs on lo)
    ════╧═══════════════════╧═══════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.configurations import BAD
from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.snapshots import generation, unchanged
from tula.lab import Host, Lab, Network, flat, serve_tcp, tcp_ask

pytestmark = pytest.mark.kernel

DOCUMENTS = sorted(BAD.glob("*.yaml"))


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    made.lb.add_route("203.0.113.0/24", "10.9.0.201")
    made.lb.add_route("198.51.100.0/24", ifname="lo")
    return made


@pytest.fixture
def untouched(network: Network, tmp_path: Path) -> Iterator[Host]:
    """The balancer with a good configuration applied; nothing of it may change."""
    InProcess(network.lb).apply(write_config(tmp_path / "ok.yaml", {"web": service_of(network)}))
    with unchanged(network.lb):
        yield network.lb


def test_every_bad_document(network: Network, untouched: Host) -> None:
    for backend in network.backends:
        serve_tcp(backend, [80])
    before = generation(untouched)

    def refusal(path: Path) -> list[str]:
        """What is wrong with how this one was refused."""
        done = call_tula(untouched, "apply", "-f", path, check=False)
        expected = [
            f"{path}:{line}" for line in path.with_suffix(".expect").read_text().splitlines()
        ]
        place = re.compile(rf"{re.escape(str(path))}:\d+:\d+: \S")
        said = done.stderr.splitlines()
        wrong = [] if done.returncode == 2 else [f"exit status {done.returncode}"]
        wrong += [f"no place: {line}" for line in said if not place.match(line)]
        wrong += [] if said == expected else ["not the expected lines", *said]
        wrong += [f"said: {done.stdout}"] if done.stdout else []
        wrong += [] if generation(untouched) == before else ["the kernel changed"]
        return [f"{path.stem}: {fault}" for fault in wrong]

    assert len(DOCUMENTS) >= 60
    assert [fault for path in DOCUMENTS for fault in refusal(path)] == []
    for vip in network.vips:
        assert tcp_ask(network.client, vip, 80).startswith("backend")


# ── What only this machine can tell ──────────────────────────────────────────────────────────

NEAR = {"one": {"address": ["10.9.0.11", "fd09::11"]}}


def on(address: str) -> dict[str, object]:
    return {"backends": {"one": {"address": address}}}


MISFITS: dict[str, tuple[dict[str, object], str]] = {
    "an interface that is not here": (
        {"interfaces": ["eth0", "eth7"]},
        r"interfaces\[1\]: no interface 'eth7' here; this machine has eth0",
    ),
    "announced on an interface that is not here": (
        {"announce": "eth7"},
        "services.web.announce: no interface 'eth7' here; this machine has eth0",
    ),
    "a backend behind a gateway": (
        on("203.0.113.9"),
        r"services.web.backends.one.address: 203.0.113.9 is not on-link "
        r"\(it is behind 10.9.0.201\), .* give a backend on the same subnet, or use forwarding: l3",
    ),
    "a backend without a route": (
        on("192.0.2.9"),
        "services.web.backends.one.address: no route to 192.0.2.9; "
        "give a backend on the same subnet, or use forwarding: l3",
    ),
    "a backend that is this machine and another": (
        {
            "vip": ["10.9.0.100", "fd09::100"],
            "backends": {"one": {"address": ["10.9.0.2", "fd09::11"]}},
        },
        "services.web.backends.one.address: 10.9.0.2 is an address of this machine, and fd09::11 "
        "is not; give the addresses of one machine",
    ),
    "a VIP outside every subnet": (
        {"vip": "192.0.2.100"},
        "services.web.vip: no subnet of the listed interfaces holds 192.0.2.100; "
        "give announce: false if it is routed to this machine, or announce: INTERFACE",
    ),
    "SSH on the machine's own address": (
        {"vip": "10.9.0.2", "ports": [22]},
        "services.web.vip: 10.9.0.2 is this machine's own address and port 22 is its SSH.*--force",
    ),
    "SSH on an address that others put here at times": (
        {"vip": "192.0.2.100", "ports": [22], "announce": False},
        r"services.web.vip: 192.0.2.100 \(announce: false\) may become this machine's own address "
        "and port 22 is its SSH.*--force",
    ),
    "any port, SSH's too": (
        {"vip": "fd09::2", "ports": "any"},
        "services.web.vip: fd09::2 is this machine's own address and port 22 is its SSH.*--force",
    ),
}


def misfit(network: Network, path: Path, keys: dict[str, object]) -> Path:
    given = {"vip": "10.9.0.101", "ports": [81], "backends": NEAR, **keys}
    interfaces = tuple(given.pop("interfaces", ["eth0"]))  # type: ignore[call-overload]
    return write_config(path / "misfit.yaml", {"web": service_of(network, **given)}, interfaces)


@pytest.mark.parametrize(("keys", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_a_document_that_does_not_fit_this_machine(
    network: Network, untouched: Host, tmp_path: Path, keys: dict[str, object], words: str
) -> None:
    path = misfit(network, tmp_path, keys)
    done = call_tula(untouched, "apply", "-f", path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    lines = (line for line in done.stderr.splitlines() if not line.startswith("warning: "))
    # Backends answer nothing that comes from a VIP: the own address is refused for that, too.
    (line,) = (line for line in lines if "is the address from which" not in line)
    assert re.fullmatch(rf"{re.escape(str(path))}:\d+:\d+: {words}.*", line)


def test_all_problems_at_once(network: Network, untouched: Host, tmp_path: Path) -> None:
    backends = {"a": {"address": "203.0.113.9"}, "b": {"address": "192.0.2.9"}, **NEAR}
    keys = {"vip": "192.0.2.100", "backends": backends, "interfaces": ["eth0", "eth7"]}
    path = misfit(network, tmp_path, keys)
    refused = [
        call_tula(untouched, command, "-f", path, check=False) for command in ("apply", "plan")
    ]
    assert [done.returncode for done in refused] == [2, 2]
    assert refused[0].stderr == refused[1].stderr
    places = [tuple(map(int, line.split(":")[1:3])) for line in refused[0].stderr.splitlines()]
    assert len(places) == len(set(places)) == 4


def test_ssh_is_taken_by_force_alone(network: Network, tmp_path: Path) -> None:
    path = misfit(network, tmp_path, {"vip": "10.9.0.2", "ports": [22]})
    assert call_tula(network.lb, "plan", "-f", path, check=False).returncode == 2
    assert "+ service" in call_tula(network.lb, "apply", "-f", path, "--force").stdout
    assert call_tula(network.lb, "apply").stdout == "nothing changed\n", "forced once"
    assert call_tula(network.lb, "plan", "--exit-code").stdout == "nothing to change\n"


def test_check_warns_of_what_it_cannot_see(network: Network, tmp_path: Path) -> None:
    path = misfit(network, tmp_path, {"vip": "10.9.0.101", **on("10.9.0.11")})
    stranger = network.lab.host("stranger")
    done = call_tula(stranger, "check", "-f", path)
    unchecked, *warnings = done.stderr.splitlines()
    assert unchecked.startswith(f"warning: {path}: web has no health checks: a backend that fails ")
    assert len(warnings) == 3, "interface, backend and VIP"
    assert all(line.startswith(f"warning: on this machine: {path}:") for line in warnings)
    assert done.stdout == f"{path}: valid; services: 1, backends: 1\n"
    assert call_tula(network.lb, "check", "-f", path).stderr == f"{unchecked}\n"
