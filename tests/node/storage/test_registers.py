import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from node.core.staged_content import StagedContent, staged_content
from node.storage.registers import Author, Registers
from protocol.errors import LocalProtocolError
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, LinkId, RecordId
from protocol.lattice import RegisterState
from protocol.records import Register
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Dot
from tests.node.storage.indexes import item_id, version_of
from tests.protocol.test_lattice import histories

ITEM = item_id(1)
GROUP = 1
RECORDS = [RecordId(bytes([number]) * 32) for number in range(10)]


def text(data):
    return Content(Kind.FILE, len(data), inline=data.encode())


def shown(registers):
    return {version.value.inline.decode() for version in registers.contents(ITEM)}


def write(registers, data, base=None, group=GROUP, time_us=1):
    dot = registers.write_local(ITEM, Register.CONTENT, text(data), time_us, group, base and [base])
    return registers.content(ITEM, dot)


def receive(registers, data, *, device, n=1, seen=(), record=None):
    version = version_of(text(data), device=device, n=n, seen=seen)
    registers.apply_remote(ITEM, Register.CONTENT, version, record or RECORDS[device])
    return version


@pytest.fixture
def registers(index):
    return index.registers


@given(st.data())
def test_it_follows_the_lattice(pool, data):
    writes = data.draw(histories())
    order = data.draw(st.permutations(writes))
    state: RegisterState[int] = RegisterState()
    with pool.borrow(1) as (database,):
        registers = Registers(database, Author(ActorId(bytes(16)), DeviceId(bytes(32))))
        for position, made in enumerate(order):
            value = ItemAttributes(position)
            version = version_of(value)
            state = state.apply(made.dot, made.context, position)
            registers.apply_remote(
                ITEM,
                Register.ATTRIBUTES,
                type(version)(made.dot, 1, version.device, made.context, value),
                RECORDS[position],
            )
        live = {version.dot: version.value.mode for version in registers.attributes(ITEM)}
        assert live == state.live
        assert registers.seen(ITEM, Register.ATTRIBUTES) == state.seen
        event(f"siblings: {len(live)}")


class TestLocalWrites:
    def test_a_write_that_saw_everything_stands_alone(self, registers):
        receive(registers, "one", device=1)
        receive(registers, "two", device=2)
        write(registers, "mine")
        assert shown(registers) == {"mine"}

    def test_a_save_covers_only_the_version_that_was_opened(self, registers):
        opened = receive(registers, "one", device=1)
        receive(registers, "two", device=2)
        write(registers, "mine", base=opened)
        assert shown(registers) == {"mine", "two"}

    def test_saves_before_sealing_are_one_version(self, registers):
        first = write(registers, "one")
        second = write(registers, "two", base=first)
        assert second.dot == first.dot
        assert shown(registers) == {"two"}
        assert [pending.version.value for pending in registers.pending_writes(GROUP)] == [
            text("two")
        ]

    def test_saves_after_sealing_are_two(self, registers):
        first = write(registers, "one")
        registers.mark_sealed(GROUP, RECORDS[0], 7)
        sealed = registers.content(ITEM, first.dot)
        assert sealed.time_us == 7
        second = write(registers, "two", base=sealed)
        assert second.dot == Dot(first.dot.actor, 2)
        assert second.context.covers(first.dot)
        assert shown(registers) == {"two"}

    def test_a_waiting_write_keeps_what_it_had_seen(self, registers):
        received = receive(registers, "one", device=1)
        first = write(registers, "mine", base=received)
        receive(registers, "two", device=2)
        second = write(registers, "mine again", base=first)
        assert second.context == EMPTY_CONTEXT.add([received.dot])
        assert shown(registers) == {"mine again", "two"}

    def test_two_programs_that_opened_one_version_make_siblings(self, registers):
        opened = receive(registers, "old", device=1)
        write(registers, "first program", base=opened)
        write(registers, "second program", base=opened)
        assert shown(registers) == {"first program", "second program"}

    def test_numbers_of_dots_are_not_used_again_after_they_are_covered(self, registers):
        first = write(registers, "one")
        registers.mark_sealed(GROUP, RECORDS[0], 1)
        receive(registers, "two", device=2, seen=[first.dot])
        third = write(registers, "three")
        assert third.dot.n == 2

    def test_registers_and_items_count_apart(self, registers):
        content = write(registers, "one")
        dot = registers.write_local(ITEM, Register.ATTRIBUTES, ItemAttributes(0), 1, GROUP)
        assert content.dot == dot == Dot(registers.author.actor, 1)

    def test_a_time_set_before_sealing_names_no_origin_that_is_its_own(self, registers):
        first = write(registers, "one")
        touched = Content(Kind.FILE, 3, 5, first.dot, b"one")
        dot = registers.write_local(ITEM, Register.CONTENT, touched, 1, GROUP, [first])
        version = registers.content(ITEM, dot)
        assert dot == first.dot
        assert version.value.origin is None


class TestHistory:
    def test_a_content_that_a_record_carried_is_kept_when_it_is_covered(self, registers):
        first = write(registers, "one")
        registers.mark_sealed(GROUP, RECORDS[0], 1)
        write(registers, "two", first)
        assert [version.value.inline for version in registers.history(ITEM)] == [b"one"]

    def test_a_content_that_nobody_saw_is_not_kept(self, registers):
        first = write(registers, "one")
        write(registers, "two", first)
        assert registers.history(ITEM) == []

    def test_a_content_that_arrives_after_what_covers_it_is_kept(self, registers):
        early = version_of(text("one"), device=1)
        receive(registers, "two", device=2, seen=[early.dot])
        registers.apply_remote(ITEM, Register.CONTENT, early, RECORDS[1])
        assert [version.value.inline for version in registers.history(ITEM)] == [b"one"]
        assert shown(registers) == {"two"}


class TestBases:
    def test_a_write_covers_exactly_the_versions_that_it_is_based_on(self, registers):
        one, two = (receive(registers, name, device=n) for n, name in ((1, "one"), (2, "two")))
        receive(registers, "three", device=3)
        registers.write_local(ITEM, Register.CONTENT, text("merged"), 5, GROUP, [one, two])
        assert shown(registers) == {"three", "merged"}

    def test_what_a_node_made_on_its_own_says_so_until_somebody_changes_it(self, registers):
        one, two = (receive(registers, name, device=n) for n, name in ((1, "one"), (2, "two")))
        dot = registers.write_local(
            ITEM, Register.CONTENT, text("merged"), 5, GROUP, [one, two], automatic=True
        )
        merged = registers.content(ITEM, dot)
        assert merged.automatic
        assert registers.pending_writes(GROUP)[0].version.automatic
        assert not write(registers, "edited", merged).automatic


class TestReceiving:
    def test_the_same_record_twice_changes_nothing(self, registers):
        receive(registers, "one", device=1)
        version = version_of(text("one"), device=1)
        assert not registers.apply_remote(ITEM, Register.CONTENT, version, RECORDS[1])

    def test_two_values_for_one_dot_are_reported(self, registers):
        receive(registers, "one", device=1)
        with pytest.raises(LocalProtocolError, match="two values"):
            receive(registers, "forged", device=1, record=RECORDS[9])
        assert shown(registers) == {"one"}

    def test_what_is_covered_before_it_comes_stays_away(self, registers):
        receive(registers, "later", device=2, seen=[Dot(ActorId(bytes([1]) * 16), 1)])
        receive(registers, "earlier", device=1)
        assert shown(registers) == {"later"}


class TestSealing:
    def test_staged_content_keeps_its_base_and_name(self, registers):
        base = Content(Kind.FILE, 5, 1, inline=b"below")
        staged = staged_content(base, "00ff", 9, 12)
        dot = registers.write_local(ITEM, Register.CONTENT, staged, 1, GROUP)
        kept = registers.content(ITEM, dot).value
        assert isinstance(kept, StagedContent)
        assert (kept.base, kept.staging, kept.size, kept.mtime_ns) == (base, "00ff", 9, 12)
        registers.replace_value(ITEM, Register.CONTENT, dot, text("nine byte"))
        assert registers.content(ITEM, dot).value == text("nine byte")

    def test_a_sealed_value_is_not_replaced(self, registers):
        version = write(registers, "one")
        registers.mark_sealed(GROUP, RECORDS[0], 1)
        registers.replace_value(ITEM, Register.CONTENT, version.dot, text("two"))
        assert shown(registers) == {"one"}

    def test_groups_and_waiting_writes_are_found(self, registers):
        write(registers, "one", group=4)
        registers.write_local(ITEM, Register.ATTRIBUTES, ItemAttributes(0), 1, 5)
        assert registers.groups_of([ITEM, item_id(2)]) == [4, 5]
        assert registers.items_in_group(4) == [ITEM]
        assert registers.is_waiting(ITEM, Register.CONTENT)
        registers.mark_sealed(4, RECORDS[0], 1)
        assert not registers.is_waiting(ITEM, Register.CONTENT)
        assert registers.groups_of([ITEM]) == [5]

    def test_an_item_of_which_nothing_was_sealed_can_be_forgotten(self, registers):
        write(registers, "one")
        assert not registers.was_sealed(ITEM)
        registers.forget_item(ITEM)
        assert registers.contents(ITEM) == []
        assert registers.pending_writes(GROUP) == []

    def test_an_item_that_was_received_or_sealed_can_not(self, registers):
        receive(registers, "one", device=1)
        assert registers.was_sealed(ITEM)
        write(registers, "two")
        assert registers.was_sealed(ITEM)


class TestAdoption:
    """What a former run left unsealed gets dots of this run's actor."""

    def restart(self, index):
        author = Author(ActorId(b"\xee" * 16), index.device)
        return Registers(index.database, author)

    def test_waiting_writes_get_new_dots_and_keep_all_else(self, index, registers):
        received = receive(registers, "one", device=1)
        write(registers, "mine", base=received)
        restarted = self.restart(index)
        assert restarted.adopt_waiting_writes() == [ITEM]
        (version,) = restarted.contents(ITEM)
        assert version.dot == Dot(ActorId(b"\xee" * 16), 1)
        assert version.context.covers(received.dot)
        assert [pending.item for pending in restarted.pending_writes(GROUP)] == [ITEM]
        assert restarted.adopt_waiting_writes() == []

    def test_sealed_writes_keep_theirs(self, index, registers):
        version = write(registers, "mine")
        registers.mark_sealed(GROUP, RECORDS[0], 1)
        assert self.restart(index).adopt_waiting_writes() == []
        assert [kept.dot for kept in registers.contents(ITEM)] == [version.dot]

    def test_two_waiting_siblings_get_two_dots(self, index, registers):
        opened = receive(registers, "old", device=1)
        write(registers, "first", base=opened)
        write(registers, "second", base=opened)
        restarted = self.restart(index)
        restarted.adopt_waiting_writes()
        assert {version.dot.n for version in restarted.contents(ITEM)} == {1, 2}
        assert shown(restarted) == {"first", "second"}

    def test_a_deletion_that_waits_has_seen_the_write_under_its_new_dot(self, index, registers):
        received = receive(registers, "old", device=1)
        mine = write(registers, "mine", base=received)
        seen = registers.seen(ITEM, Register.CONTENT)
        link = Link(LinkId(bytes(8)), ROOT_ITEM, b"a")
        registers.write_local(ITEM, Register.PLACEMENT, Placement((), (link,), seen), 1, GROUP)
        restarted = self.restart(index)
        restarted.adopt_waiting_writes()
        (placement,) = restarted.placements(ITEM)
        (content,) = restarted.contents(ITEM)
        assert content.dot != mine.dot
        assert placement.value.seen.covers(content.dot)
        assert placement.value.seen.covers(received.dot)
