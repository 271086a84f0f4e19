"""Reads and writes frozen dataclasses as maps with string keys, driven by their field types.

Owns how a field's type appears on the wire, in msgpack and in JSON. Knows no particular body and no
HTTP; `http_api` declares the bodies.

| field type | msgpack | JSON |
|---|---|---|
| `bytes` | bin | text: base64url without padding |
| an `Identifier` | bin | text: its printed form |
| `int`, `str`, `bool` | as is | as is |
| `tuple[T, ...]` | array | array |
| `Mapping[Identifier, T]` | map, keys printed | map, keys printed |
| `T | None` | nil | null |
| another body | map | map |

Unknown keys are ignored. A field with a default may be absent, and an absent value of `None` is not
written. Everything else that does not fit raises `RemoteProtocolError`.
"""

import base64
import binascii
import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Self, Union, cast, get_args, get_origin, get_type_hints

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.ids import Identifier
from protocol.limits import MAX_BODY_BYTES, MAX_COUNTER


class Encoding(Enum):
    """How a body is written; the value is its media type."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Length:
    """Bounds, both included, of the length of bytes, of a text or of a sequence."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds, both included, of an integer. Without it an integer is within 0..MAX_COUNTER."""

    low: int
    high: int


class Body:
    """Base of all bodies: adds reading and writing to a frozen dataclass."""

    __slots__ = ()

    def to_wire(self, encoding: Encoding = Encoding.MSGPACK) -> bytes:
        """The body as bytes of that encoding."""
        plain = _plan_of(type(self)).to_plain(self, encoding)
        if encoding is Encoding.MSGPACK:
            return codec.pack_body(plain)
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_wire(
        cls,
        data: bytes,
        encoding: Encoding = Encoding.MSGPACK,
        max_bytes: int = MAX_BODY_BYTES,
    ) -> Self:
        """Read what `to_wire` wrote.

        Raises:
            RemoteProtocolError: too long, not of that encoding, a field is missing, mistyped or
                out of its bounds.
        """
        if encoding is Encoding.MSGPACK:
            plain = codec.unpack_body(data, max_bytes)
        else:
            plain = _load_json(data, max_bytes)
        return cast("Self", _plan_of(cls).from_plain(plain, encoding, cls.__name__))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How values of one type are written and read."""

    to_plain: Callable[[Any, Encoding], Any]
    from_plain: Callable[[Any, Encoding, str], Any]


def _load_json(data: bytes, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"{len(data)} bytes where at most {max_bytes} are allowed")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("not JSON") from error


def _check_length(length: int, bounds: Length | None, what: str) -> None:
    if bounds is not None and not bounds.low <= length <= bounds.high:
        raise RemoteProtocolError(
            f"{what} has a length of {length}, allowed is {bounds.low}..{bounds.high}"
        )


def _plan_of(hint: Any) -> _Plan:
    return _plan(hint)


def _same(value: Any, _encoding: Encoding) -> Any:
    return value


@cache
def _plan(hint: Any) -> _Plan:
    bounds: Length | Between | None = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)[:2]
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint, bounds)
    if origin is tuple:
        return _sequence(get_args(hint)[0], cast("Length | None", bounds))
    if origin is Mapping:
        key, element = get_args(hint)
        return _mapping(key, element, cast("Length | None", bounds))
    if issubclass(hint, Body):
        return _body(hint)
    if issubclass(hint, Identifier):
        return _identifier(hint)
    if hint is bytes:
        return _bytes(cast("Length | None", bounds))
    if hint is str:
        return _text(cast("Length | None", bounds))
    if hint is bool:
        return _Plan(_same, lambda value, _encoding, what: codec.as_bool(value, what))
    if hint is int:
        between = bounds if isinstance(bounds, Between) else Between(0, MAX_COUNTER)
        return _Plan(
            _same,
            lambda value, _encoding, what: codec.as_int(value, between.low, between.high, what),
        )
    raise AssertionError(f"no wire form for {hint}")


def _optional(hint: Any, bounds: Length | Between | None) -> _Plan:
    (inner,) = (option for option in get_args(hint) if option is not types.NoneType)
    plan = _plan(inner if bounds is None else Annotated[inner, bounds])

    def to_plain(value: Any, encoding: Encoding) -> Any:
        return None if value is None else plan.to_plain(value, encoding)

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        return None if value is None else plan.from_plain(value, encoding, what)

    return _Plan(to_plain, from_plain)


def _sequence(element: Any, bounds: Length | None) -> _Plan:
    plan = _plan(element)

    def to_plain(value: Any, encoding: Encoding) -> Any:
        return [plan.to_plain(each, encoding) for each in value]

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        if type(value) is not list:
            raise RemoteProtocolError(f"{what} is not a list")
        _check_length(len(value), bounds, what)
        return tuple([plan.from_plain(each, encoding, what) for each in value])

    return _Plan(to_plain, from_plain)


def _mapping(key: type[Identifier], element: Any, bounds: Length | None) -> _Plan:
    plan = _plan(element)

    def to_plain(value: Any, encoding: Encoding) -> Any:
        return {str(name): plan.to_plain(each, encoding) for name, each in value.items()}

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        if type(value) is not dict:
            raise RemoteProtocolError(f"{what} is not a map")
        _check_length(len(value), bounds, what)
        if not all(type(name) is str for name in value):
            raise RemoteProtocolError(f"{what} has a key that is not text")
        return {
            key.parse(name): plan.from_plain(each, encoding, what) for name, each in value.items()
        }

    return _Plan(to_plain, from_plain)


def _identifier(kind: type[Identifier]) -> _Plan:
    def to_plain(value: Any, encoding: Encoding) -> Any:
        return bytes(value) if encoding is Encoding.MSGPACK else str(value)

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        if encoding is Encoding.MSGPACK:
            return kind(codec.as_bytes(value, what, kind.size_bytes, kind.size_bytes))
        return kind.parse(codec.as_str(value, what, 128))

    return _Plan(to_plain, from_plain)


def _bytes(bounds: Length | None) -> _Plan:
    def to_plain(value: Any, encoding: Encoding) -> Any:
        if encoding is Encoding.MSGPACK:
            return value
        return _to_base64(value)

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        if encoding is Encoding.JSON:
            value = _from_base64(value, what)
        elif type(value) is not bytes:
            raise RemoteProtocolError(f"{what} is not a string of bytes")
        _check_length(len(value), bounds, what)
        return value

    return _Plan(to_plain, from_plain)


def _to_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _from_base64(value: Any, what: str) -> bytes:
    if type(value) is str:
        with suppress(binascii.Error, ValueError):
            data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
            # The decoder skips what it does not know; one text per value is what is allowed.
            if _to_base64(data) == value:
                return data
    raise RemoteProtocolError(f"{what} is not base64url text without padding")


def _text(bounds: Length | None) -> _Plan:
    def from_plain(value: Any, _encoding: Encoding, what: str) -> Any:
        if type(value) is not str:
            raise RemoteProtocolError(f"{what} is not text")
        _check_length(len(value), bounds, what)
        return value

    return _Plan(_same, from_plain)


def _body(kind: type[Body]) -> _Plan:
    hints = get_type_hints(kind, include_extras=True)
    fields = [
        (field.name, _plan(hints[field.name]), field.default is not dataclasses.MISSING)
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    ]

    def to_plain(value: Any, encoding: Encoding) -> Any:
        plain = {}
        for name, plan, has_default in fields:
            each = getattr(value, name)
            if each is not None or not has_default:
                plain[name] = plan.to_plain(each, encoding)
        return plain

    def from_plain(value: Any, encoding: Encoding, what: str) -> Any:
        if type(value) is not dict:
            raise RemoteProtocolError(f"{what} is not a map")
        values = {}
        for name, plan, has_default in fields:
            if name in value:
                values[name] = plan.from_plain(value[name], encoding, f"{what}.{name}")
            elif not has_default:
                raise RemoteProtocolError(f"{what}.{name} is missing")
        return kind(**values)

    return _Plan(to_plain, from_plain)
