"""Acknowledgements and compactions over HTTP."""

from __future__ import annotations

import os

import pytest

from protocol.compaction import NO_RECORDS, Acknowledgement, longer_digest
from protocol.http_api import (
    AcknowledgementsResponse,
    AcknowledgeRequest,
    AppendRequest,
    CommitRequest,
    CommitResponse,
    CompactionRequest,
    CompactionResponse,
    DeltaResponse,
    EmptyBody,
    LogResponse,
)
from protocol.ids import ItemId
from protocol.logs import EventType, Role
from protocol.records import FolderChange
from protocol.version_vector import Context
from tests.server.client import Client
from tests.server.people import TIME_US, Device, Person


def path(person, what):
    return f"/v1/namespaces/{person.namespace.id}/{what}"


class Journal:
    """A namespace with records in which one version covers another and one item is dead."""

    def __init__(self, client, person):
        self.client, self.person = client, person
        self.place = person.namespace.id
        self.dead, self.living = (ItemId(os.urandom(16)) for _ in range(2))
        device = person.device
        self.records = [
            self._record(self.living, 1),
            self._record(self.dead, 1),
            self._record(self.living, 2),
            self._record(self.dead, 2),
            device.record(self.place),
        ]
        response = client.commit(self.place, *self.records)
        self.epoch = response.journal_epoch

    def _record(self, item, n):
        seen = Context({self.person.device.actor: n - 1}) if n > 1 else None
        return self.person.device.record(self.place, item=item, n=n, seen=seen)

    def request(self, floor=5, items=None, **changes):
        named = (self.dead,) if items is None else items
        return CompactionRequest(self.epoch, floor, named, **changes)

    def plan(self, **changes):
        return self.client.call(
            CompactionResponse, "POST", path(self.person, "compaction"), self.request(**changes)
        )

    def event(self, plan, floor=5, device=None):
        digest = NO_RECORDS
        for each in plan.kept:
            digest = longer_digest(digest, each.position, each.record)
        payload = [self.epoch, floor, digest]
        return self.person.namespace_event(self.person.namespace, EventType.FLOOR, payload)

    def set_floor(self, **changes):
        event = self.event(self.plan(**changes), changes.get("floor", 5))
        carried = self.plan(**changes, event=event.to_wire())
        self.person.namespace = self.person.namespace.append(event, lambda _: self.person.account)
        return carried

    def positions(self):
        page = self.client.call(DeltaResponse, "GET", path(self.person, "records"))
        assert not page.more
        assert page.cursor.endswith(f":{page.head}")
        return [each.position for each in page.records]


@pytest.fixture
def journal(client, person):
    return Journal(client, person)


def test_asking_changes_nothing_and_says_what_stays(journal):
    plan = journal.plan()
    assert (plan.dropped, plan.items, plan.more) == (3, (journal.dead,), False)
    assert [each.position for each in plan.kept] == [3, 5]
    assert [each.record for each in plan.kept] == [journal.records[2].id, journal.records[4].id]
    assert journal.positions() == [1, 2, 3, 4, 5]
    assert [each.position for each in journal.plan(after=3).kept] == [5]


def test_a_floor_drops_what_was_said_and_is_in_the_log(journal):
    carried = journal.set_floor()
    assert [each.position for each in carried.kept] == [3, 5]
    assert journal.positions() == [3, 5]
    log = journal.client.call(LogResponse, "GET", path(journal.person, "log"))
    assert log.length == journal.person.namespace.length
    assert log.head == journal.person.namespace.head


def test_a_record_that_was_dropped_is_known_still_and_no_other_takes_its_place(journal):
    journal.set_floor()
    (again,) = journal.client.commit(journal.place, journal.records[1]).results
    assert again.position == 2
    assert journal.positions() == [3, 5]


def test_the_last_records_may_be_dropped(journal):
    journal.set_floor(items=())
    deleted = journal.person.device.record(
        journal.place, item=journal.living, n=3, seen=Context({journal.person.device.actor: 2})
    )
    journal.client.commit(journal.place, deleted)
    assert journal.set_floor(floor=6, items=(journal.living, journal.dead)).dropped == 3
    assert journal.positions() == [5]


def test_an_item_that_was_written_to_above_the_floor_stays(journal):
    plan = journal.plan(floor=3)
    assert (plan.dropped, plan.items) == (1, ())
    assert [each.position for each in plan.kept] == [2, 3]


def test_folder_times_that_others_tell_are_found(client, person):
    folder, item = ItemId(os.urandom(16)), ItemId(os.urandom(16))
    place = person.namespace.id
    here = (FolderChange(folder, TIME_US),)
    epoch = client.commit(place, person.device.record(place, item=item, folders=here)).journal_epoch
    request = CompactionRequest(epoch, 1, (item,))
    ask = "POST", path(person, "compaction")
    assert client.call(CompactionResponse, *ask, request).dropped == 0
    client.commit(place, person.device.record(place, folders=here))
    assert client.call(CompactionResponse, *ask, CompactionRequest(epoch, 2, (item,))).dropped == 1


def test_a_write_between_question_and_floor_changes_the_plan(journal):
    event = journal.event(journal.plan())
    late = journal.person.device.record(journal.place, item=journal.dead, n=3)
    journal.client.commit(journal.place, late)
    status, error = journal.client.refused(
        "POST", path(journal.person, "compaction"), journal.request(event=event.to_wire())
    )
    assert (status, error.code, error.retryable) == (409, "plan_changed", True)
    assert journal.positions() == [1, 2, 3, 4, 5, 6]


def test_another_digest_is_refused(journal):
    wrong = journal.person.namespace_event(
        journal.person.namespace, EventType.FLOOR, [journal.epoch, 5, bytes(32)]
    )
    status, error = journal.client.refused(
        "POST", path(journal.person, "compaction"), journal.request(event=wrong.to_wire())
    )
    assert (status, error.code) == (409, "plan_changed")
    assert journal.positions() == [1, 2, 3, 4, 5]


def test_a_floor_is_not_appended_like_other_events(journal):
    event = journal.event(journal.plan())
    append = AppendRequest(journal.person.namespace.head, (event.to_wire(),))
    status, error = journal.client.refused("POST", path(journal.person, "log"), append)
    assert (status, error.code) == (422, "log_invalid")


def test_only_an_owner_asks(journal, server):
    other = Person()
    with Client(server.url) as client:
        client.register(other)
        ask = "POST", path(journal.person, "compaction"), journal.request()
        assert client.refused(*ask)[1].code == "forbidden"
        member = journal.person.namespace_event(
            journal.person.namespace, EventType.MEMBER, [bytes(other.account.id), Role.EDITOR]
        )
        append = AppendRequest(journal.person.namespace.head, (member.to_wire(),))
        journal.client.call(LogResponse, "POST", path(journal.person, "log"), append)
        assert client.refused(*ask)[1].code == "forbidden"


def test_another_journal_epoch_is_refused(journal):
    journal.epoch = "another"
    status, error = journal.client.refused(
        "POST", path(journal.person, "compaction"), journal.request()
    )
    assert (status, error.code) == (409, "plan_changed")


def test_who_has_not_heard_of_a_floor_commits_nothing(journal):
    journal.set_floor()
    record = journal.person.device.record(journal.place).to_wire()
    commit = "POST", path(journal.person, "records")
    status, error = journal.client.refused(*commit, CommitRequest((record,), floors=0))
    assert (status, error.code, error.retryable) == (409, "below_floor", True)
    response = journal.client.call(CommitResponse, *commit, CommitRequest((record,), floors=1))
    assert response.results[0].position == 6


def test_acknowledgements_are_signed_by_the_device_that_sends_them(client, person):
    place = person.namespace.id

    def said(position, device):
        statement = Acknowledgement(place, person.device.id, "epoch", position, TIME_US)
        return AcknowledgeRequest(statement.sign(device.key).to_wire())

    send = "POST", path(person, "acknowledgement")
    client.call(EmptyBody, *send, said(3, person.device))
    latest = said(7, person.device)
    client.call(EmptyBody, *send, latest)
    known = client.call(AcknowledgementsResponse, "GET", path(person, "acknowledgements"))
    assert known.acknowledgements == (latest.acknowledgement,)
    assert client.refused(*send, said(9, Device()))[1].code == "bad_signature"
    stranger = Device()
    elsewhere = Acknowledgement(place, stranger.id, "epoch", 9, TIME_US).sign(stranger.key)
    assert client.refused(*send, AcknowledgeRequest(elsewhere.to_wire()))[1].code == "bad_signature"
    assert client.call(AcknowledgementsResponse, "GET", path(person, "acknowledgements")) == known
