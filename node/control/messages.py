"""What travels on the control socket: one request, one answer, matched by their number.

Owns the shape of both and their bounds. Frames of `protocol.framing` hold maps:
``{id, command, arguments}`` one way, ``{id, result}`` or ``{id, error: {code, message}}`` the other.
Used by `server` and `client` alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from node.errors import NodeError
from protocol import codec
from protocol.errors import RemoteProtocolError

SOCKET_NAME = "control.sock"

MAX_REQUEST_BYTES = 256 * 1024
"""A command and a few paths."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A list of 100,000 conflicts with long paths."""

PEER = struct.Struct("3i")
"""The process, user and group at the other end (struct ucred of unix(7))."""

_MAX_ID = 2**63 - 1
_MAX_TEXT = 4096


class ControlError(NodeError):
    """A command was not carried out.

    Unlike other errors of the node it crossed the control socket, so that only words are left.

    Attributes:
        code: `not_running`, `timeout`, `unknown_command`, `bad_request`, `failed`, or what the
            handler chose.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """One command with its arguments by name."""

    id: int
    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self) -> bytes:
        """The payload of a frame; `LocalProtocolError` when an argument is no plain value."""
        return codec.pack_body(
            {"id": self.id, "command": self.command, "arguments": dict(self.arguments)}
        )

    @classmethod
    def from_wire(cls, payload: bytes) -> Request:
        """Reads `to_wire`; `RemoteProtocolError` when it is no request."""
        value = _map(codec.unpack_body(payload, MAX_REQUEST_BYTES), "request")
        return cls(
            codec.as_int(value.get("id"), 0, _MAX_ID, "id"),
            codec.as_str(value.get("command"), "command", 64),
            _map(value.get("arguments", {}), "arguments"),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the request with the same id: either a result or an error."""

    id: int
    result: Any = None
    error: ControlError | None = None

    def to_wire(self) -> bytes:
        """The payload of a frame; `LocalProtocolError` when the result is no plain value."""
        if self.error is None:
            return codec.pack_body({"id": self.id, "result": self.result})
        error = {"code": self.error.code, "message": self.error.message}
        return codec.pack_body({"id": self.id, "error": error})

    @classmethod
    def from_wire(cls, payload: bytes) -> Answer:
        """Reads `to_wire`; `RemoteProtocolError` when it is no answer."""
        value = _map(codec.unpack_body(payload, MAX_ANSWER_BYTES), "answer")
        number = codec.as_int(value.get("id"), 0, _MAX_ID, "id")
        if "error" not in value:
            return cls(number, value.get("result"))
        error = _map(value["error"], "error")
        return cls(
            number,
            error=ControlError(
                codec.as_str(error.get("code"), "code", 64),
                codec.as_str(error.get("message"), "message", _MAX_TEXT),
            ),
        )


def socket_path(home_descriptor: int) -> str:
    """A path by which the kernel takes the socket in any state directory.

    A socket's address holds 107 bytes, and a home may lie deeper than that. An open descriptor of
    the directory is a short way there; it must stay open until the call has returned.
    """
    return f"/proc/self/fd/{home_descriptor}/{SOCKET_NAME}"


def _map(value: Any, what: str) -> Mapping[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise RemoteProtocolError(f"{what} is not a map with text keys")
    return value
