"""What a change came to, or would come to, in the words of the one who asked for it."""

from __future__ import annotations

from tula.config.errors import place
from tula.config.load import LoadedConfig
from tula.engine.change import Change
from tula.engine.control import ApplyOutcome
from tula.engine.history import digest_of
from tula.engine.plan_text import describe_plan
from tula.engine.steps import describe_steps, render_steps
from tula.model.config import Config
from tula.plan.config_changes import describe_config_changes


def describe_outcome(before: Config | None, after: LoadedConfig, change: Change) -> ApplyOutcome:
    """The change from one configuration to another. Takes long for a large one."""
    warnings = (*after.warnings, *change.warnings)
    changes = describe_config_changes(before, after.config)
    return ApplyOutcome(
        bool(change),
        render_steps(describe_steps(change)),
        warnings=tuple(place(warning, after.positions) for warning in warnings),
        summary=describe_plan(changes, after.config, change.steps()),
        digest=digest_of(after.source.encode()),
    )
