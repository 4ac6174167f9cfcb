"""What the operator says of backends while no daemon runs.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1 … 3
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from support.snapshots import files, snapshot
from tula.lab import Lab, Network, ask_all, flat, flows, serve_tcp, tcp_flows

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=3)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


@pytest.fixture
def configuration(network: Network, tmp_path: Path) -> Path:
    made = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    InProcess(network.lb).apply(made)
    return made


def answering(network: Network) -> set[str]:
    ports, client = range(30000, 30060), network.client
    four, six = (flows(client, vip_of(network, family), 80, ports, "tcp") for family in FAMILIES)
    assert set(four.values()) == set(six.values())
    return set(four.values())


def states(network: Network) -> dict[str, str]:
    (web,) = json.loads(call_tula(network.lb, "status", "--json").stdout)["services"]
    return {backend["name"]: backend["state"] for backend in web["backends"]}


def test_what_is_said_holds_and_a_daemon_takes_it_up(network: Network, configuration: Path) -> None:
    lb = network.lb
    open_flows = tcp_flows(network.client, network.vip4, 80, 60)
    assert {a.split()[0] for a in ask_all(open_flows).values()} == {
        "backend-1",
        "backend-2",
        "backend-3",
    }
    said = call_tula(lb, "drain", "web/backend-1")
    assert (said.stdout, said.stderr) == (
        "web/backend-1: draining: no new connections, existing ones continue\n",
        "",
    )
    assert answering(network) == {"backend-2", "backend-3"}
    ask_all(open_flows)  # those that exist go on
    call_tula(lb, "disable", "web/backend-2")
    call_tula(lb, "weight", "web/backend-3", "7")
    assert answering(network) == {"backend-3"}
    shown = {"backend-1": "draining", "backend-2": "disabled", "backend-3": "unknown"}
    assert states(network) == shown
    assert "drained by the operator" in call_tula(lb, "status").stdout
    traced = call_tula(lb, "trace", f"{network.vip4}:80", "--client", "10.9.0.77:1234").stdout
    assert traced.startswith("web/backend-3: ")
    assert call_tula(lb, "plan").stdout == "nothing to change\n"
    assert call_tula(lb, "apply", "-f", configuration).stdout == "nothing changed\n"

    with Running(lb, configuration) as daemon:
        assert daemon.states() == {f"web/{name}": state for name, state in shown.items()}
        assert daemon.backends()["web/backend-3"]["effective_weight"] == 7
        call_tula(lb, "enable", "web/backend-2")
    assert answering(network) == {"backend-2", "backend-3"}
    call_tula(lb, "undrain", "web/backend-1")
    call_tula(lb, "weight", "web/backend-3", "document")
    assert answering(network) == {"backend-1", "backend-2", "backend-3"}
    assert set(states(network).values()) == {"unknown"}
    assert not InProcess(lb).plan(configuration)


@pytest.mark.usefixtures("configuration")
def test_what_cannot_be_said_changes_nothing(network: Network) -> None:
    lb = network.lb
    state = Path(lb.environment()["TULA_STATE_DIR"])
    before = snapshot(lb), files(state)
    for arguments, status, words in [
        (["drain", "web/backend-7"], 2, "no backend web/backend-7 in the running configuration"),
        (["drain", "web/backend-1", "--deadline", "5m"], 1, "--deadline needs the daemon"),
        (["drain", "web/backend-1", "--wait"], 1, "--wait needs the daemon"),
    ]:
        done = call_tula(lb, *arguments, check=False)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith(f"tula: {words}")
        assert done.stderr.count("\n") == 1
        assert (snapshot(lb), files(state)) == before
