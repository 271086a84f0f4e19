"""Commits and deltas over HTTP."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import pytest

from protocol import codec
from protocol.http_api import (
    AppendRequest,
    CommitRequest,
    CommitResponse,
    Cursor,
    DeltaResponse,
    LogResponse,
)
from protocol.ids import NamespaceId
from protocol.logs import EventType, Role
from tests.server.client import Client, some_block
from tests.server.people import TIME_US, Device, Person, with_other_content
from tests.server.running import run_command, running_process


def records_path(namespace):
    return f"/v1/namespaces/{namespace}/records"


def only(response):
    (result,) = response.results
    return result


def delta(client, namespace, query=""):
    return client.call(DeltaResponse, "GET", records_path(namespace) + query)


def test_committed_records_come_back_in_order(client, person):
    place = person.namespace.id
    records = [person.device.record(place) for _ in range(5)]
    response = client.commit(place, *records)
    assert [each.position for each in response.results] == [1, 2, 3, 4, 5]
    assert [each.id for each in response.results] == [each.id for each in records]
    page = delta(client, place)
    assert [each.record for each in page.records] == [each.to_wire() for each in records]
    assert (page.more, page.head) == (False, 5)
    assert page.cursor == str(Cursor(response.journal_epoch, 5))
    assert delta(client, place, f"?cursor={page.cursor}").records == ()


def test_a_delta_comes_in_pages(client, person):
    place = person.namespace.id
    client.commit(place, *(person.device.record(place) for _ in range(7)))
    positions, cursor, more = [], "", True
    while more:
        page = delta(client, place, f"?limit=3&cursor={cursor}")
        positions.append([each.position for each in page.records])
        cursor, more = page.cursor, page.more
    assert positions == [[1, 2, 3], [4, 5, 6], [7]]


def test_committing_again_gives_the_same_positions(client, person):
    place = person.namespace.id
    records = [person.device.record(place) for _ in range(3)]
    first = client.commit(place, *records)
    assert client.commit(place, *reversed(records)).results == first.results[::-1]
    assert client.commit(place, records[0], records[0]).results == (first.results[0],) * 2
    assert delta(client, place).head == 3


def test_a_fork_is_refused_with_evidence_and_the_rest_enters(client, person):
    place = person.namespace.id
    first = person.device.record(place)
    client.commit(place, first)
    fork, fine = with_other_content(first, person.device), person.device.record(place)
    refused, stored = client.commit(place, fork, fine).results
    assert refused.error.code == "fork"
    assert refused.error.evidence == first.to_wire()
    assert refused.id == fork.id
    assert stored.position == 2


def test_two_records_for_one_dot_are_refused_with_evidence(client, person):
    place = person.namespace.id
    first = person.device.record(place)
    item = first.record.writes[0].item
    again = person.device.record(place, item=item, n=1)
    refused = client.commit(place, first, again).results[1]
    assert refused.error.code == "dot_reused"
    assert refused.error.evidence == first.to_wire()
    assert not refused.error.retryable


def test_a_record_waits_for_its_blocks(client, person):
    place = person.namespace.id
    here, absent = some_block(), some_block()
    assert client.put_block(place, here).is_success
    record = person.device.record(place, blocks=(here.id, absent.id))
    error = only(client.commit(place, record)).error
    assert (error.code, error.blocks, error.retryable) == ("blocks_missing", (absent.id,), True)
    assert client.put_block(place, absent).is_success
    assert only(client.commit(place, record)).position == 1


def test_each_bad_record_is_refused_for_its_reason_and_good_ones_enter(client, person):
    place = person.namespace.id
    device = person.device
    good = device.record(place)
    unsigned = replace(device.record(place), signature=os.urandom(64))
    altered = device.record(place)
    other_body = replace(altered.record, hybrid_time_us=TIME_US + 1).encode()
    swapped = replace(altered, body=other_body)
    elsewhere = device.record(NamespaceId(os.urandom(32)))
    unknown_epoch = device.record(place, epoch=2)
    unenrolled = Device().record(place)
    fields = codec.decode(good.body, 10**6)
    from_the_future = codec.encode([codec.encode([2, *fields[1:]]), good.signature])
    wires = [
        unsigned.to_wire(),
        swapped.to_wire(),
        elsewhere.to_wire(),
        unknown_epoch.to_wire(),
        unenrolled.to_wire(),
        from_the_future,
        good.to_wire()[:-1],
        b"",
        b"\xc1garbage",
        good.to_wire(),
    ]
    response = client.call(CommitResponse, "POST", records_path(place), CommitRequest(tuple(wires)))
    codes = [each.error.code if each.error else each.position for each in response.results]
    assert codes == [
        "bad_signature",
        "bad_signature",
        "malformed",
        "unknown_epoch",
        "forbidden",
        "upgrade_required",
        "malformed",
        "malformed",
        "malformed",
        1,
    ]
    assert not any(each.error.retryable for each in response.results if each.error)
    # Alone, a record takes the way that is not on a thread.
    alone = CommitRequest((from_the_future,))
    error = only(client.call(CommitResponse, "POST", records_path(place), alone)).error
    assert error.code == "upgrade_required"


def test_one_member_pushes_what_another_device_signed(client, person):
    second = Device()
    enrolment = person.append(second.enrolment(person.account))
    path = f"/v1/accounts/{person.account.id}/log"
    request = AppendRequest(enrolment.event.previous, (enrolment.to_wire(),))
    client.call(LogResponse, "POST", path, request)
    record = second.record(person.namespace.id)
    assert only(client.commit(person.namespace.id, record)).position == 1


def test_records_of_a_revoked_device_end_at_its_cut(client, person):
    place = person.namespace.id
    lost = Device()
    enrolment = person.append(lost.enrolment(person.account))
    path = f"/v1/accounts/{person.account.id}/log"
    kept, late = lost.record(place), lost.record(place)
    event = person.append(
        person.account.next_event(
            EventType.REVOCATION,
            [bytes(lost.id), [[bytes(lost.actor), 1, bytes(kept.id)]]],
            TIME_US,
        )
    )
    request = AppendRequest(enrolment.event.previous, (enrolment.to_wire(), event.to_wire()))
    client.call(LogResponse, "POST", path, request)
    results = client.commit(place, kept, late).results
    assert results[0].position == 1
    assert results[1].error.code == "device_revoked"


def test_only_writers_commit(client, person, stranger, server):
    place = person.namespace.id
    record = person.device.record(place)
    request = CommitRequest((record.to_wire(),))
    assert stranger.refused("POST", records_path(place), request)[0] == 403
    guest = Person()
    with Client(server.url) as other:
        other.register(guest)
        log = person.namespace
        for role, expected in ((Role.VIEWER, 403), (Role.EDITOR, 200)):
            event = person.namespace_event(
                log, EventType.MEMBER, [bytes(guest.account.id), int(role)]
            )
            append = AppendRequest(event.event.previous, (event.to_wire(),))
            client.call(LogResponse, "POST", f"/v1/namespaces/{place}/log", append)
            log = log.append(event, lambda _: person.account)
            request = CommitRequest((guest.device.record(place).to_wire(),))
            assert other.request("POST", records_path(place), request).status_code == expected
    nowhere = NamespaceId(os.urandom(32))
    assert client.refused("GET", records_path(nowhere))[0] == 403
    assert client.refused("POST", records_path(nowhere), request)[0] == 403


def test_concurrent_commits_get_distinct_positions_without_gaps(client, person, server):
    place = person.namespace.id
    devices = [person.device] + [Device() for _ in range(3)]
    path = f"/v1/accounts/{person.account.id}/log"
    for device in devices[1:]:
        event = person.append(device.enrolment(person.account))
        append = AppendRequest(event.event.previous, (event.to_wire(),))
        client.call(LogResponse, "POST", path, append)

    def commit(device):
        with Client(server.url, client.token) as own:
            return [only(own.commit(place, device.record(place))).position for _ in range(25)]

    with ThreadPoolExecutor(len(devices)) as pool:
        positions = list(pool.map(commit, devices))
    assert sorted(chain.from_iterable(positions)) == list(range(1, 101))
    assert all(each == sorted(each) for each in positions)


@pytest.mark.parametrize("cursor", ["5", ":5", "epoch:", "epoch:-1", "epoch:1.5", "e:" + "9" * 30])
def test_a_cursor_that_is_none_is_malformed(client, person, cursor):
    status, error = client.refused("GET", records_path(person.namespace.id) + f"?cursor={cursor}")
    assert (status, error.code) == (400, "malformed")


def test_a_cursor_from_the_future_of_this_journal_is_foreign(client, person):
    place = person.namespace.id
    epoch = client.commit(place, person.device.record(place)).journal_epoch
    assert delta(client, place, f"?cursor={epoch}:1").records == ()
    status, error = client.refused("GET", records_path(place) + f"?cursor={epoch}:2")
    assert (status, error.code, error.journal_epoch) == (409, "journal_epoch_changed", epoch)


def test_after_a_restored_backup_the_journal_has_a_new_epoch(tmp_path):
    data = tmp_path / "data"
    person = Person()
    with running_process(data) as running, Client(running.url) as client:
        client.register(person)
        old = client.commit(person.namespace.id, person.device.record(person.namespace.id))
        held = run_command("new-journal-epoch", "--data", str(data))
        assert held.returncode == 1
        assert "another server uses" in held.stderr
    assert run_command("new-journal-epoch", "--data", str(data)).returncode == 0
    with running_process(data) as running, Client(running.url) as client:
        client.log_in(person.device)
        path = records_path(person.namespace.id)
        status, error = client.refused("GET", f"{path}?cursor={old.journal_epoch}:1")
        assert (status, error.code) == (409, "journal_epoch_changed")
        assert error.journal_epoch != old.journal_epoch
        page = delta(client, person.namespace.id, f"?cursor={error.journal_epoch}:0")
        assert page.head == 1
