"""Bodies and requests that are not what they should be: each has its answer, and none breaks anything."""

from __future__ import annotations

import http.client
import json
import os
import random

import httpx
import pytest

from protocol.body_codec import Encoding
from protocol.http_api import (
    MAX_COMMIT_RECORDS,
    ChallengeRequest,
    CommitRequest,
    ErrorBody,
    HealthResponse,
)
from protocol.limits import MAX_BODY_BYTES
from server.app import ENDPOINTS
from server.routes.endpoint import Access
from tests.server.client import Client

MSGPACK = {"content-type": "application/msgpack"}
JSON = {"content-type": "application/json"}
GOOD = ChallengeRequest(email="a@b.org").to_wire()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\xc0",
        b"\xc1",
        b"\x80" * 3,
        b"\x91\x01",
        b"\xc0",
        os.urandom(100),
        b"\x81\xa5email\x07",
        b"\x81\xa5email\xa1x",
        b"\x81\xa6device\xc4\x01x",
        b"\x91" * 2000,
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_a_body_that_is_not_the_expected_msgpack_is_malformed(client, body):
    status, error = client.refused("POST", "/v1/auth/challenge", body, headers=MSGPACK)
    assert (status, error.code, error.retryable) == (400, "malformed", False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"email": 5}',
        b"[" * 100_000,
        b'{"email":"a@b.org","device":"dev-1"}',
        b"1" * 5000,
    ],
)
def test_a_body_that_is_not_the_expected_json_is_malformed(client, body):
    body = body[:60_000]
    response = client.request(
        "POST", "/v1/auth/challenge", body, headers=JSON, encoding=Encoding.JSON
    )
    assert response.status_code == 400
    assert ErrorBody.from_wire(response.content, Encoding.JSON).code == "malformed"


def test_unknown_fields_are_ignored(client):
    body = json.dumps({"email": "a@b.org", "colour": "green"}).encode()
    assert client.request("POST", "/v1/auth/challenge", body, headers=JSON).is_success


@pytest.mark.parametrize("media_type", ["text/plain", "application/cbor", ""])
def test_another_media_type_is_refused(client, media_type):
    status, error = client.refused(
        "POST", "/v1/auth/challenge", GOOD, headers={"content-type": media_type}
    )
    assert (status, error.code) == (415, "unsupported_media_type")


def test_bodies_above_their_limit_are_refused_declared_or_not(client, person):
    path = f"/v1/namespaces/{person.namespace.id}/records"
    status, error = client.refused("POST", path, bytes(MAX_BODY_BYTES + 1), headers=MSGPACK)
    assert (status, error.code) == (413, "too_large")
    pieces = (bytes(1024 * 1024) for _ in range(9))
    response = client.http.post(
        path,
        content=pieces,
        headers={**MSGPACK, "authorization": f"Bearer {client.token}"},
    )
    assert response.status_code == 413
    status, error = client.refused("POST", "/v1/auth/challenge", bytes(70_000), headers=MSGPACK)
    assert (status, error.code) == (413, "too_large")
    assert client.call(HealthResponse, "GET", "/healthz").ok


def test_too_many_records_at_once_are_malformed(client, person):
    path = f"/v1/namespaces/{person.namespace.id}/records"
    for count in (0, MAX_COMMIT_RECORDS + 1):
        status, error = client.refused("POST", path, CommitRequest((b"x",) * count))
        assert (status, error.code) == (400, "malformed")


def test_every_route_with_a_token_refuses_requests_without(server):
    with Client(server.url) as nobody:
        for endpoint in ENDPOINTS:
            if endpoint.access is Access.ANYONE:
                continue
            path = endpoint.path.format(account="a", namespace="n", block="b")
            status, error = nobody.refused(endpoint.method, path, b"")
            assert (status, error.code) == (401, "unauthenticated"), endpoint


def test_paths_and_methods_that_do_not_exist(client):
    assert client.refused("GET", "/v1/nothing")[1].code == "not_found"
    assert client.refused("DELETE", "/v1/devices")[1].code == "method_not_allowed"
    assert client.refused("GET", "/")[0] == 404


def test_a_client_that_hangs_up_in_its_body_harms_nobody(client, server):
    url = httpx.URL(server.url)
    for _ in range(20):
        connection = http.client.HTTPConnection(url.host, url.port)
        connection.putrequest("POST", "/v1/auth/challenge")
        connection.putheader("content-type", "application/msgpack")
        connection.putheader("content-length", "1000")
        connection.endheaders()
        connection.send(b"half")
        connection.close()
    assert client.call(HealthResponse, "GET", "/healthz").ok


def test_random_bytes_on_every_route_never_fail_the_server(client, person):
    chance = random.Random(20261121)
    statuses = set()
    for endpoint in ENDPOINTS:
        if endpoint.method != "POST":
            continue
        path = endpoint.path.format(
            account=person.account.id, namespace=person.namespace.id, block="0" * 64
        )
        for _ in range(20):
            body = chance.randbytes(chance.randrange(200))
            headers = {"content-type": chance.choice(list(Encoding)).value}
            statuses.add(client.request("POST", path, body, headers=headers).status_code)
    # Logout takes no body; whatever came is ignored, and afterwards the token is gone.
    assert statuses <= {200, 400, 401}
    assert 400 in statuses


def test_health_metrics_and_openapi(client):
    assert client.call(HealthResponse, "GET", "/readyz").ok
    metrics = client.http.get("/metrics")
    assert (
        'atoll_requests_total{method="POST",path="/v1/auth/register",status="200"}' in metrics.text
    )
    assert "example.org" not in metrics.text
    document = client.http.get("/openapi.json").json()
    described = {
        (method.upper(), path) for path, each in document["paths"].items() for method in each
    }
    assert described >= {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    error = document["components"]["schemas"]["ErrorBody"]
    assert error["required"] == ["code", "message", "retryable"]
    references = set(_references(document))
    assert references <= set(document["components"]["schemas"])
    assert len(references) > 15


def _references(value):
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each.rpartition("/")[2]
            else:
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
