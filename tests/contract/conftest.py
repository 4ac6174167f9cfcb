"""The table under contract: a fake one, and the kernel's in a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.nftables import KernelNftables, Nftables
from tula.lab import Lab, require_private_namespace


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def nft(request: pytest.FixtureRequest) -> Iterator[Nftables]:
    """An empty machine with the interfaces eth0, eth1, and tula-sync."""
    if request.param == "fake":
        yield FakeNftables()
        return
    with Lab() as lab:
        switch = lab.switch("switch")
        host = lab.host("lb", switch, "10.0.0.2/16")
        lab.connect(host, switch, "10.1.0.2/24", ifname="eth1")
        sync = "ip link add tula-sync type vxlan id 1 dstport 4790"
        host.run(sync.split())
        with host.enter():
            require_private_namespace()
            yield KernelNftables()
