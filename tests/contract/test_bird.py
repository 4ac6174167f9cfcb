"""BIRD accepts what is made for it."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from tula.model.bgp import BgpSession, DesiredBgp
from tula.vip.bird import render_bird

OWN4, OWN6 = ip_address("10.0.0.2"), ip_address("2001:db8::2")
SESSIONS = (
    BgpSession(ip_address("10.0.0.1"), 65000, OWN4, "eth0", ((4, None),)),
    BgpSession(ip_address("2001:db8::1"), 65000, OWN6, "eth0.7", ((6, None),)),
    BgpSession(ip_address("192.0.2.1"), 4200000000, OWN4, "", ((4, None), (6, OWN6))),
    BgpSession(ip_address("2001:db8:1::1"), 65001, OWN6, "", ((6, None), (4, None))),
)


@pytest.mark.kernel
@pytest.mark.parametrize("bfd", [0.0, 0.001, 0.05, 0.3, 3.0])
def test_bird_accepts_it(tmp_path: Path, bfd: float) -> None:
    path = tmp_path / "bird.conf"
    for sessions in (SESSIONS[:1], SESSIONS[1:2], SESSIONS):
        path.write_text(render_bird(DesiredBgp(IPv4Address("10.0.0.2"), 65001, bfd, sessions)))
        checked = subprocess.run(
            ["bird", "-p", "-c", str(path)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
