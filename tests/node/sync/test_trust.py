"""What the server says about the logs is believed only as far as it continues what is known."""

from __future__ import annotations

import pytest

from node.core.account_keys import DeviceKeyPair, RootKeys, open_generations_by_root
from node.core.founding import FoundingSecrets, enrol_device, found_account
from node.errors import ServerError
from node.storage.database import Database
from node.storage.journal import Journal
from node.sync.trust import Trust
from protocol import codec
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey

SECRETS = FoundingSecrets(b"r" * 32, b"g" * 32, b"e" * 32, b"a" * 16, b"n" * 16)
ROOT = RootKeys.from_secret(SECRETS.root)
TIME_US = 1_700_000_000_000_000


def device(seed):
    return DeviceKeyPair(SigningKey(bytes([seed]) * 32), BoxKey(bytes([seed + 100]) * 32))


LAPTOP = device(1)
FOUNDING = found_account(SECRETS, LAPTOP, "laptop", TIME_US)


def enrolment(seed):
    generations = open_generations_by_root(FOUNDING.account, ROOT)
    return enrol_device(FOUNDING.account, ROOT, device(seed), "phone", generations, TIME_US)


class LogServer:
    """A server that gives the logs it is told to give."""

    def __init__(self):
        self.account = list(FOUNDING.account_events)

    async def whole_account_log(self, _):
        return [event.to_wire() for event in self.account]

    async def whole_namespace_log(self, _):
        return [event.to_wire() for event in FOUNDING.namespace_events]


@pytest.fixture
def journal(tmp_path):
    database = Database(tmp_path / "index.db", bytes(32))
    yield Journal(database)
    database.close()


def trust_in(journal):
    return Trust(journal._database, journal, FOUNDING.account.id, FOUNDING.namespace.id, LAPTOP)


async def test_a_log_that_grew_is_taken_over_and_kept(journal):
    server, trust = LogServer(), trust_in(journal)
    await trust.refresh(server)
    server.account.append(enrolment(2))
    await trust.refresh(server)
    assert trust.account.length == 4
    assert trust_in(journal).author(device(2).id) is not None
    assert journal.alarms() == []


async def test_a_forked_log_is_refused_with_both_events_as_evidence(journal):
    server, trust = LogServer(), trust_in(journal)
    known, other = enrolment(2), enrolment(3)
    server.account.append(known)
    await trust.refresh(server)
    server.account[-1] = other
    with pytest.raises(ServerError, match="forked at event 3"):
        await trust.refresh(server)
    (alarm,) = journal.alarms()
    assert (alarm.kind, alarm.evidence) == ("log", (known.to_wire(), other.to_wire()))
    assert trust.author(device(3).id) is None


async def test_a_log_that_became_shorter_is_refused_with_the_event_that_is_missing(journal):
    server, trust = LogServer(), trust_in(journal)
    known = enrolment(2)
    server.account.append(known)
    await trust.refresh(server)
    server.account.pop()
    with pytest.raises(ServerError, match="has 3 events, and had 4"):
        await trust_in(journal).refresh(server)
    assert journal.alarms()[0].evidence == (known.to_wire(),)


async def test_an_event_of_a_later_release_asks_for_an_upgrade(journal):
    server, trust = LogServer(), trust_in(journal)
    await trust.refresh(server)
    known = enrolment(2)
    body = codec.decode(known.body, 10**6)
    later = codec.encode([codec.encode([body[0], "of-later", *body[2:]]), known.signature])

    class LaterServer(LogServer):
        async def whole_account_log(self, _):
            return [*(event.to_wire() for event in FOUNDING.account_events), later]

    with pytest.raises(ServerError, match="upgrade Atoll"):
        await trust.refresh(LaterServer())
    assert [alarm.kind for alarm in journal.alarms()] == ["upgrade"]
    assert trust.account.length == FOUNDING.account.length
