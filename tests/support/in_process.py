"""The commands of a lab's balancer without starting a program for each: a fifth of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tula.cli.common import open_balancer, open_store
from tula.cli.main import app
from tula.config.load import load_config, parse_config
from tula.engine.change import Change, Outcome
from tula.engine.status import describe_status
from tula.lab import Host, LabError
from tula.lab.process import Completed
from tula.model.config import Config
from tula.model.flow import Flow
from tula.plan.trace import Trace


class InProcess:
    """``tula apply`` and ``tula status`` in a host; the state is that of ``host.tula``."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.store = open_store(Path(host.environment()["TULA_STATE_DIR"]))
        run_dir = Path(host.environment()["TULA_RUN_DIR"])
        self.balancer = open_balancer(self.store, run_dir)

    def apply(self, configuration: Path) -> Outcome:
        """Brings the host's kernel to the configuration."""
        loaded = load_config(configuration)
        with self._host.enter():
            return self.balancer.apply(loaded.config, loaded.source.encode())

    def plan(self, configuration: Path) -> Change:
        """What that would change."""
        loaded = load_config(configuration)
        with self._host.enter():
            return self.balancer.plan(loaded.config, loaded.source.encode())

    def clear(self) -> Change:
        """Takes everything back."""
        with self._host.enter():
            return self.balancer.clear()

    def trace(self, flow: Flow) -> Trace:
        """Where a flow goes by the applied configuration and the kernel's tables."""
        with self._host.enter():
            entry = self.balancer.find_entry(flow)
        return self.balancer.trace(self._config(), flow, entry)

    def _config(self) -> Config:
        source = self.store.configuration()
        assert source is not None
        return parse_config(source).config

    def status(self) -> dict[str, dict[str, Any]]:
        """The services of the applied configuration by name."""
        config = self._config()
        with self._host.enter():
            stats = self.balancer.stats()
            endpoints = self.balancer.endpoints(config)
        answer = describe_status(
            config,
            stats.backends,
            stats.counters,
            endpoints=endpoints,
            no_backend=stats.no_backend,
            refused=stats.refused,
        )
        return {service["name"]: service for service in answer["services"]}


def call_tula(
    host: Host, *arguments: str | Path, check: bool = True, pasted: str = ""
) -> Completed:
    """As ``host.tula``, by this process: a program takes most of a second to start."""
    words = [str(argument) for argument in arguments]
    with host.enter():
        result = CliRunner().invoke(app, words, env=host.environment(), input=pasted)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if check and result.exit_code:
        raise LabError(f"tula {' '.join(words)}: {result.exit_code}: {result.stderr}")
    return Completed(words, result.exit_code, result.stdout, result.stderr)
