"""A client for server tests: real HTTP by httpx, bodies by `protocol.http_api`."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from protocol.body_codec import Body, Encoding
from protocol.crypto.blocks import BlockKind, SealedBlock, seal_block
from protocol.http_api import (
    ChallengeRequest,
    ChallengeResponse,
    CommitRequest,
    CommitResponse,
    ErrorBody,
    RegisterResponse,
    TokenResponse,
)
from protocol.ids import DeviceId, NamespaceId
from protocol.records import SignedRecord
from tests.server.people import Device, Person

SomeBody = TypeVar("SomeBody", bound=Body)


class Client:
    """One connection pool to one server, speaking msgpack unless told otherwise."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token
        self.http = httpx.Client(base_url=url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def request(
        self,
        method: str,
        path: str,
        body: Body | bytes | None = None,
        encoding: Encoding = Encoding.MSGPACK,
        **more: Any,
    ) -> httpx.Response:
        headers = {"accept": encoding.value}
        if isinstance(body, Body):
            more["content"] = body.to_wire(encoding)
            headers["content-type"] = encoding.value
        elif body is not None:
            more["content"] = body
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        headers.update(more.pop("headers", {}))
        return self.http.request(method, path, headers=headers, **more)

    def call(
        self,
        kind: type[SomeBody],
        method: str,
        path: str,
        body: Body | bytes | None = None,
        **more: Any,
    ) -> SomeBody:
        """A request that succeeds."""
        response = self.request(method, path, body, **more)
        assert response.status_code == 200, response.text
        return kind.from_wire(response.content)

    def refused(
        self, method: str, path: str, body: Body | bytes | None = None, **more: Any
    ) -> tuple[int, ErrorBody]:
        """A request that is refused: status and body."""
        response = self.request(method, path, body, **more)
        assert response.status_code >= 400, response.content
        return response.status_code, ErrorBody.from_wire(response.content)

    def register(self, person: Person, invitation: str | None = None) -> RegisterResponse:
        """Create the account and log its device in."""
        response = self.call(
            RegisterResponse, "POST", "/v1/auth/register", person.registration(invitation)
        )
        self.log_in(person.device)
        return response

    def challenge(
        self, email: str | None = None, device: DeviceId | None = None
    ) -> ChallengeResponse:
        return self.call(
            ChallengeResponse, "POST", "/v1/auth/challenge", ChallengeRequest(email, device)
        )

    def log_in(self, device: Device) -> str:
        """Renew the token by the device's key."""
        request = device.refresh(self.challenge(device=device.id))
        response = self.call(TokenResponse, "POST", "/v1/auth/refresh", request)
        self.token = response.access_token
        return response.access_token

    def commit(self, namespace: NamespaceId, *records: SignedRecord) -> CommitResponse:
        return self.call(
            CommitResponse,
            "POST",
            f"/v1/namespaces/{namespace}/records",
            CommitRequest(tuple(record.to_wire() for record in records)),
        )

    def put_block(self, namespace: NamespaceId, block: SealedBlock) -> httpx.Response:
        return self.request("PUT", f"/v1/namespaces/{namespace}/blocks/{block.id}", block.frame)


def some_block(size_bytes: int = 1000, children: tuple = ()) -> SealedBlock:
    """A sealed block of random content."""
    kind = BlockKind.PAGE if children else BlockKind.DATA
    return seal_block(b"d" * 32, os.urandom(size_bytes), kind, tuple(sorted(children)))
