"""Problems of a configuration, as they are told."""

from __future__ import annotations

from tula.config.errors import place
from tula.config.load import ConfigError, LoadedConfig, Positions, parse_config
from tula.config.redact import hidden_places
from tula.daemon.apart import apart
from tula.model.problem import PlacedProblem, Problem, ProblemsError


def describe_problem(problem: Problem) -> str:
    """A problem in a line, by its path in the configuration."""
    return f"{problem.dotted}: {problem.message}"


def place_problems(error: ProblemsError, positions: Positions) -> tuple[PlacedProblem, ...]:
    """The problems with their places in the configuration's text."""
    return tuple(place(problem, positions) for problem in error.problems)


def hidden_problems(configuration: LoadedConfig) -> tuple[PlacedProblem, ...]:
    """Where the configuration has the asterisks that stand for a secret, and not the secret."""
    message = (
        "these asterisks are shown in place of a secret; give the secret itself (whoever may apply "
        "configurations is shown it)"
    )
    return tuple(
        place(Problem(path, message), configuration.positions)
        for path in apart(hidden_places, configuration.source)
    )


def read_configuration(
    text: bytes, running: LoadedConfig | None, sent: bool = False
) -> LoadedConfig | tuple[PlacedProblem, ...]:
    """The configuration, or what is wrong with it. What was ``sent`` may have been shown before,
    with its secrets hidden. A large one takes seconds."""
    if running is not None and running.source.encode() == text:
        return running
    try:
        found = parse_config(text)
        return (hidden_problems(found) if sent else ()) or found
    except ConfigError as error:
        return place_problems(error, error.positions)
