"""What status, metrics and the doctor say of persistent clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from support.builders import make_backend, make_config, make_service
from tula.cli.status_text import print_status
from tula.daemon.clients_full import ClientsFull
from tula.engine.event_log import EventLog
from tula.engine.persistent_view import scope_uses
from tula.engine.statistics import Statistics
from tula.engine.status import describe_status
from tula.metrics.render import render_metrics
from tula.model.config import PortRange
from tula.model.event import EventKind
from tula.model.persistence import Persistence
from tula.model.stats import CLIENTS_FULL, Count, TableUse

B = [make_backend(1)]
FTP = Persistence(90.0, prefix=24, scope="ftp")
CONFIG = make_config(
    replace(make_service("web", backends=B), persistence=Persistence(300.0)),
    replace(make_service("ftp", ports=[PortRange(21, 21)], backends=B), persistence=FTP),
    replace(make_service("data", ports=[PortRange(30, 40)], backends=B), persistence=FTP),
    make_service("plain", ports=[PortRange(9, 9)], backends=B),
)


def tables(web: int | None, ftp: int | None) -> tuple[TableUse, ...]:
    return (
        TableUse("tcp4", 7, 262144),
        TableUse("clients4.service.web.32", web, 1024, "service.web", 4),
        TableUse("clients4.name.ftp.24", ftp, 1024, "name.ftp", 4),
        TableUse("clients6.name.ftp.128", 1, 1024, "name.ftp", 6),
    )


def test_status_has_settings_and_how_many_are_held(capsys: pytest.CaptureFixture[str]) -> None:
    answer = describe_status(CONFIG, {}, {}, tables(12, 30))
    told = {service["name"]: service["persistence"] for service in answer["services"]}
    assert told["plain"] is None
    assert told["web"] == {
        "timeout": 300.0,
        "prefix": 32,
        "prefix6": 128,
        "scope": "service",
        "drain": "keep",
        "services": ["web"],
        "clients": 12,
        "size": 262144,
    }
    assert told["ftp"] == told["data"]
    assert (told["ftp"]["services"], told["ftp"]["clients"]) == (["ftp", "data"], 31)
    assert answer["problems"] == []
    print_status(answer)
    assert "persistent clients: web 12, ftp+data 31\n" in capsys.readouterr().out


def test_status_tells_of_refused_packets(capsys: pytest.CaptureFixture[str]) -> None:
    answer = describe_status(CONFIG, {}, {}, tables(12, 30))
    print_status(answer)
    assert "refused" not in capsys.readouterr().out
    answer["services"][0] |= {"denied": 7, "limited": 0}
    answer["services"][1] |= {"denied": 1, "limited": 2}
    print_status(answer)
    first, second = (service["name"] for service in answer["services"][:2])
    out = capsys.readouterr().out
    assert f"refused by {first}: 7 packets denied\n" in out
    assert f"refused by {second}: 1 packet denied, 2 packets limited\n" in out


def test_a_kernel_that_does_not_tell(capsys: pytest.CaptureFixture[str]) -> None:
    answer = describe_status(CONFIG, {}, {}, tables(None, None))
    assert [s["persistence"] and s["persistence"]["clients"] for s in answer["services"]] == [
        *(None, None, None, None)
    ]
    print_status(answer)
    assert "persistent" not in capsys.readouterr().out


def test_a_full_table_is_a_problem() -> None:
    answer = describe_status(CONFIG, {}, {}, tables(12, 1024))
    (problem,) = answer["problems"]
    assert problem.startswith("persistence of ftp: the table of IPv4 clients is full: new ones")
    assert not answer["summary"]["fine"]


def _metrics(found: Sequence[TableUse]) -> list[str]:
    named = {CLIENTS_FULL: Count(5, 300)}
    uses = tuple(scope_uses(CONFIG, found))
    text = render_metrics(Statistics(named=named, tables=tuple(found), clients=uses)).decode()
    return [line for line in text.splitlines() if "client" in line or "persist" in line]


def test_metrics() -> None:
    lines = [line for line in _metrics(tables(12, 30)) if not line.startswith("#")]
    assert lines == [
        'tula_persistence_clients{scope="service.web"} 12.0',
        'tula_persistence_clients{scope="name.ftp"} 31.0',
        'tula_persistence_size{scope="service.web"} 262144.0',
        'tula_persistence_size{scope="name.ftp"} 262144.0',
        "tula_persistence_full_total 5.0",
    ]


def test_that_clients_are_not_remembered_is_told_once() -> None:
    events = EventLog()
    full = ClientsFull(events)

    def note(packets: int, now: float) -> bool:
        full.note({CLIENTS_FULL: Count(packets, 0)}, now)
        return bool(full.problems)

    assert not note(5, 0.0), "from before this daemon"
    assert not note(5, 10.0)
    assert note(6, 20.0)
    assert note(900, 30.0)
    assert note(900, 320.0)
    assert not note(900, 331.0), "it is over"
    assert not note(0, 340.0), "another table"
    assert note(1, 350.0)
    kinds = [event.kind for event in events.page(None, 100).events]
    assert kinds == [EventKind.CLIENTS_FULL] * 2
