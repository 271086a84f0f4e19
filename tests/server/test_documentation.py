"""docs/http-api.md names every route, field, error and limit that the server has."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from protocol import http_api
from protocol.body_codec import Body
from protocol.crypto.block_header import MAX_BLOCK_FRAME_BYTES
from protocol.http_api import ErrorCode
from server.app import ENDPOINTS
from server.routes import event_routes

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
BODIES = [
    each
    for _, each in inspect.getmembers(http_api, inspect.isclass)
    if issubclass(each, Body) and each not in (Body, http_api.EmptyBody)
]


@pytest.mark.parametrize(
    "endpoint", [*ENDPOINTS, event_routes.SOCKET], ids=lambda each: f"{each.method} {each.path}"
)
def test_every_route_is_listed_with_its_access_and_bodies(endpoint):
    start = f"| `{endpoint.method} {endpoint.path}"
    row = next(line for line in TEXT.splitlines() if line.startswith(start))
    assert f"| {endpoint.access.value} |" in row
    for body in (endpoint.request, endpoint.response):
        if body not in (None, http_api.EmptyBody) and endpoint is not event_routes.SOCKET:
            assert body.__name__ in row


@pytest.mark.parametrize("body", BODIES, ids=lambda each: each.__name__)
def test_every_field_is_listed(body):
    names = [field.name for field in dataclasses.fields(body)]
    assert all(name in TEXT for name in names), names


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_is_listed(code):
    assert f"`{code.value}`" in TEXT


def test_the_numbers_are_those_of_the_code():
    assert f"{MAX_BLOCK_FRAME_BYTES:,}".replace(",", " ") in TEXT
    for number in (
        event_routes.CLOSE_UNAUTHENTICATED,
        event_routes.CLOSE_REVOKED,
        event_routes.CLOSE_RESTART,
        event_routes.CLOSE_TRY_LATER,
        http_api.MAX_COMMIT_RECORDS,
        http_api.MAX_DELTA_RECORDS,
        http_api.MAX_APPEND_EVENTS,
        http_api.MAX_BLOCK_LIST,
    ):
        assert str(number) in TEXT
