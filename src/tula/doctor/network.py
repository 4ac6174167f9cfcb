"""Who has the VIPs and the backends' addresses on the links. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tula.doctor import mends
from tula.doctor.scene import Scene
from tula.doctor.sites import Macs, is_on_link
from tula.doctor.talk import Answers, mac_text
from tula.model.config import Forwarding, IPAddress
from tula.model.finding import Finding, Severity
from tula.plan.tunnels import outer_address

ASKED = {4: "ARP", 6: "neighbour discovery"}


def judge_owners(scene: Scene, answers: Answers) -> Iterator[Finding]:
    """Nobody but this machine may answer for a VIP."""
    known = names_by_mac(scene, answers.owners)
    ours = {link.mac for link in scene.host.links.values()}
    backends = {b.name for service in scene.config.services for b in service.backends}
    for (interface, address), macs in sorted(answers.owners.items(), key=str):
        if address not in scene.vips:
            continue
        others = sorted(macs - ours)
        for mac in [mac for mac in others if known.get(mac) in backends]:
            yield _announced(interface, address, mac, known[mac])
        strangers = [mac for mac in others if known.get(mac) not in backends]
        if not strangers:
            continue
        if len(strangers) > 1:
            yield _duplicate(interface, address, strangers, known)
        elif address in scene.own or _announces(scene, address):
            yield _conflict(interface, address, strangers[0], known)
        # Else the VIP is another machine's now, as with VRRP, and only routed here.


def judge_senders(scene: Scene, answers: Answers) -> Iterator[Finding]:
    """No backend may ask for others' MACs in the name of a VIP: they learn its own by that."""
    known = names_by_mac(scene, answers.owners)
    backends = {b.name for service in scene.config.services for b in service.backends}
    for (interface, address), macs in sorted(answers.senders.items(), key=str):
        for mac in sorted(macs) if address in scene.vips else ():
            if (name := known.get(mac, "")) in backends:
                yield Finding(
                    "vip-announced", Severity.ERROR, name,
                    f"{name} ({mac_text(mac)}) sends ARP requests on {interface} in the name of "
                    f"the VIP {address}: others learn its MAC for it",
                    f"arp_announce=2 on {name}", on=name, commands=(mends.QUIET,),
                )  # fmt: skip


def judge_backends(scene: Scene, answers: Answers) -> Iterator[Finding]:
    """Every backend that is on-link has a machine, and so has every balancer."""
    used: dict[IPAddress, str] = {}
    for service in scene.config.services:
        for backend in service.backends:
            if service.forwarding is Forwarding.L3:
                used[outer_address(backend)] = backend.name
            else:
                found = (a for a in backend.addresses if a.version in service.versions)
                used |= dict.fromkeys(found, backend.name)
    balancers = {a: name for name, a in scene.config.load_balancers if a not in scene.own}
    for address, name in [*used.items(), *balancers.items()]:
        route = scene.host.routes.get(address)
        if route is None or not is_on_link(route):
            continue
        link = scene.host.links.get(route.interface)
        if link is None or len(link.mac) != 6 or (route.interface, address) in answers.owners:
            continue
        state = scene.links.get(route.interface)
        if state is not None and not (state.up and state.carrier):
            continue  # told of the interface
        balancer = address in balancers and address not in used
        yield Finding(
            "load-balancer-unreachable" if balancer else "backend-unreachable",
            Severity.WARNING if balancer else Severity.ERROR,
            name,
            f"no machine answers {ASKED[address.version]} for {address} on {route.interface}",
            f"start {name}, plug it in, or give its right address in the document",
        )


def names_by_mac(scene: Scene, owners: Macs) -> Mapping[bytes, str]:
    """The names of those whose addresses the document tells, by the MACs that answered."""
    names = scene.names
    known: dict[bytes, str] = {}
    for (_, address), macs in owners.items():
        if address in names and address not in scene.vips:
            known |= dict.fromkeys(macs, names[address])
    return known


def _announces(scene: Scene, vip: IPAddress) -> bool:
    return any(vip in s.vips and s.announce is not False for s in scene.config.services)


def _announced(interface: str, vip: IPAddress, mac: bytes, name: str) -> Finding:
    where = f"{name} ({mac_text(mac)}) answers {ASKED[vip.version]} for the VIP {vip}"
    return Finding(
        "vip-announced",
        Severity.ERROR,
        name,
        f"{where} on {interface}: clients go to it directly",
        f"on {name}, hold the VIP on lo and not on an interface"
        + ("; arp_ignore=1 and arp_announce=2 keep it silent" if vip.version == 4 else ""),
        on=name,
        commands=mends.hide_vip(vip),
    )


def _conflict(interface: str, vip: IPAddress, mac: bytes, known: Mapping[bytes, str]) -> Finding:
    who = f"{known[mac]} ({mac_text(mac)})" if mac in known else f"the machine {mac_text(mac)}"
    return Finding(
        "arp-conflict" if vip.version == 4 else "nd-conflict",
        Severity.ERROR,
        interface,
        f"{who} answers {ASKED[vip.version]} for the VIP {vip} on {interface}, beside this one",
        f"take {vip} from that machine, or give announce: false where another has it by turns",
    )


def _duplicate(
    interface: str, vip: IPAddress, macs: list[bytes], known: Mapping[bytes, str]
) -> Finding:
    who = ", ".join(
        f"{mac_text(mac)}" + (f" ({known[mac]})" if mac in known else "") for mac in macs
    )
    return Finding(
        "duplicate-vip",
        Severity.ERROR,
        interface,
        f"{len(macs)} other machines answer {ASKED[vip.version]} for the VIP {vip}: {who}",
        f"leave {vip} with one machine of the link",
    )
