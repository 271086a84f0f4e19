"""Canonical msgpack, and the checks that every parser of it uses.

Whatever is hashed, signed or sealed is written in a subset of msgpack in which a value has exactly
one encoding: nil, booleans, integers, byte strings, UTF-8 strings and arrays. There are no maps, no
floats and no extension types. `decode` refuses bytes whose re-encoding differs.

Bodies of HTTP requests and of the control socket are neither hashed nor signed; `pack_body` and
`unpack_body` are for them and allow maps with string keys.
"""

from typing import Any

import msgpack

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import MAX_BODY_BYTES, MAX_DEPTH

# A recursive alias would need Python 3.12's `type`; the checks below name what is really allowed.
Value = Any


def encode(value: Value) -> bytes:
    """The one encoding of a value of the canonical subset.

    Raises:
        LocalProtocolError: the value holds something outside the subset, or an integer or a nesting
            beyond it.
    """
    _check_encodable(value, MAX_DEPTH)
    return _pack(value)


def _pack(value: Value) -> bytes:
    try:
        return msgpack.packb(value, use_bin_type=True)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"value can not be encoded: {error}") from error


def decode(data: bytes, max_bytes: int) -> Value:
    """Read a canonical encoding; arrays come back as lists.

    Raises:
        RemoteProtocolError: longer than ``max_bytes``, not msgpack, trailing bytes, nested deeper
            than `MAX_DEPTH`, a type outside the subset, or not the canonical encoding.
    """
    value = _unpack(data, max_bytes)
    _check_subset(value, MAX_DEPTH)
    if msgpack.packb(value, use_bin_type=True) != data:
        raise RemoteProtocolError("encoding is not canonical")
    return value


def pack_body(value: Value) -> bytes:
    """Plain msgpack of a body: as `encode`, and maps with string keys and floats.

    Raises:
        LocalProtocolError: the value holds something else.
    """
    return _pack(value)


def unpack_body(data: bytes, max_bytes: int = MAX_BODY_BYTES) -> Value:
    """Read what `pack_body` wrote; nothing about the types inside is promised.

    Raises:
        RemoteProtocolError: longer than ``max_bytes`` or not msgpack.
    """
    return _unpack(data, max_bytes)


def _unpack(data: bytes, max_bytes: int) -> Value:
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"{len(data)} bytes where at most {max_bytes} are allowed")
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (msgpack.UnpackException, ValueError, RecursionError, TypeError) as error:
        raise RemoteProtocolError(f"not msgpack: {type(error).__name__}") from error


_LEAVES = (bytes, int, str)  # identifiers are byte strings, booleans are integers


def _check_subset(value: Value, depth: int) -> None:
    kind = type(value)
    if kind is list:
        if depth == 0:
            raise RemoteProtocolError(f"nested deeper than {MAX_DEPTH}")
        for element in value:
            if type(element) is not bytes and type(element) is not int:
                _check_subset(element, depth - 1)
    elif value is not None and kind not in (bytes, int, str, bool):
        raise RemoteProtocolError(f"{kind.__name__} is not part of canonical msgpack")


def _check_encodable(value: Value, depth: int) -> None:
    if isinstance(value, list | tuple):
        if depth == 0:
            raise LocalProtocolError(f"nested deeper than {MAX_DEPTH}")
        for element in value:
            if not isinstance(element, _LEAVES):
                _check_encodable(element, depth - 1)
    elif value is not None and not isinstance(value, _LEAVES):
        raise LocalProtocolError(f"{type(value).__name__} is not part of canonical msgpack")


def as_int(value: Value, low: int, high: int, what: str) -> int:
    """The value as an integer within ``low..high``; `RemoteProtocolError` otherwise."""
    if type(value) is not int or not low <= value <= high:
        raise RemoteProtocolError(f"{what} is not an integer within {low}..{high}")
    return value


def as_bytes(value: Value, what: str, low: int, high: int) -> bytes:
    """The value as ``low..high`` bytes, an identifier among them; `RemoteProtocolError` otherwise."""
    if not isinstance(value, bytes) or not low <= len(value) <= high:
        raise RemoteProtocolError(f"{what} is not a string of {low}..{high} bytes")
    return value


def as_str(value: Value, what: str, high: int) -> str:
    """The value as text of at most ``high`` characters; `RemoteProtocolError` otherwise."""
    if type(value) is not str or len(value) > high:
        raise RemoteProtocolError(f"{what} is not a text of at most {high} characters")
    return value


def as_bool(value: Value, what: str) -> bool:
    """The value as a boolean; `RemoteProtocolError` otherwise."""
    if type(value) is not bool:
        raise RemoteProtocolError(f"{what} is not a boolean")
    return value


def as_list(value: Value, what: str, high: int) -> list[Value]:
    """The value as a list of at most ``high`` elements; `RemoteProtocolError` otherwise."""
    if type(value) is not list or len(value) > high:
        raise RemoteProtocolError(f"{what} is not a list of at most {high} elements")
    return value


def as_tuple(value: Value, what: str, length: int) -> list[Value]:
    """The value as a list of exactly ``length`` elements; `RemoteProtocolError` otherwise."""
    if type(value) is not list or len(value) != length:
        raise RemoteProtocolError(f"{what} is not a list of {length} elements")
    return value
