"""Networks of namespaces on one machine: for the demo, the tests and the documentation."""

from tula.lab.bgp import BALANCERS_AS, ROUTERS, BgpRouter
from tula.lab.capture import Capture, Frame, send_frame
from tula.lab.clients import TcpFlow, ask_all, flows, tcp_ask, tcp_flow, tcp_flows, udp_ask
from tula.lab.cluster import ROUTED_VIPS, Cluster, hold, many_vips, pair, three
from tula.lab.guard import LabError, require_private_namespace
from tula.lab.host import Host, set_offload
from tula.lab.http import HttpServer, serve_http
from tula.lab.interfaces import Counters
from tula.lab.kept import remove_named
from tula.lab.lab import Lab
from tula.lab.namespace import Namespace
from tula.lab.servers import TcpServer, UdpServer, serve_tcp, serve_udp
from tula.lab.switch import Switch
from tula.lab.topologies import VIP4, VIP6, VIPS, Network, flat, prepare_backend, remote, routed
from tula.lab.wait import wait_until

__all__ = [
    "BALANCERS_AS",
    "ROUTED_VIPS",
    "ROUTERS",
    "VIP4",
    "VIP6",
    "VIPS",
    "BgpRouter",
    "Capture",
    "Cluster",
    "Counters",
    "Frame",
    "Host",
    "HttpServer",
    "Lab",
    "LabError",
    "Namespace",
    "Network",
    "Switch",
    "TcpFlow",
    "TcpServer",
    "UdpServer",
    "ask_all",
    "flat",
    "flows",
    "hold",
    "many_vips",
    "pair",
    "prepare_backend",
    "remote",
    "remove_named",
    "require_private_namespace",
    "routed",
    "send_frame",
    "serve_http",
    "serve_tcp",
    "serve_udp",
    "set_offload",
    "tcp_ask",
    "tcp_flow",
    "tcp_flows",
    "three",
    "udp_ask",
    "wait_until",
]
