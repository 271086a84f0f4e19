"""What every metadata store does: the SQLite store, and the fake in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from protocol.ids import (
    AccountId,
    ActorId,
    BlockId,
    DeviceId,
    EventId,
    ItemId,
    NamespaceId,
    RecordId,
)
from protocol.records import Register
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot
from server.errors import AlreadyExistsError, HeadMismatchError, InvitationError, StoreError
from server.stores.port import (
    CommitKind,
    Cover,
    Credentials,
    DeviceChanges,
    DeviceState,
    JournalPage,
    LogState,
    MetadataStore,
    NewNamespace,
    NewRecord,
    Registration,
    Retention,
    StoredEvent,
    StoredSession,
)
from server.stores.sqlite_accounts import EXPIRED_KEPT_S, MAX_SESSIONS
from server.stores.sqlite_store import SqliteStore
from tests.server.fakes.memory_store import MemoryStore

NOW_S = 1_800_000_000
Test = Callable[[MetadataStore], Awaitable[None]]


def on_every_store(test: Test):
    @pytest.mark.parametrize("kind", ["sqlite", "memory"])
    def run(kind, tmp_path):
        async def with_store():
            store = MemoryStore() if kind == "memory" else await SqliteStore.open(tmp_path / "db")
            try:
                await test(store)
            finally:
                await store.close()

        asyncio.run(with_store())

    run.__name__ = test.__name__
    return run


def event(size: int = 100) -> StoredEvent:
    return StoredEvent(EventId(os.urandom(32)), os.urandom(size))


def device(account: AccountId) -> DeviceState:
    return DeviceState(DeviceId(os.urandom(32)), account, os.urandom(32), is_revoked=False)


def namespace(*members: AccountId) -> NewNamespace:
    return NewNamespace(NamespaceId(os.urandom(32)), (event(), event()), dict.fromkeys(members, 0))


def registration(email: str = "a@b.org", **changes) -> Registration:
    account = AccountId(os.urandom(32))
    return Registration(
        **{
            "email": email,
            "credentials": Credentials(
                account, b"l" * 32, b"r" * 32, b"s" * 16, 3, 262144, b"w", b"wr"
            ),
            "events": (event(), event()),
            "devices": (device(account),),
            "namespace": namespace(account),
            "invitation": None,
            "needs_invitation": False,
            "now_s": NOW_S,
            **changes,
        }
    )


def record(sequence: int = 1, **changes) -> NewRecord:
    return NewRecord(
        **{
            "id": RecordId(os.urandom(32)),
            "actor": ActorId(bytes(16)),
            "sequence": sequence,
            "previous": RecordId(bytes(32)),
            "dots": ((ItemId(os.urandom(16)), 2, 1),),
            "blocks": (),
            "wire": os.urandom(50),
            **changes,
        }
    )


async def registered(store: MetadataStore, **changes) -> Registration:
    new = registration(**changes)
    await store.register(new)
    return new


@on_every_store
async def test_the_secret_stays_and_the_journal_epoch_changes_on_demand(store):
    assert len(await store.secret()) == 32
    assert await store.secret() == await store.secret()
    first = await store.journal_epoch()
    second = await store.replace_journal_epoch()
    assert first != second == await store.journal_epoch()
    assert await store.is_ready()


@on_every_store
async def test_a_registration_is_there_as_a_whole(store):
    new = await registered(store)
    account = new.credentials.account
    assert await store.credentials("a@b.org") == new.credentials
    assert await store.credentials("b@b.org") is None
    assert await store.devices(account) == list(new.devices)
    assert await store.device(new.devices[0].device) == new.devices[0]
    page = await store.account_log(account, 0, 10**6)
    assert page.events == tuple(each.wire for each in new.events)
    assert page.state == LogState(new.events[-1].id, 2)
    assert await store.role(new.namespace.namespace, account) == 0
    assert list(await store.members(new.namespace.namespace)) == [account]


@on_every_store
async def test_a_refused_registration_leaves_nothing(store):
    first = await registered(store)
    taken = registration()
    with pytest.raises(AlreadyExistsError) as refusal:
        await store.register(taken)
    assert refusal.value.what == "email"
    assert await store.account_log(taken.credentials.account, 0, 1) is None
    same_device = registration("c@b.org", devices=first.devices)
    with pytest.raises(AlreadyExistsError) as refusal:
        await store.register(same_device)
    assert refusal.value.what == "device"
    assert await store.credentials("c@b.org") is None
    assert (
        await store.role(same_device.namespace.namespace, same_device.credentials.account) is None
    )


@on_every_store
async def test_every_account_but_the_first_uses_up_an_invitation(store):
    await registered(store, needs_invitation=True)
    with pytest.raises(InvitationError):
        await registered(store, email="b@b.org", needs_invitation=True)
    await store.add_invitation(b"i" * 32, NOW_S + 10)
    await store.add_invitation(b"o" * 32, NOW_S)
    with pytest.raises(InvitationError):
        await registered(store, email="b@b.org", needs_invitation=True, invitation=b"o" * 32)
    with pytest.raises(AlreadyExistsError):
        await registered(store, needs_invitation=True, invitation=b"i" * 32)
    await registered(store, email="b@b.org", needs_invitation=True, invitation=b"i" * 32)
    with pytest.raises(InvitationError):
        await registered(store, email="c@b.org", needs_invitation=True, invitation=b"i" * 32)


@on_every_store
async def test_a_nonce_serves_once(store):
    assert await store.use_nonce(b"n" * 32, NOW_S + 10, NOW_S)
    assert not await store.use_nonce(b"n" * 32, NOW_S + 10, NOW_S + 9)
    assert await store.use_nonce(b"m" * 32, NOW_S + 10, NOW_S)


@on_every_store
async def test_a_session_shows_the_present_state_of_its_device(store):
    new = await registered(store)
    account, owner = new.credentials.account, new.devices[0].device
    session = StoredSession(account, owner, NOW_S + 600, is_revoked=False)
    await store.add_session(b"t" * 32, session, NOW_S)
    assert await store.session(b"t" * 32) == session
    assert (await store.device(owner)).last_seen_s == NOW_S
    state = await store.append_account_log(
        account, new.events[-1].id, [event()], DeviceChanges(revoked=(owner,))
    )
    assert state.length == 3
    assert (await store.session(b"t" * 32)).is_revoked
    assert (await store.device(owner)).is_revoked
    await store.remove_session(b"t" * 32)
    await store.remove_session(b"t" * 32)
    assert await store.session(b"t" * 32) is None


@on_every_store
async def test_sessions_are_bounded_and_long_expired_ones_are_forgotten(store):
    account = (await registered(store)).credentials.account
    for number in range(MAX_SESSIONS + 5):
        session = StoredSession(account, None, NOW_S + number, is_revoked=False)
        await store.add_session(number.to_bytes(32), session, NOW_S)
    present = [await store.session(number.to_bytes(32)) for number in range(MAX_SESSIONS + 5)]
    assert present[:5] == [None] * 5
    assert None not in present[5:]
    late_s = NOW_S + EXPIRED_KEPT_S + 100
    session = StoredSession(account, None, late_s, is_revoked=False)
    await store.add_session(b"t" * 32, session, late_s)
    assert await store.session((100).to_bytes(32)) is None
    assert await store.session((101).to_bytes(32)) is not None


@on_every_store
async def test_a_log_grows_only_from_its_head(store):
    new = await registered(store)
    account = new.credentials.account
    added = device(account)
    more = [event(), event()]
    state = await store.append_account_log(
        account, new.events[-1].id, more, DeviceChanges(enrolled=(added,))
    )
    assert state == LogState(more[-1].id, 4)
    assert await store.devices(account) == [*new.devices, added]
    with pytest.raises(HeadMismatchError) as refusal:
        await store.append_account_log(account, new.events[-1].id, [event()], DeviceChanges())
    assert refusal.value.head == more[-1].id
    with pytest.raises(HeadMismatchError):
        await store.append_account_log(
            AccountId(bytes(32)), more[-1].id, [event()], DeviceChanges()
        )
    with pytest.raises(AlreadyExistsError):
        await store.append_account_log(
            account, more[-1].id, [event()], DeviceChanges(enrolled=(added,))
        )
    page = await store.account_log(account, 0, 10**6)
    assert page.state.length == len(page.events) == 4


@on_every_store
async def test_pages_of_a_log_keep_to_their_size_but_always_move_on(store):
    new = await registered(store, events=tuple(event(1000) for _ in range(5)))
    account = new.credentials.account
    wires = [each.wire for each in new.events]
    assert (await store.account_log(account, 1, 2500)).events == tuple(wires[1:3])
    assert (await store.account_log(account, 1, 10)).events == (wires[1],)
    assert (await store.account_log(account, 5, 10)).events == ()
    assert (await store.namespace_log(new.namespace.namespace, 0, 10**6)).state.length == 2
    assert await store.namespace_log(NamespaceId(bytes(32)), 0, 10) is None


@on_every_store
async def test_members_follow_the_namespace_log(store):
    one = (await registered(store)).credentials.account
    other = (await registered(store, email="b@b.org")).credentials.account
    new = namespace(one)
    await store.create_namespace(new)
    with pytest.raises(AlreadyExistsError):
        await store.create_namespace(new)
    assert not await store.shares_namespace(one, other)
    state = await store.append_namespace_log(
        new.namespace, new.events[-1].id, [event()], {one: 0, other: 2}
    )
    assert state.length == 3
    assert await store.shares_namespace(one, other)
    assert await store.role(new.namespace, other) == 2
    assert list(await store.members(new.namespace)) == sorted([one, other])
    with pytest.raises(HeadMismatchError):
        await store.append_namespace_log(new.namespace, new.events[-1].id, [event()], {one: 0})
    assert await store.role(new.namespace, other) == 2


@on_every_store
async def test_progress_shows_every_namespace_of_the_account(store):
    new = await registered(store)
    await registered(store, email="b@b.org")
    account = new.credentials.account
    shared = namespace(account)
    await store.create_namespace(shared)
    await store.commit(shared.namespace, [record(1), record(2)])
    progress = await store.progress(account)
    assert progress.journal_epoch == await store.journal_epoch()
    assert progress.account_log_length == 2
    states = {
        each.namespace: (each.role, each.position, each.log_length) for each in progress.namespaces
    }
    assert states == {shared.namespace: (0, 2, 2), new.namespace.namespace: (0, 0, 2)}


@on_every_store
async def test_what_is_needed_to_judge_records_comes_at_once(store):
    new = await registered(store)
    owner = new.devices[0].device
    context = await store.commit_context(new.namespace.namespace, [owner, DeviceId(bytes(32))])
    assert context.namespace == LogState(new.namespace.events[-1].id, 2)
    assert dict(context.accounts) == {owner: new.credentials.account}
    assert dict(context.logs) == {new.credentials.account: LogState(new.events[-1].id, 2)}
    assert (await store.commit_context(NamespaceId(bytes(32)), [])).namespace is None


@on_every_store
async def test_positions_have_no_gaps_and_a_record_keeps_its_own(store):
    place = (await registered(store)).namespace.namespace
    first, second = record(1), record(2)
    commit = await store.commit(place, [first, second])
    assert commit.journal_epoch == await store.journal_epoch()
    assert [(each.position, each.is_new) for each in commit.outcomes] == [(1, True), (2, True)]
    third = record(3)
    again = await store.commit(place, [second, third])
    assert [(each.position, each.is_new) for each in again.outcomes] == [(2, False), (3, True)]
    page = await store.delta(place, 0, 100, 10**6)
    assert page.records == ((1, first.wire), (2, second.wire), (3, third.wire))
    assert page.head == 3


@on_every_store
async def test_pages_of_the_journal_keep_to_their_size_but_always_move_on(store):
    place = (await registered(store)).namespace.namespace
    records = [record(number, wire=bytes([number]) * 1000) for number in range(1, 6)]
    await store.commit(place, records)
    assert [each[0] for each in (await store.delta(place, 1, 2, 10**6)).records] == [2, 3]
    assert [each[0] for each in (await store.delta(place, 1, 100, 2500)).records] == [2, 3]
    assert [each[0] for each in (await store.delta(place, 4, 100, 10)).records] == [5]
    assert (await store.delta(place, 5, 100, 10)).records == ()
    with pytest.raises(StoreError):
        await store.delta(NamespaceId(bytes(32)), 0, 1, 1)


@on_every_store
async def test_a_fork_is_refused_with_the_record_that_was_there(store):
    place = (await registered(store)).namespace.namespace
    first, fork, fine = record(1), record(1), record(2)
    await store.commit(place, [first])
    outcomes = (await store.commit(place, [fork, fine])).outcomes
    assert (outcomes[0].kind, outcomes[0].evidence) == (CommitKind.FORK, first.wire)
    assert (outcomes[1].kind, outcomes[1].position) == (CommitKind.STORED, 2)


@on_every_store
async def test_what_continues_a_refused_branch_is_refused_with_it(store):
    place = (await registered(store)).namespace.namespace
    first = record(1)
    second = record(2, previous=first.id)
    await store.commit(place, [first, second])
    branch = [record(2, previous=first.id)]
    for sequence in (3, 4):
        branch.append(record(sequence, previous=branch[-1].id))
    outcomes = (await store.commit(place, branch)).outcomes
    assert [each.kind for each in outcomes] == [CommitKind.FORK] * 3
    assert {each.evidence for each in outcomes} == {second.wire}
    alone = (await store.commit(place, branch[1:2])).outcomes[0]
    assert (alone.kind, alone.evidence) == (CommitKind.FORK, second.wire)


@on_every_store
async def test_a_record_that_comes_late_fits_between_its_neighbours_or_is_a_fork(store):
    place = (await registered(store)).namespace.namespace
    first = record(1)
    second = record(2, previous=first.id)
    third = record(3, previous=second.id)
    await store.commit(place, [first, third])
    other = record(2, previous=first.id)
    outcomes = (await store.commit(place, [other, second])).outcomes
    assert (outcomes[0].kind, outcomes[0].evidence) == (CommitKind.FORK, third.wire)
    assert (outcomes[1].kind, outcomes[1].position) == (CommitKind.STORED, 3)


@on_every_store
async def test_a_dot_is_used_once_also_within_one_commit(store):
    place = (await registered(store)).namespace.namespace
    first = record(1)
    again = record(2, dots=((ItemId(os.urandom(16)), 0, 1), first.dots[0]))
    other_register = record(3, dots=((first.dots[0][0], 1, 1),))
    outcomes = (await store.commit(place, [first, again, other_register])).outcomes
    assert [each.kind for each in outcomes] == [
        CommitKind.STORED,
        CommitKind.DOT_REUSED,
        CommitKind.STORED,
    ]
    assert outcomes[1].evidence == first.wire
    assert [each.position for each in outcomes] == [1, 0, 2]


@on_every_store
async def test_a_record_waits_for_its_blocks(store):
    place = (await registered(store)).namespace.namespace
    here, absent = BlockId(os.urandom(32)), BlockId(os.urandom(32))
    await store.add_block(place, here, 1000, NOW_S)
    needs = record(1, blocks=(here, absent))
    outcome = (await store.commit(place, [needs])).outcomes[0]
    assert (outcome.kind, outcome.missing) == (CommitKind.BLOCKS_MISSING, (absent,))
    await store.add_block(place, absent, 1000, NOW_S)
    assert (await store.commit(place, [needs])).outcomes[0].position == 1


@on_every_store
async def test_blocks_are_seen_only_in_their_namespace(store):
    one = (await registered(store)).namespace.namespace
    other = (await registered(store, email="b@b.org")).namespace.namespace
    block, absent = BlockId(os.urandom(32)), BlockId(os.urandom(32))
    await store.add_block(one, block, 1000, NOW_S)
    await store.add_block(one, block, 1000, NOW_S + 5)
    assert list(await store.missing_blocks(one, [block, absent], NOW_S + 86400)) == [absent]
    assert list(await store.missing_blocks(other, [block, absent], NOW_S)) == [block, absent]
    assert await store.has_block(one, block)
    assert not await store.has_block(other, block)
    assert not await store.has_block(NamespaceId(bytes(32)), block)
    with pytest.raises(StoreError):
        await store.add_block(NamespaceId(bytes(32)), block, 1, NOW_S)


@on_every_store
async def test_concurrent_writers_do_not_disturb_each_other(store):
    place = (await registered(store)).namespace.namespace

    async def fail():
        with pytest.raises(StoreError):
            await store.commit(NamespaceId(bytes(32)), [record()])

    async def succeed(number):
        outcome = (await store.commit(place, [record(number)])).outcomes[0]
        return outcome.position

    tasks = [fail() if number % 3 == 0 else succeed(number) for number in range(1, 100)]
    positions = [each for each in await asyncio.gather(*tasks) if each is not None]
    assert sorted(positions) == list(range(1, 67))


DAY_S = 86400
ITEM = ItemId(bytes(16))


def retention(now_s: int, kept_s: int = 30 * DAY_S) -> Retention:
    return Retention(now_s, now_s - kept_s)


def content(
    sequence: int, block: BlockId, seen: Context = EMPTY_CONTEXT, at_s: int = NOW_S
) -> NewRecord:
    """A record that writes the one item's content over what was seen."""
    made = record(sequence, blocks=(block,))
    covers = (Cover(ITEM, int(Register.CONTENT), seen),) if seen.vector else ()
    dots = ((ITEM, int(Register.CONTENT), sequence),)
    return replace(made, dots=dots, covers=covers, accepted_s=at_s)


async def condemned_all(store: MetadataStore, now_s: int) -> None:
    place = None
    while True:
        place = await store.condemn_blocks(place, 1, retention(now_s))
        if place is None:
            return


async def collected(store: MetadataStore, now_s: int) -> set[BlockId]:
    """What goes when nothing happens between condemning and giving up."""
    await condemned_all(store, now_s)
    dropped = await store.drop_condemned(now_s + 1, 100, retention(now_s))
    return {each.block for each in dropped}


def blocks_of(count: int) -> list[BlockId]:
    return [BlockId(bytes([number + 1]) * 32) for number in range(count)]


@on_every_store
async def test_a_block_goes_when_its_lease_has_ended_and_no_record_lists_it(store):
    place = (await registered(store)).namespace.namespace
    listed, stray = blocks_of(2)
    for block in (listed, stray):
        await store.add_block(place, block, 1000, NOW_S + DAY_S)
    await store.commit(place, [content(1, listed)])
    assert await collected(store, NOW_S + DAY_S) == set()
    assert await collected(store, NOW_S + DAY_S + 1) == {stray}
    assert not await store.has_block(place, stray)
    assert not await store.is_held(stray)
    assert await store.is_held(listed)


@on_every_store
async def test_a_covered_content_keeps_its_blocks_for_the_retention(store):
    place = (await registered(store)).namespace.namespace
    old, new = blocks_of(2)
    await store.add_block(place, old, 1000, NOW_S)
    first = content(1, old)
    later_s = NOW_S + 100 * DAY_S
    seen = EMPTY_CONTEXT.add([Dot(first.actor, 1)])
    await store.commit(place, [first])
    assert await collected(store, later_s) == set()
    await store.add_block(place, new, 1000, NOW_S)
    await store.commit(place, [replace(content(2, new, seen, later_s), actor=first.actor)])
    assert await collected(store, later_s + 30 * DAY_S) == set()
    assert await collected(store, later_s + 31 * DAY_S) == {old}


@on_every_store
async def test_a_version_that_nobody_covered_keeps_its_blocks_beside_a_later_one(store):
    place = (await registered(store)).namespace.namespace
    one, two = blocks_of(2)
    for block in (one, two):
        await store.add_block(place, block, 1000, NOW_S)
    await store.commit(place, [content(1, one)])
    stranger = replace(content(2, two), actor=ActorId(b"s" * 16))
    await store.commit(place, [stranger])
    assert await collected(store, NOW_S + 1000 * DAY_S) == set()


@on_every_store
async def test_pages_keep_their_children_and_go_before_them(store):
    place = (await registered(store)).namespace.namespace
    child, page, root = blocks_of(3)
    await store.add_block(place, child, 1000, NOW_S)
    await store.add_block(place, page, 1000, NOW_S, [child])
    await store.add_block(place, root, 1000, NOW_S, [page])
    made = content(1, root)
    await store.commit(place, [made])
    assert await collected(store, NOW_S + 1) == set()
    seen = EMPTY_CONTEXT.add([Dot(made.actor, 1)])
    over = replace(content(2, root, seen), actor=made.actor, blocks=())
    await store.commit(place, [over])
    later_s = NOW_S + 31 * DAY_S
    assert await collected(store, later_s) == {root}
    assert await collected(store, later_s) == {page}
    assert await collected(store, later_s) == {child}


@on_every_store
async def test_whoever_asks_for_a_condemned_block_or_uploads_it_saves_it(store):
    place = (await registered(store)).namespace.namespace
    asked, put, listed, lost = blocks_of(4)
    for block in (asked, put, listed, lost):
        await store.add_block(place, block, 1000, NOW_S)
    later_s = NOW_S + DAY_S
    await condemned_all(store, later_s)
    assert list(await store.missing_blocks(place, [asked], later_s + DAY_S)) == []
    await store.add_block(place, put, 1000, later_s + DAY_S)
    await store.commit(place, [content(1, listed)])
    dropped = await store.drop_condemned(later_s + 1, 100, retention(later_s + 1))
    assert {each.block for each in dropped} == {lost}
    assert list(await store.missing_blocks(place, [asked, put, listed, lost], NOW_S)) == [lost]


@on_every_store
async def test_a_block_that_another_namespace_holds_stays_held(store):
    one = (await registered(store)).namespace.namespace
    other = (await registered(store, email="b@b.org")).namespace.namespace
    (block,) = blocks_of(1)
    await store.add_block(one, block, 1000, NOW_S)
    await store.add_block(other, block, 1000, NOW_S + 1000 * DAY_S)
    assert await collected(store, NOW_S + DAY_S) == {block}
    assert not await store.has_block(one, block)
    assert await store.has_block(other, block)
    assert await store.is_held(block)


OTHER = ItemId(b"\1" * 16)


async def wires(store: MetadataStore, place: NamespaceId, after: int = 0) -> JournalPage:
    return await store.delta(place, after, 100, 1 << 20)


@on_every_store
async def test_burials_are_numbered_and_read_from_a_number_on(store):
    place = (await registered(store)).namespace.namespace
    for number in (1, 2, 3):
        kept = await store.add_burial(place, [ITEM], b"burial %d" % number)
        assert kept.number == number
    found = await store.burials(place, 1, 10)
    assert [(each.number, each.wire) for each in found] == [(2, b"burial 2"), (3, b"burial 3")]
    assert [each.number for each in await store.burials(place, 0, 2)] == [1, 2]


@on_every_store
async def test_records_of_buried_items_go_and_leave_their_places_empty(store):
    place = (await registered(store)).namespace.namespace
    (block,) = blocks_of(1)
    await store.add_block(place, block, 1000, NOW_S)
    alone = content(1, block)
    both = replace(record(2), dots=((ITEM, 0, 2), (OTHER, 0, 2)))
    last = replace(record(3), dots=((ITEM, 1, 3),))
    await store.commit(place, [alone, both, last])
    assert await store.drop_writes(100, retention(NOW_S)) == 0
    await store.add_burial(place, [ITEM], b"burial")
    assert await store.drop_writes(2, retention(NOW_S)) == 2
    assert await store.drop_writes(2, retention(NOW_S)) == 1
    page = await wires(store, place)
    assert (page.records, page.last, page.head) == (((2, both.wire),), 3, 3)
    assert (await wires(store, place, 2)).records == ()
    assert (await wires(store, place, 2)).last == 3
    assert await collected(store, NOW_S + DAY_S) == {block}


@on_every_store
async def test_the_number_of_a_dropped_record_is_not_given_again(store):
    place = (await registered(store)).namespace.namespace
    await store.commit(place, [replace(record(1), dots=((ITEM, 0, 1),))])
    await store.add_burial(place, [ITEM], b"burial")
    await store.drop_writes(100, retention(NOW_S))
    again = replace(record(1), dots=((OTHER, 0, 1),))
    (outcome,) = (await store.commit(place, [again])).outcomes
    assert outcome.kind is CommitKind.DROPPED
    (outcome,) = (await store.commit(place, [replace(record(2), dots=((OTHER, 0, 1),))])).outcomes
    assert (outcome.kind, outcome.position) == (CommitKind.STORED, 2)


@on_every_store
async def test_a_record_goes_when_all_of_it_was_covered_for_long(store):
    place = (await registered(store)).namespace.namespace
    first = replace(record(1), dots=((ITEM, 0, 1), (ITEM, 1, 1)))
    seen = EMPTY_CONTEXT.add([Dot(first.actor, 1)])
    covers = (Cover(ITEM, 0, seen),)
    moved = replace(record(2), dots=((ITEM, 0, 2),), covers=covers, accepted_s=NOW_S)
    await store.commit(place, [first, moved])
    later = NOW_S + 31 * DAY_S
    assert await store.drop_writes(100, retention(NOW_S + DAY_S)) == 0
    assert await store.drop_writes(100, retention(later)) == 1
    assert [position for position, _ in (await wires(store, place)).records] == [1, 2]
    covers = (Cover(ITEM, 1, seen),)
    changed = replace(record(3), dots=((ITEM, 1, 2),), covers=covers, accepted_s=later)
    await store.commit(place, [changed])
    assert await store.drop_writes(100, retention(later + 31 * DAY_S)) == 1
    assert [position for position, _ in (await wires(store, place)).records] == [2, 3]


@on_every_store
async def test_a_page_that_is_full_ends_at_its_last_record(store):
    place = (await registered(store)).namespace.namespace
    await store.commit(place, [record(number) for number in (1, 2, 3)])
    page = await store.delta(place, 0, 2, 1 << 20)
    assert ([position for position, _ in page.records], page.last, page.head) == ([1, 2], 2, 3)
    page = await store.delta(place, 0, 100, 1)
    assert ([position for position, _ in page.records], page.last) == ([1], 1)
