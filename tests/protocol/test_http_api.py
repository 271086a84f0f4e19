"""Bodies of the HTTP API: round trips, any bytes, and what a body promises once it is read."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from protocol import codec, http_api
from protocol.body_codec import Between, Body, Encoding, Length
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import RemoteProtocolError
from protocol.http_api import (
    ChallengeRequest,
    Cursor,
    DeltaRecord,
    ErrorBody,
    EventsResponse,
    LogResponse,
    login_statement,
    normal_email,
    refresh_statement,
)
from protocol.ids import DeviceId, Identifier, NamespaceId
from protocol.limits import MAX_COUNTER

BODIES: list[type[Body]] = [
    each
    for _, each in inspect.getmembers(http_api, inspect.isclass)
    if issubclass(each, Body) and each is not Body
]


def values_of(hint: Any) -> st.SearchStrategy:
    """Valid values of a field's type."""
    bounds: Any = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)[:2]
    length = bounds if isinstance(bounds, Length) else Length(0, 20)
    low, high = length.low, min(length.high, length.low + 3)
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(each for each in get_args(hint) if each is not types.NoneType)
        return st.none() | values_of(inner if bounds is None else Annotated[inner, bounds])
    if get_origin(hint) is tuple:
        element = values_of(get_args(hint)[0])
        return st.lists(element, min_size=low, max_size=min(high, low + 2)).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(*map(values_of, get_args(hint)), max_size=2)
    if issubclass(hint, Body):
        return bodies(hint)
    if issubclass(hint, Identifier):
        return st.binary(min_size=hint.size_bytes, max_size=hint.size_bytes).map(hint)
    if hint is bytes:
        return st.binary(min_size=low, max_size=high)
    if hint is str:
        return st.text(st.characters(codec="utf-8"), min_size=low, max_size=high)
    if hint is bool:
        return st.booleans()
    between = bounds if isinstance(bounds, Between) else Between(0, MAX_COUNTER)
    return st.integers(between.low, between.high)


def bodies(kind: type[Body]) -> st.SearchStrategy:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values_of(hint) for name, hint in hints.items()})


any_body = st.sampled_from(BODIES).flatmap(bodies)
any_encoding = st.sampled_from(Encoding)


@given(body=any_body, encoding=any_encoding)
def test_every_body_reads_back_in_both_encodings(body, encoding):
    event(type(body).__name__)
    wire = body.to_wire(encoding)
    assert type(body).from_wire(wire, encoding) == body
    if encoding is Encoding.JSON:
        json.loads(wire)


@given(kind=st.sampled_from(BODIES), data=st.binary(max_size=60), encoding=any_encoding)
def test_any_bytes_give_a_body_or_an_error(kind, data, encoding):
    try:
        body = kind.from_wire(data, encoding)
    except RemoteProtocolError:
        event("refused")
    else:
        event("read")
        assert type(body) is kind


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.binary(max_size=33) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(body=any_body, data=st.data())
def test_a_changed_field_gives_a_body_of_the_same_types_or_an_error(body, data):
    plain = codec.unpack_body(body.to_wire())
    assume(bool(plain))
    name = data.draw(st.sampled_from(sorted(plain)))
    plain[name] = data.draw(plain_values)
    try:
        changed = type(body).from_wire(codec.pack_body(plain))
    except RemoteProtocolError:
        event("refused")
    else:
        event("read")
        assert type(body).from_wire(changed.to_wire()) == changed


@pytest.mark.parametrize("kind", BODIES)
def test_an_absent_field_is_refused_unless_it_has_a_default(kind):
    fields = dataclasses.fields(kind)
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    if required:
        with pytest.raises(RemoteProtocolError, match="is missing"):
            kind.from_wire(b"\x80")
    else:
        kind.from_wire(b"\x80")


def test_what_is_none_by_default_does_not_travel():
    assert json.loads(ErrorBody("c", "m", True).to_wire(Encoding.JSON)) == {
        "code": "c",
        "message": "m",
        "retryable": True,
    }


def test_the_bytes_of_a_body_are_these():
    body = LogResponse((b"\x01\x02",), b"\xff" * 32, 1)
    assert body.to_wire() == (
        b"\x83\xa6events\x91\xc4\x02\x01\x02\xa4head\xc4\x20" + b"\xff" * 32 + b"\xa6length\x01"
    )
    assert body.to_wire(Encoding.JSON) == (
        b'{"events":["AQI"],"head":"' + b"_" * 42 + b'8","length":1}'
    )
    state = EventsResponse("c", "e", {NamespaceId(bytes(32)): 3}, 1, {})
    assert b'"namespaces":{"ns-' + b"a" * 52 + b'":3}' in state.to_wire(Encoding.JSON)


@pytest.mark.parametrize("text", ["A", "====", "a b", "\u00e4", "AQI=", "+/+/"])
def test_only_base64url_without_padding_is_bytes(text):
    body = json.dumps({"position": 1, "record": text}).encode()
    with pytest.raises(RemoteProtocolError):
        DeltaRecord.from_wire(body, Encoding.JSON)


def test_bounds_are_checked():
    for position in (0, -1, MAX_COUNTER + 1, True, 1.0, "1", None):
        body = json.dumps({"position": position, "record": ""}).encode()
        with pytest.raises(RemoteProtocolError):
            DeltaRecord.from_wire(body, Encoding.JSON)
    with pytest.raises(RemoteProtocolError):
        ChallengeRequest.from_wire(ChallengeRequest(email="x" * 255).to_wire())
    with pytest.raises(RemoteProtocolError):
        ErrorBody.from_wire(ErrorBody("c", "m", True).to_wire(), max_bytes=5)


@given(
    epoch=st.text("abcdef0123456789", min_size=1, max_size=16), position=st.integers(0, 2**63 - 1)
)
def test_a_cursor_reads_back(epoch, position):
    cursor = Cursor(epoch, position)
    assert Cursor.parse(str(cursor)) == cursor


@given(text=st.text(max_size=30))
def test_any_text_is_a_cursor_or_an_error(text):
    try:
        assert str(Cursor.parse(text)).rpartition(":")[0] == text.rpartition(":")[0]
    except RemoteProtocolError:
        pass


@given(text=st.text(max_size=30))
def test_the_normal_form_of_an_email_is_its_own(text):
    try:
        email = normal_email(text)
    except RemoteProtocolError:
        event("refused")
    else:
        event("accepted")
        assert normal_email(email) == email


def test_emails_are_compared_without_case_and_surroundings():
    assert normal_email(" Ann@Example.ORG\n") == "ann@example.org"
    assert normal_email("a\u0308@b.c") == normal_email("\u00e4@b.c")
    for bad in ("", "a", "@", "a@", "@b", "a b@c", "a\0@b", "x" * 300 + "@b.c"):
        with pytest.raises(RemoteProtocolError):
            normal_email(bad)


def test_statements_name_the_server_the_asker_and_the_nonce():
    key, device = SigningKey.from_seed(bytes(32)), DeviceId(b"d" * 32)
    statement = login_statement(b"s" * 32, "a@b.c", b"n" * 32)
    assert codec.decode(statement, 1000) == [b"s" * 32, "a@b.c", b"n" * 32]
    assert codec.decode(refresh_statement(b"s" * 32, device, b"n" * 32), 1000) == [
        b"s" * 32,
        b"d" * 32,
        b"n" * 32,
    ]
    signature = key.sign(SignedType.LOGIN, statement)
    verify(key.public, SignedType.LOGIN, statement, signature)
    with pytest.raises(RemoteProtocolError):
        verify(key.public, SignedType.RECOVERY_LOGIN, statement, signature)
