"""``/openapi.json``: made from the table of endpoints and the types of the bodies.

Owns how a body's field types are described. Nothing is written by hand, so it can not lag behind.
"""

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from protocol.body_codec import Between, Body, Encoding, Length
from protocol.http_api import ErrorBody
from protocol.ids import Identifier
from protocol.limits import MAX_COUNTER
from server.routes.endpoint import Access, Endpoint

_DESCRIPTION: Final = (
    "Bodies are JSON for people and msgpack for nodes, with the same fields; this describes the JSON."
    " In msgpack, bytes and identifiers are binary strings."
)


def openapi_document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The document, as plain values for JSON."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Atoll server", "version": version, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ] + [
        {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
        for name, description in endpoint.query
    ]
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "done", "content": _content(endpoint.response, schemas)},
            "default": {"description": "refused", "content": _content(ErrorBody, schemas)},
        },
    }
    if endpoint.request is not None or endpoint.is_raw_request:
        operation["requestBody"] = {
            "required": True,
            "content": _content(endpoint.request, schemas),
        }
    if endpoint.access is not Access.ANYONE:
        operation["security"] = [{"token": []}]
    return operation


def _content(kind: type[Body] | None, schemas: dict[str, Any]) -> dict[str, Any]:
    if kind is None:
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    reference = _schema(kind, schemas)
    return {encoding.value: {"schema": reference} for encoding in Encoding}


def _schema(hint: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    bounds: Any = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)[:2]
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
        inner = inner if bounds is None else Annotated[inner, bounds]
        return {"anyOf": [_schema(inner, schemas), {"type": "null"}]}
    if get_origin(hint) is tuple:
        schema = {"type": "array", "items": _schema(get_args(hint)[0], schemas)}
        return schema | _length(bounds, "Items")
    if get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1], schemas)}
    if issubclass(hint, Body):
        return _body_schema(hint, schemas)
    if issubclass(hint, Identifier):
        return {"type": "string", "description": f"{hint.__name__}, printed"}
    if hint is bytes:
        return {"type": "string", "contentEncoding": "base64url"}
    if hint is str:
        return {"type": "string"} | _length(bounds, "Length")
    if hint is bool:
        return {"type": "boolean"}
    between = bounds if isinstance(bounds, Between) else Between(0, MAX_COUNTER)
    return {"type": "integer", "minimum": between.low, "maximum": between.high}


def _body_schema(kind: type[Body], schemas: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}
        hints = get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        schemas[kind.__name__] = {
            "type": "object",
            "description": (kind.__doc__ or "").partition("\n")[0],
            "properties": {field.name: _schema(hints[field.name], schemas) for field in fields},
            "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        }
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _length(bounds: Any, what: str) -> dict[str, int]:
    if not isinstance(bounds, Length):
        return {}
    return {f"min{what}": bounds.low, f"max{what}": bounds.high}
