"""A router of the lab that hears routes by BGP, and spreads flows over equal ones (ECMP)."""

from __future__ import annotations

import shutil

from tula.lab.cluster import Cluster, address_in
from tula.lab.guard import LabError
from tula.lab.process import Process

ROUTER_AS, BALANCERS_AS = 65000, 65001
ROUTERS = {"10.9.0.1": ROUTER_AS, "fd09::1": ROUTER_AS}
"""For ``high_availability.bgp.routers``."""

_HEAD = """\
log stderr all;
router id 10.9.0.1;
protocol device { scan time 1; }
protocol bfd { }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths on; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths on; }
filter heard {
  # RFC 8326: a route that is about to go is the last choice.
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}
"""
_SESSION = """\
protocol bgp {name} {{
  local {local} as {router};
  neighbor {address} as {balancers};
  direct;
  passive;
  hold time 9;
  error wait time 1, 2;
  bfd {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }};
  ipv{version} {{ import filter heard; export none; }};
}}
"""


class BgpRouter:
    """BIRD on the cluster's router: a session with each balancer for each family, with BFD."""

    def __init__(self, cluster: Cluster) -> None:
        """``start`` starts it."""
        self._host = cluster.gateway
        self._cluster = cluster
        self._folder = self._host.directory / "bird"
        self._process: Process | None = None

    def start(self) -> None:
        """Listens; the balancers open the sessions. Raises LabError where BIRD is missing."""
        if shutil.which("bird", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise LabError("the lab needs BIRD: apt install bird2")
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "bird.conf"
        file.write_text(self._configuration())
        control = str(self._folder / "bird.ctl")
        command = ["/usr/sbin/bird", "-f", "-c", str(file), "-s", control]
        with (self._folder / "bird.log").open("a") as log:
            output = log.fileno()
            self._process = self._host.popen(command, stdout=output, stderr=output)

    def stop(self) -> None:
        """In order: the balancers are told, and the routes go."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def show(self, what: str = "protocols") -> str:
        """What ``birdc show`` says."""
        return self._host.run(["birdc", "-s", self._folder / "bird.ctl", "show", what]).stdout

    def _configuration(self) -> str:
        parts = [_HEAD]
        for version, prefix, local in ((4, "10.9.", "10.9.0.1"), (6, "fd09:", "fd09::1")):
            parts += [
                _SESSION.format(
                    name=f"{lb.name}_{version}",
                    local=local,
                    router=ROUTER_AS,
                    address=address_in(prefix, lb),
                    balancers=BALANCERS_AS,
                    version=version,
                )
                for lb in self._cluster.lbs
            ]
        return "\n".join(parts)
