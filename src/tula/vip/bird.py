"""BIRD's configuration, made whole from what this machine's BGP is to be. Pure; for BIRD 2.0.12.

What BIRD announces it learns from the kernel's table 84, which no packet is routed by: whoever
writes a route there needs no word with BIRD, and BIRD none of Tula's processes.
"""

from __future__ import annotations

from tula.kernel.vip_routes import TABLE
from tula.model.bgp import BgpSession, DesiredBgp
from tula.model.config import IPAddress

SERVED, LAST_RESORT, WITHHELD = 100, 200, 300
"""Metrics of routes: all services of the VIP are served here; some are not, or it is a standby;
none is, and routers are not told of it."""
PORT = 17984
"""Where BIRD listens: a port below 1024 would need a capability. It opens the sessions itself,
to port 179 of routers."""

_HOLD, _KEEPALIVE = 9, 3
"""Seconds. A dead neighbour without BFD is noticed within the first."""


_ROOM = 1 << 25
"""Bytes for what the kernel reports. By default a burst of 1,000 routes was lost in part, and BIRD
found the rest only by its next scan, which is 10 s late for a VIP whose metric changed."""


def render_bird(bgp: DesiredBgp) -> str:
    """The whole of bird.conf."""
    parts = [
        "# Made by Tula from high_availability.bgp; what is changed here is overwritten.\n"
        "log stderr { info, warning, error, auth, fatal, bug };\n"
        f"router id {bgp.router_id};\n"
        "timeformat protocol iso long ms;\n",
        _render_filters(bgp),
        "protocol device { }\n",
        _render_kernel(4),
        _render_kernel(6),
    ]
    if bgp.bfd:
        parts.append("protocol bfd { }\n")
    parts += [_render_session(session, bgp) for session in bgp.sessions]
    return "\n".join(parts)


def session_name(router: IPAddress) -> str:
    """BIRD's name of a session. Made of the router's address, so that no session is another one
    when a router is added or leaves: BIRD would end it."""
    return "router_" + str(router).replace(".", "_").replace(":", "_")


def _render_filters(bgp: DesiredBgp) -> str:
    """What routers are told. A route of last resort is one that a router takes only while it has
    no other: a longer AS path, or within an AS a lower preference, and GRACEFUL_SHUTDOWN
    (RFC 8326) for those who know it."""
    return f"""\
function tula_route() {{
  if source != RTS_INHERIT || dest != RTD_BLACKHOLE || krt_source != {TABLE} then return false;
  if krt_metric = {LAST_RESORT} then bgp_community.add((65535, 0));
  bgp_origin = ORIGIN_IGP;
  return krt_metric = {SERVED} || krt_metric = {LAST_RESORT};
}}

filter tula_external {{
  if ! tula_route() then reject;
  if krt_metric = {LAST_RESORT} then {{
    bgp_path.prepend({bgp.number});
    bgp_path.prepend({bgp.number});
    bgp_path.prepend({bgp.number});
  }}
  accept;
}}

filter tula_internal {{
  if ! tula_route() then reject;
  if krt_metric = {LAST_RESORT} then bgp_local_pref = 0;
  accept;
}}
"""


def _render_kernel(version: int) -> str:
    """Learns; writes nothing into the kernel. The scan finds what a full socket has lost."""
    return (
        f"protocol kernel tula{version} {{\n"
        f"  kernel table {TABLE};\n"
        "  learn;\n"
        "  scan time 10;\n"
        f"  netlink rx buffer {_ROOM};\n"
        f"  ipv{version} {{ import all; export none; }};\n"
        "}\n"
    )


def _render_session(session: BgpSession, bgp: DesiredBgp) -> str:
    lines = [
        f"local {session.local} port {PORT} as {bgp.number};",
        f"neighbor {session.router} as {session.router_as};",
        f'interface "{session.interface}";' if session.interface else "",
        "direct;" if session.interface else "multihop;",
        f"hold time {_HOLD};",
        f"keepalive time {_KEEPALIVE};",
        "connect delay time 1;",
        "connect retry time 5;",
        "error wait time 1, 5;",
        # A router that kept the routes of a balancer that is gone would send packets to nobody.
        # Without it nothing is lost: all other balancers forward, and it forgets them at once.
        "graceful restart aware;",
        "long lived graceful restart off;",
        _bfd(bgp.bfd),
        *(_channel(session, bgp.number, version, hop) for version, hop in session.next_hops),
    ]
    body = "\n".join(f"  {line}" for line in lines if line)
    return f"protocol bgp {session_name(session.router)} {{\n{body}\n}}\n"


def _bfd(seconds: float) -> str:
    """A neighbour is dead when three packets in a row are missing."""
    if not seconds:
        return ""
    interval = max(1, round(seconds * 1_000_000 / 3))
    return f"bfd {{ min rx interval {interval} us; min tx interval {interval} us; multiplier 3; }};"


def _channel(session: BgpSession, number: int, version: int, hop: IPAddress | None) -> str:
    kind = "internal" if session.router_as == number else "external"
    told = f" next hop address {hop};" if hop is not None else ""
    if hop is None and version != session.router.version:
        told = " extended next hop;"
    return f"ipv{version} {{ import none; export filter tula_{kind};{told} }};"
