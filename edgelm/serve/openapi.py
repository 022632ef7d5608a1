"""The interface described for programs: OpenAPI 3.1, made from the table of routes."""

from __future__ import annotations

from typing import Any

import msgspec

from edgelm import __version__
from edgelm.serve.routes import Route

_ERROR = {
    "type": "object",
    "properties": {"error": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
    "required": ["error"],
}
_REFUSALS = {
    "400": "The request cannot be answered; the message says what was expected and what was found.",
    "401": "A key is needed.",
    "403": "The request comes from elsewhere, or asks for what this server was told not to do.",
    "404": "It is not here.",
    "413": "The body is too long.",
    "415": "The body is not JSON.",
    "503": "Too much is asked at a time, or the device cannot do it now.",
}


def describe(routes: list[Route]) -> dict[str, Any]:
    """The description of a table of routes."""
    kinds = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    found = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgelm",
            "version": __version__,
            "description": "A small language model that runs on this device and learns here.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {"application/json": {"schema": schemas[route.answer] if route.answer else {}}}
    if route.streams:
        answers[route.streams] = {"schema": {}}
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses = {"200": {"description": route.summary, "content": answers}}
    responses |= {code: {"description": text, "content": refusal} for code, text in _REFUSALS.items()}
    operation: dict[str, Any] = {"summary": route.summary, "responses": responses}
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in (route.query or {}).items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
