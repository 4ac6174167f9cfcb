"""``tula check`` and ``tula schema``: a configuration by itself."""

from __future__ import annotations

import sys
from dataclasses import replace

import typer

from tula.cli.common import WRONG, File, Json, errors, fail, print_json


def check(file: File, json: Json = False) -> None:
    """Validate a configuration file: every problem as F:LINE:COL: path: message.

    What depends on this machine (interfaces, on-link backends) is only a warning.
    """
    from tula.config.load import ConfigError, describe, load_config
    from tula.engine.assemble import kernel_data_path
    from tula.kernel.network import KernelNetwork
    from tula.plan.admission import describe_shut
    from tula.plan.routes import backend_addresses, plan_routes, takes_own_address
    from tula.plan.unchecked import FIX, describe_unchecked

    try:
        loaded = load_config(file)
    except ConfigError as error:
        lines = [describe(str(file), problem, error.positions) for problem in error.problems]
        if json:
            print_json({"valid": False, "problems": lines, "warnings": []})
            raise typer.Exit(WRONG) from None
        fail(WRONG, *lines)
    config = loaded.config
    with errors():
        network = KernelNetwork()
        host = network.view(backend_addresses(config))
        if takes_own_address(config, host):
            host = replace(host, ssh_ports=network.ssh_ports())
    routes = plan_routes(config, host)
    here = [*routes.problems, *(caution.problem for caution in routes.cautions)]
    with errors():
        here += kernel_data_path().unsupported(config)
    warnings = [describe(str(file), problem, loaded.positions) for problem in loaded.warnings]
    unchecked = describe_unchecked(config)
    warnings += [f"{file}: {line}" for line in describe_shut(config)]
    if unchecked:
        warnings.append(f"{file}: {unchecked}; {FIX}")
    warnings += [f"on this machine: {describe(str(file), p, loaded.positions)}" for p in here]
    if json:
        print_json({"valid": True, "problems": [], "warnings": warnings})
        return
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    backends = {backend.key for service in config.services for backend in service.backends}
    print(f"{file}: valid; services: {len(config.services)}, backends: {len(backends)}")


def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from tula.config.schema import json_schema

    print_json(json_schema())
