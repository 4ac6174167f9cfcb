"""What is shown of a configuration to those who may not change it."""

from __future__ import annotations

from tula.config.redact import redact

TEXT = """
command: [/bin/check, --password, hunter2, -v, --api-key=hunter2, --url=x]  # hunter
health: {path: '/up?a=1&token=hunter2', headers: {A: hunter2}}
other: {path: '/up?a=1', command: [/bin/token, hunter]}
"""


def test_arguments_and_queries_that_name_a_secret_are_hidden() -> None:
    assert redact(TEXT) == (
        """
command: [/bin/check, --password, "********", -v, "********", --url=x]  # hunter
health: {path: "********", headers: {A: "********"}}
other: {path: '/up?a=1', command: [/bin/token, hunter]}
"""
    )
