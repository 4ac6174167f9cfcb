"""The text of /metrics, read by Prometheus's own parser."""

from __future__ import annotations

from ipaddress import ip_address

from prometheus_client.parser import text_string_to_metric_families

from tula.engine.statistics import (
    BackendStatistics,
    CycleOutcome,
    CycleStatistics,
    DurationStatistics,
    LatenessStatistics,
    ProbeStatistics,
    ServiceStatistics,
    Statistics,
)
from tula.metrics.render import render_metrics
from tula.model.bgp import BgpSessionState
from tula.model.health import State
from tula.model.stats import Count, TableUse
from tula.version import __version__

FULL = Statistics(
    services=(
        ServiceStatistics(
            *("web", Count(7, 700), 8, True),
            DurationStatistics(((0.1, 3), (float("inf"), 4)), 1.25),
            refused={"denied": 5},
        ),
    ),
    backends=(
        BackendStatistics(
            *("web", "b1", State.UP, 50, Count(4, 400)),
            connections=3,
            flaps=2,
            probes=(ProbeStatistics("http", 0.25, 5), ProbeStatistics("tcp")),
        ),
        BackendStatistics("web", "b2", State.DOWN, 0),
    ),
    cycles=CycleStatistics({CycleOutcome.CHANGED: 2, CycleOutcome.FAILED: 1}, 1.5, 2, 0.25),
    lateness=LatenessStatistics(10, 0.5, 0.25),
    named={"no_backend": Count(9, 900), "icmp_steered": Count(1, 100)},
    tables=(TableUse("tcp4", 12, 262144), TableUse("udp4", None, 262144)),
    restarts={"drift-detection": 3},
    configuration_accepted=1_800_000_000.0,
)

Labels = tuple[tuple[str, str], ...]


def samples(statistics: Statistics) -> dict[tuple[str, Labels], float]:
    """All samples by name and labels; every family has a help text."""
    found = {}
    for family in text_string_to_metric_families(render_metrics(statistics).decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_every_figure() -> None:
    def labels(**given: str) -> Labels:
        return tuple(sorted(given.items()))

    b1, b2 = labels(service="web", backend="b1"), labels(service="web", backend="b2")
    http = labels(service="web", backend="b1", check="http")
    tcp = labels(service="web", backend="b1", check="tcp")
    states = {
        ("tula_backend_state", labels(service="web", backend=name, state=str(state))): float(
            state is is_in
        )
        for name, is_in in (("b1", State.UP), ("b2", State.DOWN))
        for state in State
    }
    cycles = {
        ("tula_reconcile_cycles_total", labels(outcome=outcome)): count
        for outcome, count in {"unchanged": 0, "changed": 2, "repaired": 0, "failed": 1}.items()
    }
    assert samples(FULL) == {
        ("tula_build_info", labels(version=__version__)): 1,
        ("tula_service_packets_total", labels(service="web")): 7,
        ("tula_service_bytes_total", labels(service="web")): 700,
        ("tula_service_panic", labels(service="web")): 1,
        ("tula_service_on_backups", labels(service="web")): 0,
        ("tula_service_no_backend_packets_total", labels(service="web")): 8,
        ("tula_service_denied_packets_total", labels(service="web")): 5,
        ("tula_service_limited_packets_total", labels(service="web")): 0,
        **states,
        ("tula_backend_weight", b1): 50,
        ("tula_backend_weight", b2): 0,
        ("tula_backend_connections", b1): 3,
        ("tula_backend_packets_total", b1): 4,
        ("tula_backend_packets_total", b2): 0,
        ("tula_backend_bytes_total", b1): 400,
        ("tula_backend_bytes_total", b2): 0,
        ("tula_backend_flaps_total", b1): 2,
        ("tula_backend_flaps_total", b2): 0,
        ("tula_probe_last_duration_seconds", http): 0.25,
        ("tula_probe_duration_seconds_bucket", labels(service="web", le="0.1")): 3,
        ("tula_probe_duration_seconds_bucket", labels(service="web", le="+Inf")): 4,
        ("tula_probe_duration_seconds_count", labels(service="web")): 4,
        ("tula_probe_duration_seconds_sum", labels(service="web")): 1.25,
        ("tula_probe_failures_total", http): 5,
        ("tula_probe_failures_total", tcp): 0,
        ("tula_probe_late_seconds_count", ()): 10,
        ("tula_probe_late_seconds_sum", ()): 0.5,
        ("tula_probe_late_worst_seconds", ()): 0.25,
        **cycles,
        ("tula_reconcile_seconds_count", ()): 3,
        ("tula_reconcile_seconds_sum", ()): 1.5,
        ("tula_reaction_seconds_count", ()): 2,
        ("tula_reaction_seconds_sum", ()): 0.25,
        ("tula_reconcile_failures_total", ()): 1,
        ("tula_task_restarts_total", labels(task="drift-detection")): 3,
        ("tula_dropped_packets_total", labels(cause="no_backend")): 9,
        ("tula_path_packets_total", labels(path="icmp_steered")): 1,
        ("tula_flow_table_entries", labels(table="tcp4")): 12,
        ("tula_flow_table_size", labels(table="tcp4")): 262144,
        ("tula_flow_table_size", labels(table="udp4")): 262144,
        ("tula_configuration_accepted_timestamp_seconds", ()): 1_800_000_000.0,
        ("tula_configuration_refused", ()): 0,
        ("tula_configuration_file_differs", ()): 0,
    }


def test_a_daemon_that_has_nothing_yet() -> None:
    found = samples(Statistics())
    assert ("tula_build_info", (("version", __version__),)) in found
    assert not [name for name, _ in found if name.startswith(("tula_backend", "tula_service"))]


def test_scrapes_do_not_add_up() -> None:
    assert render_metrics(FULL) == render_metrics(FULL)


def test_bgp_sessions() -> None:
    up = BgpSessionState(ip_address("10.0.0.1"), "Established", routes=2, versions=(4,), bfd="Up")
    down = BgpSessionState(ip_address("2001:db8::1"), "Active", bfd="Down")
    found = samples(Statistics(bgp=(up, down)))
    for router, session, bfd, routes in (("10.0.0.1", 1, 1, 2), ("2001:db8::1", 0, 0, 0)):
        labels = (("router", router),)
        assert found["tula_bgp_session_up", labels] == session
        assert found["tula_bgp_bfd_up", labels] == bfd
        assert found["tula_bgp_routes", labels] == routes
