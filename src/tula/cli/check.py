"""``tula check`` and ``tula schema``: documents by themselves."""

from __future__ import annotations

import sys

from tula.cli.common import File, errors, print_json, read_document, warn


def check(file: File) -> None:
    """Validate a document: every problem as F:LINE:COL: path: message.

    What only the balancer can see (interfaces, on-link backends) is a warning here.
    """
    from tula.config.load import describe
    from tula.kernel.network import KernelNetwork
    from tula.plan.reach import backend_addresses, plan_reach

    document = read_document(file)
    warn(str(file), document)
    config = document.config
    with errors():
        host = KernelNetwork().view(backend_addresses(config))
    for problem in plan_reach(config, host).problems:
        line = describe(str(file), problem, document.positions)
        print(f"warning: on this machine: {line}", file=sys.stderr)
    backends = {backend.key for service in config.services for backend in service.backends}
    print(f"{file}: valid, {len(config.services)} services, {len(backends)} backends")


def schema() -> None:
    """Print the document's JSON Schema, for editors."""
    from tula.config.schema import json_schema

    print_json(json_schema())
