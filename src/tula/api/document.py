"""The OpenAPI document: what the routes declare, and what every one of them may answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tula.api.problems import MEDIA_TYPE

_ANYWHERE = {
    400: "The request cannot be understood.",
    401: "No token that is known, or one that has expired (the gateway).",
    403: "The token's scope does not allow this.",
    408: "The request was not sent in time (the gateway).",
    413: "The body is too large.",
    429: "Too many requests, or too many with a wrong token (the gateway).",
    431: "The headers are too large (the gateway).",
    500: "The kernel or the state directory refused; or an error of Tula's own.",
    502: "The daemon ended before it answered (the gateway).",
    503: "Not now: the daemon is starting or stopping, or too much is asked of it.",
}
"""Beside what a route itself declares. Without the gateway, which answers the network, the daemon
gives fewer of them."""

_HEADERS = {
    401: {
        "WWW-Authenticate": {
            "description": "How to authenticate.",
            "schema": {"type": "string"},
        }
    },
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}

_PROBLEM = {"$ref": "#/components/schemas/ProblemBody"}
_OWN_SCHEMAS = ("HTTPValidationError", "ValidationError")
"""FastAPI's, of an answer that Tula does not give."""


def make_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the app."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="The API of Tula, a layer-4 load balancer with Direct Server Return.",
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    for operation in _operations(document):
        responses: dict[str, Any] = operation["responses"]
        for number, told in _ANYWHERE.items():
            responses.setdefault(str(number), {"description": told})
        for status, response in responses.items():
            if int(status) >= 400:
                response["content"] = {MEDIA_TYPE: {"schema": _PROBLEM}}
                if response["description"] == "Validation Error":
                    response["description"] = "A parameter or the body is wrong."
                if int(status) in _HEADERS:
                    response["headers"] = _HEADERS[int(status)]
        operation["responses"] = dict(sorted(responses.items()))
    for name in _OWN_SCHEMAS:
        document["components"]["schemas"].pop(name, None)
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        for method, operation in path.items():
            if method in ("get", "put", "post", "delete", "patch"):
                yield operation
