"""Sessions as status shows them: one for each router of the configuration."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from support.builders import make_config, make_service
from tula.api.status_bodies import BgpSessionBody
from tula.engine.bgp_view import describe_bgp
from tula.model.bgp import BgpSessionState
from tula.model.high_availability import Bgp, HighAvailability

FIRST, SECOND, STRANGER = map(ip_address, ("10.0.0.1", "2001:db8::1", "10.0.0.9"))


def test_each_router_has_one() -> None:
    config = make_config(make_service())
    assert describe_bgp(config, ()) == []
    bgp = Bgp(65001, ((FIRST, 65000), (SECOND, 65010)))
    config = replace(config, high_availability=HighAvailability(bgp=bgp))
    up = BgpSessionState(FIRST, "Established", 12.5, 2, (4, 6), "Up")
    told = describe_bgp(config, (BgpSessionState(STRANGER, "Active"), up))
    assert told == [
        {
            **{"router": "10.0.0.1", "as": 65000, "state": "Established", "since": 12.5},
            **{"routes": 2, "versions": [4, 6], "bfd": "Up", "error": ""},
        },
        {
            **{"router": "2001:db8::1", "as": 65010, "state": "Down", "since": None},
            **{"routes": 0, "versions": [], "bfd": "", "error": ""},
        },
    ]
    declared = [BgpSessionBody.model_validate(session) for session in told]
    assert [body.model_dump(by_alias=True) for body in declared] == told
