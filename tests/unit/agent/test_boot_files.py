"""A backend's setup as files: what each kind needs, and what netplan cannot express."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
import yaml

from support.builders import make_config, make_service
from tula.agent.boot_files import BootPlan, render_script
from tula.agent.netplan import plan_netplan
from tula.agent.networkd import plan_networkd
from tula.agent.plan import Role, role_by_name
from tula.model.config import Backend, Tunnel

FOUR = Backend("four", (ip_address("10.0.1.1"),))
SIX = Backend("six", (ip_address("2001:db8::6"),))
VIPS = ("10.0.0.100", "2001:db8::100")
BALANCERS = (("lb1", ip_address("10.0.0.2")), ("lb6", ip_address("2001:db8::2")))


def role(tunnel: Tunnel | None, backend: Backend, balancers: bool = True) -> Role:
    config = make_config(make_service("web", VIPS, backends=[FOUR, SIX], tunnel=tunnel))
    found = role_by_name(
        replace(config, load_balancers=BALANCERS if balancers else ()), backend.name
    )
    assert found is not None
    return found


def files(plan: BootPlan | str) -> dict[str, str]:
    """By path."""
    assert isinstance(plan, BootPlan), plan
    return {file.path: file.text for file in plan.files}


def netdevs(tunnel: Tunnel | None, backend: Backend) -> list[str]:
    made = files(plan_networkd(role(tunnel, backend)))
    return [text for path, text in made.items() if path.endswith(".netdev")]


def test_l2_is_silence_and_the_vips() -> None:
    made = files(plan_networkd(role(None, FOUR)))
    assert set(made) == {
        "/etc/sysctl.d/90-tula-backend.conf",
        "/etc/systemd/network/50-tula-vips.network",
    }
    vips = made["/etc/systemd/network/50-tula-vips.network"]
    assert "Address=10.0.0.100/32\nScope=host\n" in vips
    assert "Address=2001:db8::100/128\nPreferredLifetime=0\n" in vips


@pytest.mark.parametrize(
    ("tunnel", "backend", "kinds"),
    [
        (Tunnel.IPIP, FOUR, ["ipip", "sit"]),
        (Tunnel.IPIP, SIX, ["ip6tnl"]),
        (Tunnel.GRE, FOUR, ["gre"]),
        (Tunnel.GRE, SIX, ["ip6gre"]),
        (Tunnel.GUE, FOUR, ["ipip", "sit"]),
        (Tunnel.GUE, SIX, ["ip6tnl"]),
        (Tunnel.VXLAN, FOUR, ["vxlan"]),
        (Tunnel.VXLAN, SIX, ["vxlan"]),
    ],
)
def test_networkd_makes_each_tunnels_other_end(
    tunnel: Tunnel, backend: Backend, kinds: list[str]
) -> None:
    made = netdevs(tunnel, backend)
    assert [text.partition("Kind=")[2].split()[0] for text in made] == kinds
    for text in made:
        assert f"Local={backend.addresses[0]}\n" in text
        assert "Independent=yes\n" in text
        if "[Tunnel]" in text:
            remote = "2001:db8::2" if backend is SIX else "10.0.0.2"
            assert f"Remote={remote}\n" in text


@pytest.mark.parametrize(
    ("backend", "ip", "module"), [(FOUR, "ip", "fou\n"), (SIX, "ip -6", "fou6\n")]
)
def test_ports_are_a_units(backend: Backend, ip: str, module: str) -> None:
    made = files(plan_networkd(role(Tunnel.GUE, backend)))
    unit = made["/etc/systemd/system/tula-backend-gue.service"]
    assert f"ExecStart=-{ip} fou add port 5555 gue\n" in unit
    assert f"ExecStop={ip} fou del port 5555 gue\n" in unit
    assert made["/etc/modules-load.d/tula-backend.conf"] == module


def test_what_takes_ipv4_from_a_tunnel_has_loose_reverse_path_filtering() -> None:
    made = files(plan_networkd(role(Tunnel.IPIP, FOUR)))
    settings = made["/etc/sysctl.d/90-tula-backend.conf"]
    assert [line for line in settings.splitlines() if line.endswith("rp_filter = 2")] == [
        line for line in settings.splitlines() if line.startswith("-net/ipv4/conf/tula-ipip-")
    ]
    assert "tula-sit-" not in settings


def test_the_script_writes_what_the_plan_says_before_it_is_read() -> None:
    plan = plan_networkd(role(Tunnel.VXLAN, FOUR))
    script = render_script(plan)
    writing, _, reading = script.partition("# Load them now.\n")
    for file in plan.files:
        assert f"cat >{file.path} <<'EOF'\n{file.text}EOF\n" in writing
        assert "EOF" not in file.text
    commands = reading.splitlines()
    assert commands[0].startswith("/lib/systemd/systemd-sysctl "), "no ARP before it has VIPs"
    assert commands[-1] == "systemctl restart systemd-networkd"


@pytest.mark.parametrize(
    ("tunnel", "backend", "modes"),
    [
        (None, FOUR, []),
        (Tunnel.IPIP, FOUR, ["ipip", "sit"]),
        (Tunnel.GRE, SIX, ["ip6gre"]),
        (Tunnel.VXLAN, SIX, ["vxlan"]),
    ],
)
def test_netplan_has_the_vips_and_the_ends(
    tunnel: Tunnel | None, backend: Backend, modes: list[str]
) -> None:
    made = files(plan_netplan(role(tunnel, backend)))
    network = yaml.safe_load(made["/etc/netplan/90-tula-backend.yaml"])["network"]
    assert network["ethernets"]["lo"]["addresses"] == [
        "10.0.0.100/32",
        {"2001:db8::100/128": {"lifetime": 0}},
    ]
    tunnels = network.get("tunnels", {})
    assert [tunnel["mode"] for tunnel in tunnels.values()] == modes
    assert all(tunnel["local"] == str(backend.addresses[0]) for tunnel in tunnels.values())


@pytest.mark.parametrize(
    ("tunnel", "backend", "balancers", "lacks"),
    [
        (Tunnel.GUE, FOUR, True, "netplan does not support GUE"),
        (
            Tunnel.IPIP,
            SIX,
            True,
            "netplan does not support ip6tnl for both IPv4 and IPv6 (mode any)",
        ),
        (Tunnel.GRE, FOUR, False, "netplan does not support tunnels from anyone"),
    ],
)
def test_what_netplan_cannot_do_is_named(
    tunnel: Tunnel, backend: Backend, balancers: bool, lacks: str
) -> None:
    plan = plan_netplan(role(tunnel, backend, balancers))
    assert isinstance(plan, str)
    assert plan.startswith(lacks)
