"""Who may give the daemon a configuration, and what may be in it: ``api.source``, and what comes
only from the local file."""

from __future__ import annotations

from dataclasses import replace

from tula.config.load import ConfigError, LoadedConfig, parse_config
from tula.config.local_settings import foreign_problems, known_settings
from tula.daemon.watch import FileWatch
from tula.engine.control import Order, SourceError
from tula.model.listening import Source
from tula.model.problem import ProblemsError


def source_of(running: LoadedConfig | None) -> Source:
    """Who owns the configuration."""
    return Source.FILE if running is None else running.config.api.source


def require_owner(new: LoadedConfig, running: LoadedConfig | None, order: Order) -> None:
    """Raises SourceError when the order is not the owner's, and ProblemsError for what has to come
    from the local file."""
    source = source_of(running)
    if order.from_file and source is Source.API:
        raise SourceError(
            "the configuration is written over the network (api: source: api), and the file was "
            "only the first one; change what runs (tula configuration prints it), or take the "
            f"file in its place: tula apply -f {order.file}"
        )
    if not order.network:
        return
    if source is Source.FILE and not order.peer:
        raise SourceError(
            "the configuration comes from the file on the machine (api: source: file); change it "
            "there, or have the file say source: api"
        )
    before = None if running is None else running.config
    problems = foreign_problems(new.config, new.positions, before, order.known, order.file)
    if problems:
        raise ProblemsError(problems)


def bound(order: Order, new: LoadedConfig, running: LoadedConfig | None, watch: FileWatch) -> Order:
    """The order, with the name of the local file, and what that has of what only it may have, if
    anybody is going to ask. Takes as long as it takes to parse the file."""
    order = replace(order, file=str(watch.path))
    before = None if running is None else running.config
    if not order.network or not foreign_problems(
        new.config, new.positions, before, frozenset(), ""
    ):
        return order
    text = watch.read()
    if isinstance(text, str):
        return order
    try:
        return replace(order, known=known_settings(parse_config(text).config))
    except ConfigError:
        return order
