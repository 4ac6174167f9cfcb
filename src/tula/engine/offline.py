"""What commands without a daemon know of a change: what it takes away, and what changes."""

from __future__ import annotations

from tula.config.load import ConfigError, LoadedConfig, parse_config
from tula.engine.history import Record
from tula.engine.overrides import OverrideChange, changed_overrides
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.config import Config
from tula.model.health import BackendName
from tula.plan.backend_status import plan_backend_statuses
from tula.plan.config_changes import describe_config_changes
from tula.plan.losses import describe_losses, describe_override_losses


def prepare_acceptance(
    store: Store, after: LoadedConfig, by: str, how: str
) -> tuple[tuple[str, ...], Record]:
    """What accepting a configuration would take out of service, a line each, and what the history
    will say of it. Raises StateError.

    Nobody checks health without a daemon, so a backend serves unless the operator said otherwise.
    """
    source = store.configuration()
    if source == after.source.encode():
        return (), Record(by, how)
    try:
        before = None if source is None else parse_config(source).config
    except ConfigError:  # of another version of Tula
        before = None
    record = Record(by, how, describe_config_changes(before, after.config))
    if before is None:
        return (), record
    now, overrides = boot_time(), store.overrides()
    have = plan_backend_statuses(before, {}, overrides, now).of
    want = plan_backend_statuses(after.config, {}, overrides, now).of
    return describe_losses(before, have, after.config, want), record


def override_losses(
    store: Store, config: Config, name: BackendName, change: OverrideChange
) -> tuple[str, ...]:
    """The same for an override of a backend."""
    now, before = boot_time(), store.overrides()
    after = changed_overrides(before, name, change)
    have = plan_backend_statuses(config, {}, before, now).of
    want = plan_backend_statuses(config, {}, after, now).of
    return describe_override_losses(config, have, want)
