"""Account and namespace logs over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace

from protocol.crypto.signing import SigningKey
from protocol.http_api import AppendRequest, CreateNamespaceRequest, LogResponse, NamespacesResponse
from protocol.ids import AccountId
from protocol.logs import EventType, Role
from tests.server.client import Client
from tests.server.people import Device, Person


def append(person, event):
    return AppendRequest(event.event.previous, (event.to_wire(),))


def account_path(person):
    return f"/v1/accounts/{person.account.id}/log"


def namespace_path(person):
    return f"/v1/namespaces/{person.namespace.id}/log"


def test_a_log_is_read_from_any_number(client, person):
    whole = client.call(LogResponse, "GET", account_path(person))
    rest = client.call(LogResponse, "GET", account_path(person) + "?from=2")
    assert rest.events == whole.events[2:]
    assert (rest.head, rest.length) == (whole.head, 3)
    assert client.call(LogResponse, "GET", account_path(person) + "?from=99").events == ()
    assert client.refused("GET", account_path(person) + "?from=-1")[0] == 400


def test_an_append_needs_the_present_head(client, person):
    first = person.append(Device().enrolment(person.account))
    client.call(LogResponse, "POST", account_path(person), append(person, first))
    status, error = client.refused("POST", account_path(person), append(person, first))
    assert (status, error.code, error.head) == (409, "head_mismatch", first.id)
    assert error.retryable


def test_an_append_must_follow_the_rules(client, person):
    log = person.account
    stranger = SigningKey.generate()
    forged = Device().enrolment(log).sign(stranger)
    unknown = log.next_event(EventType.REVOCATION, [os.urandom(32), []], 1).sign(person.root)
    gap = replace(Device().enrolment(log), index=9).sign(person.root)
    wrong_type = log.next_event(EventType.EPOCH, [], 1).sign(person.root)
    for event in (forged, unknown, gap, wrong_type):
        request = AppendRequest(log.head, (event.to_wire(),))
        status, error = client.refused("POST", account_path(person), request)
        assert (status, error.code) == (422, "log_invalid")
    assert client.call(LogResponse, "GET", account_path(person)).length == 3


def test_an_event_of_a_later_format_asks_for_an_upgrade(client, person):
    later = bytearray(person.account_events[-1].to_wire())
    # [body, signature]: the body's format version is its second byte.
    start = later.index(person.account_events[-1].body)
    later[start + 1] = 2
    request = AppendRequest(person.account.head, (bytes(later),))
    status, error = client.refused("POST", account_path(person), request)
    assert (status, error.code) == (422, "upgrade_required")


def test_a_device_is_enrolled_in_one_account_only(client, person, stranger, server):
    thief = Person()
    with Client(server.url) as other:
        other.register(thief)
        event = thief.append(person.device.enrolment(thief.account))
        status, error = other.refused("POST", account_path(thief), append(thief, event))
        assert (status, error.code) == (409, "already_exists")


def test_the_logs_of_others_are_not_shown(client, person, stranger):
    nobody = AccountId(bytes(32))
    refusals = {
        stranger.refused("GET", account_path(person)),
        stranger.refused("GET", f"/v1/accounts/{nobody}/log"),
    }
    assert len(refusals) == 1
    assert stranger.refused("GET", namespace_path(person))[1].code == "forbidden"
    event = person.append(Device().enrolment(person.account))
    assert stranger.refused("POST", account_path(person), append(person, event))[0] == 403


def test_a_namespace_is_created_with_its_first_epoch(client, person):
    log = person.found_namespace()
    events = tuple(event.to_wire() for event in person.namespace_events)
    request = CreateNamespaceRequest(events)
    assert client.refused("POST", "/v1/namespaces", CreateNamespaceRequest(events[:1]))[0] == 422
    created = client.call(LogResponse, "POST", "/v1/namespaces", request)
    assert (created.head, created.length) == (log.head, 2)
    assert client.refused("POST", "/v1/namespaces", request)[1].code == "already_exists"
    listed = client.call(NamespacesResponse, "GET", "/v1/namespaces").namespaces
    assert {each.namespace for each in listed} == {person.namespace.id, log.id}


def test_members_see_what_they_share_and_only_owners_append(client, person, server):
    guest = Person()
    with Client(server.url) as other:
        other.register(guest)
        member = person.namespace_event(
            person.namespace, EventType.MEMBER, [bytes(guest.account.id), int(Role.VIEWER)]
        )
        client.call(LogResponse, "POST", namespace_path(person), append(person, member))
        shared = other.call(LogResponse, "GET", namespace_path(person))
        assert shared.length == 3
        assert other.call(LogResponse, "GET", account_path(person)).length == 3
        records = f"/v1/namespaces/{person.namespace.id}/records"
        assert other.request("GET", records).is_success
        listed = other.call(NamespacesResponse, "GET", "/v1/namespaces").namespaces
        assert {(each.namespace, each.role) for each in listed} == {
            (guest.namespace.id, "owner"),
            (person.namespace.id, "viewer"),
        }
        log = person.namespace.append(member, lambda _: person.account)
        by_guest = guest.namespace_event(
            log, EventType.MEMBER, [bytes(guest.account.id), int(Role.OWNER)]
        )
        status, error = other.refused("POST", namespace_path(person), append(guest, by_guest))
        assert (status, error.code) == (422, "log_invalid")
        removal = person.namespace_event(log, EventType.MEMBER, [bytes(guest.account.id), None])
        client.call(LogResponse, "POST", namespace_path(person), append(person, removal))
        assert other.refused("GET", records)[0] == 403


def test_a_revoked_device_signs_no_new_namespace_events(client, person):
    second = Device()
    enrolment = person.append(second.enrolment(person.account))
    client.call(LogResponse, "POST", account_path(person), append(person, enrolment))
    epoch = person.namespace_event(
        person.namespace,
        EventType.EPOCH,
        [2, os.urandom(32), [[bytes(person.account.id), bytes(person.account.head)]], []],
    )
    revocation = person.revocation(person.device.id)
    client.call(LogResponse, "POST", account_path(person), append(person, revocation))
    client.log_in(second)
    status, error = client.refused("POST", namespace_path(person), append(person, epoch))
    assert (status, error.code) == (422, "log_invalid")
    assert "revoked" in error.message
