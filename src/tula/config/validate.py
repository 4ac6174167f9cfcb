"""A tree to the model's Config: every problem of the document, found in one go."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from tula.config.build import build
from tula.config.merged import Merged, merge
from tula.config.models import DocumentModel
from tula.config.rules_across import across_problems
from tula.config.rules_document import document_problems
from tula.config.rules_service import service_problems
from tula.config.rules_size import size_problems
from tula.config.shown import shown
from tula.config.translate import problems_of, without
from tula.config.tree import MapNode, Positions, Value
from tula.model.config import Config
from tula.model.problem import Path, Problem

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """The Config when there are no problems, else None; warnings either way."""

    config: Config | None
    problems: list[Problem]
    warnings: list[Problem]


def validate(root: Value, positions: Positions) -> Outcome:
    """Check types, then the rules between fields on all that could be read."""
    if root is None:
        return _refused("the document is empty; give interfaces and services")
    if not isinstance(root, MapNode):
        return _refused(f"expected a map with interfaces and services; got {shown(root)}")
    model, problems = _read(root, positions)
    services = merge(root, model)
    problems.extend(document_problems(root, model, services))
    too_much = list(size_problems(services))
    problems.extend(too_much)
    if not too_much:
        for service in services:
            problems.extend(service_problems(service, positions))
        problems.extend(across_problems(services, positions))
    config = None if problems else build(model, services)
    return Outcome(config, problems, _warnings(model, services))


def _refused(message: str) -> Outcome:
    return Outcome(None, [Problem((), message)], [])


def _read(root: MapNode, positions: Positions) -> tuple[DocumentModel, list[Problem]]:
    """The typed document without its faulty parts, and the problems of those."""
    tree: object = root
    problems: list[Problem] | None = None
    faulty: list[Path] = []
    for _ in range(_ROUNDS):
        try:
            return DocumentModel.model_validate(tree), problems or []
        except ValidationError as error:
            found, cuts = problems_of(error, positions)
            # What fails only once its faulty parts are gone is no fault of the document's.
            problems = found if problems is None else problems
            faulty.extend(cuts)
            tree = without(root, faulty)
    return DocumentModel(), problems or []


def _warnings(model: DocumentModel, services: list[Merged]) -> list[Problem]:
    warnings = []
    for service in services:
        announce = service.keys.announce
        if isinstance(announce, str) and announce not in model.interfaces:
            message = f"{announce} is not one of interfaces: what arrives there is not balanced"
            warnings.append(Problem(service.given["announce"], message))
    return warnings
