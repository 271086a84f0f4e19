"""Burials over HTTP: who may bury, what is refused, what is read."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from protocol.burials import Burial
from protocol.crypto.signing import SigningKey
from protocol.http_api import (
    AppendRequest,
    BurialsResponse,
    BuryRequest,
    BuryResponse,
    ErrorCode,
    LogResponse,
)
from protocol.ids import ItemId
from protocol.logs import EventType, Role
from tests.server.client import Client
from tests.server.people import Person

ITEM = ItemId(b"i" * 16)
DAY_US = 24 * 3600 * 10**6


def path_of(person):
    return f"/v1/namespaces/{person.namespace.id}/burials"


def burial(person, **changes):
    made = Burial(
        person.namespace.id, person.account.id, person.device.id, int(time.time() * 10**6), (ITEM,)
    )
    return replace(made, **changes)


def request(person, **changes):
    return BuryRequest(burial(person, **changes).sign(person.device.key).to_wire())


def test_what_was_buried_is_read_from_a_number_on(client, person):
    asked = [request(person, items=(ItemId(bytes([number]) * 16),)) for number in (1, 2, 3)]
    for number, each in enumerate(asked, start=1):
        assert client.call(BuryResponse, "POST", path_of(person), each).number == number
    found = client.call(BurialsResponse, "GET", path_of(person))
    assert found == BurialsResponse(tuple(each.burial for each in asked), 3, False)
    later = client.call(BurialsResponse, "GET", path_of(person) + "?after=2")
    assert later == BurialsResponse((asked[2].burial,), 3, False)
    assert client.call(BurialsResponse, "GET", path_of(person) + "?after=3").after == 3


@pytest.mark.parametrize("days", [-2, 2])
def test_a_device_with_a_wrong_clock_buries_nothing(client, person, days):
    wrong = request(person, time_us=int(time.time() * 10**6) + days * DAY_US)
    status, error = client.refused("POST", path_of(person), wrong)
    assert (status, error.code) == (400, ErrorCode.WRONG_CLOCK)
    assert "clock" in error.message
    assert client.call(BurialsResponse, "GET", path_of(person)).burials == ()


def test_what_is_not_ones_own_is_refused(client, person, stranger):
    other = Person()
    wrong = [
        (BuryRequest(b"no burial"), ErrorCode.MALFORMED),
        (request(person, namespace=other.namespace.id), ErrorCode.MALFORMED),
        (request(person, device=other.device.id), ErrorCode.FORBIDDEN),
        (request(person, account=other.account.id), ErrorCode.FORBIDDEN),
        (
            BuryRequest(burial(person).sign(SigningKey.generate()).to_wire()),
            ErrorCode.BAD_SIGNATURE,
        ),
    ]
    for asked, code in wrong:
        assert client.refused("POST", path_of(person), asked)[1].code == code
    assert stranger.refused("POST", path_of(person), request(person))[0] == 403
    assert stranger.refused("GET", path_of(person))[0] == 403


def test_an_editor_reads_and_does_not_bury(server, client, person):
    guest = Person()
    with Client(server.url) as other:
        other.register(guest)
        event = person.namespace_event(
            person.namespace, EventType.MEMBER, [bytes(guest.account.id), int(Role.EDITOR)]
        )
        append = AppendRequest(event.event.previous, (event.to_wire(),))
        client.call(LogResponse, "POST", f"/v1/namespaces/{person.namespace.id}/log", append)
        wrong = burial(person, account=guest.account.id, device=guest.device.id)
        asked = BuryRequest(wrong.sign(guest.device.key).to_wire())
        assert other.refused("POST", path_of(person), asked)[0] == 403
        assert other.call(BurialsResponse, "GET", path_of(person)).burials == ()
