"""``tula doctor``: tests the set-up for known problems, and names the fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    FAILED,
    RUN_DIR,
    STATE_DIR,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    config_of,
    errors,
    fail,
    has_rights,
    kernel_adapters,
    open_balancer,
    open_store,
    print_json,
)
from tula.cli.daemon import daemon_of

if TYPE_CHECKING:
    from tula.cli.client import Client
    from tula.config.load import LoadedConfig
    from tula.doctor.run import Report
    from tula.engine.store import Store


def doctor(
    file: MaybeFile = None,
    patience: Annotated[
        float,
        typer.Option(
            "--patience", metavar="SECONDS", min=0.1, help="How long to wait for replies."
        ),
    ] = 1.2,
    whole: Annotated[
        bool, typer.Option("--all", help="Every finding, however many are alike.")
    ] = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Test the set-up for the known problems of Direct Server Return, and name the fix.

    Sends packets to all backends over the path of clients' packets; changes nothing. Exit status
    1 when there is an error or a warning.
    """
    from tula.doctor.observation import observe_machine
    from tula.doctor.run import examine

    if not has_rights():
        fail(FAILED, "tula: doctor needs root (CAP_NET_ADMIN and CAP_NET_RAW)")
    store = open_store(state_dir)
    configuration = _configuration(file, store)
    daemon = daemon_of(run_dir)
    with errors():
        observed = observe_machine(
            configuration.config,
            configuration.source.encode(),
            f"-f {file}" if file is not None else "",
            kernel_adapters(run_dir),
            store,
            lambda: _pending_changes(daemon, store, configuration, file is not None, run_dir),
            lambda: _status(daemon),
            run_dir,
        )
        report = examine(observed, patience)
    if json:
        print_json(_as_json(report))
    else:
        from tula.cli.doctor_text import print_report

        print_report(report, whole=whole)
    if any(finding.severity.is_problem for finding in report.findings):
        raise typer.Exit(FAILED)


def _configuration(file: Path | None, store: Store) -> LoadedConfig:
    """The named configuration, else the applied one, else the one that this machine joined."""
    from tula.agent.record import RecordFile
    from tula.config.load import ConfigError, parse_config

    with errors():
        applied = store.configuration() is not None
        record = RecordFile(store.directory).read()
    if file is None and not applied and record is not None and len(record.sources) == 1:
        try:
            return parse_config(record.sources[0].text)
        except ConfigError:
            pass  # from another version of Tula: it must be named with -f
    return config_of(file, store)[1]


def _pending_changes(
    daemon: Client | None,
    store: Store,
    configuration: LoadedConfig,
    named: bool,
    run_dir: Path,
) -> Sequence[str] | None:
    """What apply would change; None when the configuration does not fit this machine.

    A running daemon is asked, since it knows the backends' health.
    """
    from tula.cli.client import DaemonError, NoDaemonError
    from tula.engine.steps import describe_steps
    from tula.model.problem import ProblemsError

    source = configuration.source.encode()
    try:
        if daemon is not None:
            # Not of the daemon's file: that it differs is no drift.
            outcome = daemon.plan(source if named else None, True, file=False)
            steps: Iterable[dict[str, Any]] = outcome["steps"]
        else:
            steps = describe_steps(
                open_balancer(store, run_dir).plan(configuration.config, source, force=True)
            )
    except (ProblemsError, DaemonError, NoDaemonError):
        return None
    return [f"{step['verb']} {step['what']} {step['name']}" for step in steps]


def _status(daemon: Client | None) -> dict[str, Any] | None:
    """What the daemon tells; None where it does not."""
    from tula.cli.client import DaemonError, NoDaemonError

    try:
        return dict(daemon.get("/status")) if daemon is not None else None
    except (DaemonError, NoDaemonError):
        return None


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "findings": [asdict(finding) for finding in report.findings],
        "tested": list(report.tested),
    }
