import dataclasses
import hashlib

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.crypto.signing import SigningKey
from protocol.errors import ProtocolError, RemoteProtocolError, UnsupportedFormatError
from protocol.ids import AccountId, DeviceId, EventId, device_id
from protocol.logs import (
    NO_EVENT,
    AccountLog,
    Event,
    EventType,
    NamespaceLog,
    Role,
    SignedEvent,
    account_genesis,
    events_from_wire,
    namespace_genesis,
)
from tests.protocol import anything

ROOT = SigningKey.from_seed(b"r" * 32)
LAPTOP = SigningKey.from_seed(b"l" * 32)
PHONE = SigningKey.from_seed(b"p" * 32)
BOX = b"b" * 32
SALT = b"s" * 16
STRANGER = SigningKey.from_seed(b"x" * 32)

LAPTOP_ID = device_id(LAPTOP.public, BOX)
PHONE_ID = device_id(PHONE.public, BOX)


def device_payload(key, wraps=()):
    return [key.public, BOX, b"sealed name", [list(wrap) for wrap in wraps]]


def generation_payload(number, *devices):
    return [number, BOX, b"to root", [[device, b"wrap"] for device in devices]]


class Account:
    """A log that grows, with what is needed to sign in it."""

    def __init__(self, root=ROOT):
        self.root = root
        self.events = [account_genesis(root, BOX, SALT, 1)]
        self.log = AccountLog.from_events(self.events)

    def event(self, kind, payload, key=None, device=b""):
        return self.log.next_event(kind, payload, 2, device).sign(key or self.root)

    def append(self, kind, payload, key=None, device=b""):
        signed = self.event(kind, payload, key, device)
        self.log = self.log.append(signed)
        self.events.append(signed)
        return self


@pytest.fixture
def account():
    return Account().append(EventType.DEVICE, device_payload(LAPTOP))


def test_an_account_is_named_by_the_hash_of_its_genesis():
    genesis = account_genesis(ROOT, BOX, SALT, 1)
    digest = hashlib.blake2b(
        genesis.body + genesis.signature, digest_size=32, person=b"atoll-event-v1"
    ).digest()
    assert AccountLog.from_events([genesis]).id == digest == genesis.id


def test_a_log_travels_and_is_checked_again(account):
    account.append(EventType.GENERATION, generation_payload(1, LAPTOP_ID))
    account.append(EventType.DEVICE, device_payload(PHONE, [(1, b"wrap")]), LAPTOP, LAPTOP_ID)
    received = events_from_wire(signed.to_wire() for signed in account.events)
    assert AccountLog.from_events(received) == account.log
    assert account.log.length == 4
    assert account.log.head == account.events[-1].id
    assert account.log.devices[PHONE_ID].wraps == {1: b"wrap"}
    assert account.log.generations[0].wraps == {LAPTOP_ID: b"wrap"}


def test_an_enrolled_device_enrols_another_and_a_stranger_does_not(account):
    account.append(EventType.DEVICE, device_payload(PHONE), LAPTOP, LAPTOP_ID)
    assert account.log.active_device(PHONE_ID).signing_public == PHONE.public
    forged = account.event(EventType.DEVICE, device_payload(STRANGER), STRANGER, LAPTOP_ID)
    with pytest.raises(RemoteProtocolError):
        account.log.append(forged)
    unknown = device_id(STRANGER.public, BOX)
    forged = account.event(EventType.DEVICE, device_payload(STRANGER), STRANGER, unknown)
    with pytest.raises(RemoteProtocolError, match="not enrolled"):
        account.log.append(forged)


@pytest.mark.parametrize("kind", [EventType.REVOCATION, EventType.GENERATION])
def test_only_the_root_revokes_and_begins_generations(account, kind):
    payloads = {
        EventType.REVOCATION: [LAPTOP_ID, []],
        EventType.GENERATION: generation_payload(1, LAPTOP_ID),
    }
    with pytest.raises(RemoteProtocolError, match="root"):
        account.log.append(account.event(kind, payloads[kind], LAPTOP, LAPTOP_ID))


def test_a_revoked_device_ends_with_its_cuts_and_never_comes_back(account):
    account.append(EventType.REVOCATION, [LAPTOP_ID, [[b"a" * 16, 7, b"r" * 32]]])
    entry = account.log.devices[LAPTOP_ID]
    assert entry.is_revoked
    assert entry.cuts is not None
    assert entry.cuts[0].sequence == 7
    with pytest.raises(RemoteProtocolError, match="revoked"):
        account.log.active_device(LAPTOP_ID)
    for signed in (
        account.event(EventType.DEVICE, device_payload(PHONE), LAPTOP, LAPTOP_ID),
        account.event(EventType.DEVICE, device_payload(LAPTOP)),
        account.event(EventType.REVOCATION, [LAPTOP_ID, []]),
    ):
        with pytest.raises(RemoteProtocolError, match="revoked"):
            account.log.append(signed)


@pytest.mark.parametrize(
    "payload",
    [
        generation_payload(2, LAPTOP_ID),
        generation_payload(0, LAPTOP_ID),
        generation_payload(1),
        generation_payload(1, LAPTOP_ID, PHONE_ID),
        generation_payload(True, LAPTOP_ID),
    ],
)
def test_a_generation_has_the_next_number_and_is_sealed_to_every_device(account, payload):
    with pytest.raises(RemoteProtocolError):
        account.log.append(account.event(EventType.GENERATION, payload))


def test_events_out_of_place_are_refused(account):
    after = account.event(EventType.DEVICE, device_payload(PHONE))
    log = account.log.append(after)
    with pytest.raises(RemoteProtocolError, match="continue"):
        log.append(after)
    fork = Account(STRANGER).append(EventType.DEVICE, device_payload(PHONE))
    with pytest.raises(RemoteProtocolError, match="continue"):
        account.log.append(fork.events[-1])
    with pytest.raises(RemoteProtocolError, match="starts with"):
        AccountLog.from_events(account.events[1:])
    with pytest.raises(RemoteProtocolError, match="at least"):
        AccountLog.from_events([])


def test_an_event_of_a_namespace_does_not_belong_in_an_account_log(account):
    with pytest.raises(RemoteProtocolError):
        account.log.append(account.event(EventType.MINIMUM_FORMAT, [1]))


@pytest.mark.parametrize(
    "payload", [[], [ROOT.public, BOX], [ROOT.public, BOX, b"salt"], [b"", BOX, SALT]]
)
def test_a_genesis_holds_two_keys_and_sixteen_bytes_of_salt(payload):
    body = Event(EventType.ACCOUNT_GENESIS, b"", 0, NO_EVENT, b"", b"", NO_EVENT, 1, payload)
    with pytest.raises(RemoteProtocolError):
        AccountLog.from_events([body.sign(ROOT)])


def test_a_genesis_by_another_key_is_refused():
    genesis = account_genesis(ROOT, BOX, SALT, 1)
    with pytest.raises(RemoteProtocolError):
        AccountLog.from_events([genesis.event.sign(STRANGER)])


class Namespace:
    def __init__(self, account):
        self.account = account
        self.others: dict[AccountId, AccountLog] = {}
        self.genesis = namespace_genesis(account.log, LAPTOP_ID, LAPTOP, SALT, 3)
        self.log = NamespaceLog.from_events([self.genesis], self.accounts)

    def accounts(self, account):
        if account == self.account.log.id:
            return self.account.log
        if account in self.others:
            return self.others[account]
        raise RemoteProtocolError(f"{account} is not known")

    def event(self, kind, payload, key=LAPTOP, device=LAPTOP_ID, author=None):
        log = author or self.account.log
        return self.log.next_event(kind, payload, 4, log, device).sign(key)

    def append(self, kind, payload, **author):
        self.log = self.log.append(self.event(kind, payload, **author), self.accounts)


@pytest.fixture
def namespace(account):
    return Namespace(account)


OTHER = AccountId(b"o" * 32)


def epoch_payload(number, *members):
    return [number, b"c" * 32, [], [[member, 1, b"wrap"] for member in members]]


def test_a_namespace_is_named_by_its_genesis_and_owned_by_its_author(namespace):
    assert namespace.log.id == namespace.genesis.id
    assert namespace.log.members == {namespace.account.log.id: Role.OWNER}


def test_members_come_and_go_but_an_owner_stays(namespace):
    owner = namespace.account.log.id
    namespace.append(EventType.MEMBER, [OTHER, int(Role.VIEWER)])
    assert namespace.log.members[OTHER] is Role.VIEWER
    namespace.append(EventType.MEMBER, [OTHER, None])
    assert namespace.log.members == {owner: Role.OWNER}
    for payload in ([owner, None], [owner, int(Role.EDITOR)]):
        with pytest.raises(RemoteProtocolError, match="one owner"):
            namespace.append(EventType.MEMBER, payload)
    with pytest.raises(RemoteProtocolError, match="no member"):
        namespace.append(EventType.MEMBER, [OTHER, None])


@pytest.mark.parametrize("role", [-1, 4, True, "owner", b"", 2**63])
def test_a_role_that_does_not_exist_is_refused(namespace, role):
    with pytest.raises(RemoteProtocolError):
        namespace.append(EventType.MEMBER, [OTHER, role])


def test_epochs_follow_each_other_and_are_sealed_to_members(namespace):
    owner = namespace.account.log.id
    namespace.append(EventType.EPOCH, epoch_payload(1, owner))
    namespace.append(EventType.EPOCH, epoch_payload(2, owner))
    assert [epoch.number for epoch in namespace.log.epochs] == [1, 2]
    assert namespace.log.epochs[0].wraps == {owner: (1, b"wrap")}
    with pytest.raises(RemoteProtocolError, match="follows"):
        namespace.append(EventType.EPOCH, epoch_payload(2, owner))
    with pytest.raises(RemoteProtocolError, match="members only"):
        namespace.append(EventType.EPOCH, epoch_payload(3, owner, OTHER))


def test_the_minimum_format_never_falls(namespace):
    namespace.append(EventType.MINIMUM_FORMAT, [5])
    assert namespace.log.minimum_format == 5
    with pytest.raises(RemoteProtocolError):
        namespace.append(EventType.MINIMUM_FORMAT, [4])


def test_only_an_owner_appends(namespace):
    other = Account(STRANGER).append(EventType.DEVICE, device_payload(PHONE))
    namespace.others[other.log.id] = other.log
    namespace.append(EventType.MEMBER, [other.log.id, int(Role.EDITOR)])
    author = {"key": PHONE, "device": PHONE_ID, "author": other.log}
    with pytest.raises(RemoteProtocolError, match="owner"):
        namespace.append(EventType.MEMBER, [OTHER, int(Role.VIEWER)], **author)
    namespace.append(EventType.MEMBER, [other.log.id, int(Role.OWNER)])
    namespace.append(EventType.MEMBER, [OTHER, int(Role.VIEWER)], **author)


def test_an_event_by_a_device_of_nobody_is_refused(namespace):
    with pytest.raises(RemoteProtocolError, match="not enrolled"):
        namespace.append(EventType.MINIMUM_FORMAT, [1], key=PHONE, device=PHONE_ID)
    with pytest.raises(RemoteProtocolError):
        namespace.append(EventType.MINIMUM_FORMAT, [1], key=PHONE)
    with pytest.raises(RemoteProtocolError, match="account and device"):
        namespace.append(EventType.MINIMUM_FORMAT, [1], device=b"")
    with pytest.raises(RemoteProtocolError, match="not known"):
        namespace.append(EventType.MINIMUM_FORMAT, [1], author=Account(STRANGER).log)


def test_an_event_of_an_account_does_not_belong_in_a_namespace_log(namespace):
    with pytest.raises(RemoteProtocolError):
        namespace.append(EventType.REVOCATION, [LAPTOP_ID, []])


def sample_events():
    account = Account()
    account.append(EventType.DEVICE, device_payload(LAPTOP, [(1, b"wrap")]))
    account.append(EventType.GENERATION, generation_payload(1, LAPTOP_ID))
    revocation = account.event(EventType.REVOCATION, [LAPTOP_ID, [[b"a" * 16, 7, b"r" * 32]]])
    namespace = Namespace(account)
    owner = account.log.id
    return [
        *account.events,
        revocation,
        namespace.genesis,
        namespace.event(EventType.EPOCH, epoch_payload(1, owner)),
        namespace.event(EventType.MEMBER, [OTHER, 1]),
        namespace.event(EventType.MINIMUM_FORMAT, [1]),
    ]


EVENTS = sample_events()


def test_every_type_of_event_travels_unchanged():
    assert {signed.event.type for signed in EVENTS} == set(EventType)
    for signed in EVENTS:
        assert SignedEvent.from_wire(signed.to_wire()) == signed


@given(
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from(EVENTS).flatmap(
            lambda signed: anything.mutated_encodings(codec.decode(signed.body, 1 << 20)).map(
                lambda body: codec.encode([body, signed.signature])
            )
        ),
    )
)
def test_any_bytes_are_an_event_or_refused(data):
    try:
        signed = SignedEvent.from_wire(data)
    except RemoteProtocolError:
        event("refused")
        return
    event("accepted")
    assert signed.to_wire() == data


@given(
    st.sampled_from(EVENTS).flatmap(
        lambda signed: st.tuples(
            st.just(signed),
            st.one_of(
                anything.mutations(codec.decode(codec.encode(signed.event.payload), 1 << 20)),
                anything.values,
            ),
        )
    )
)
def test_any_payload_of_a_signed_event_is_applied_or_refused(case):
    """What a member signs himself is checked as closely as what is not signed at all."""
    sample, payload = case
    if type(payload) is not list:
        payload = [payload]
    forged = dataclasses.replace(sample.event, payload=payload)
    key = LAPTOP if sample.event.account else ROOT
    account = Account()
    while account.log.length < min(sample.event.index, 3) or (
        sample.event.account and account.log.length < 3
    ):
        account.log = account.log.append(EVENTS[account.log.length])
    try:
        signed = SignedEvent.from_wire(forged.sign(key).to_wire())
        if sample.event.account:
            namespace = Namespace(account)
            if forged.type is EventType.NAMESPACE_GENESIS:
                NamespaceLog.from_events([signed], namespace.accounts)
            else:
                namespace.log.append(signed, namespace.accounts)
        elif forged.type is EventType.ACCOUNT_GENESIS:
            AccountLog.from_events([signed])
        else:
            account.log.append(signed)
    except RemoteProtocolError:
        event(f"{forged.type} refused")
        return
    event(f"{forged.type} applied")


def test_another_format_version_or_type_is_told_apart_from_garbage():
    fields = codec.decode(EVENTS[0].body, 1 << 20)
    for position, value in ((0, 2), (1, "a later type")):
        later = [*fields]
        later[position] = value
        with pytest.raises(UnsupportedFormatError):
            Event.decode(codec.encode(later))


def test_an_event_above_its_bound_is_refused():
    with pytest.raises(RemoteProtocolError, match="at most"):
        SignedEvent.from_wire(bytes(limits.MAX_EVENT_BYTES + 1))


def test_signatures_of_one_type_do_not_pass_for_another(account):
    """The type is part of what is signed: an account event is no namespace event."""
    signed = account.events[0]
    other = dataclasses.replace(signed.event, type=EventType.NAMESPACE_GENESIS)
    moved = SignedEvent(other, signed.body, signed.signature)
    with pytest.raises(ProtocolError):
        moved.verify(ROOT.public)


def test_ids_of_events_cover_the_signature():
    signed = EVENTS[0]
    assert SignedEvent(signed.event, signed.body, bytes(64)).id != signed.id
    assert isinstance(signed.id, EventId)
    assert isinstance(LAPTOP_ID, DeviceId)
