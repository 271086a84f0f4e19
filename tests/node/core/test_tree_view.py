"""The rules as functions of values. What they make together is tested at the index."""

import dataclasses

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from node.core.tree_view import (
    CONTEST_MARK,
    Candidate,
    Move,
    PlacedLink,
    Slot,
    choose_content,
    contested_name,
    cut_cycles,
    merge_placements,
    share_name,
    shown_names,
    view_item,
)
from node.core.whole_tree import view_of
from protocol.ids import ROOT_ITEM, ActorId
from protocol.limits import MAX_NAME_BYTES, MAX_TIME_US
from protocol.values import Content, ItemAttributes, Kind, Link, Placement, check_name
from protocol.version_vector import EMPTY_CONTEXT, Dot
from tests.node.storage.indexes import item_id, link_id, link_to, version_of

FOLDERS = [ROOT_ITEM, item_id(1), item_id(2)]


def names(links):
    return [placed.link.name for placed in links]


def text(data):
    return Content(Kind.FILE, len(data), inline=data)


class TestContents:
    def test_the_latest_is_shown_and_equal_bytes_are_one(self):
        versions = [
            version_of(text(b"a"), device=1, time_us=1),
            version_of(text(b"b"), device=2, time_us=3),
            version_of(text(b"a"), device=3, time_us=2),
        ]
        shown, conflicts = choose_content(versions)
        assert shown is versions[1]
        assert conflicts == (versions[2],)

    def test_at_the_same_time_the_dot_decides(self):
        versions = [version_of(text(b"a"), device=1), version_of(text(b"b"), device=2)]
        assert choose_content(versions) == choose_content(versions[::-1])

    def test_nothing_is_shown_of_nothing(self):
        assert choose_content([]) == (None, ())


links = st.builds(
    lambda number, parent, name: Link(link_id(number), parent, name),
    st.integers(1, 3),
    st.sampled_from(FOLDERS),
    st.sampled_from([b"a", b"b"]),
)


@st.composite
def placements(draw):
    versions = []
    for device in range(draw(st.integers(1, 3))):
        present = {link.id: link for link in draw(st.lists(links, max_size=3))}
        former = tuple(draw(st.lists(links, max_size=3)))
        placement = Placement(tuple(sorted(present.values())), former)
        versions.append(version_of(placement, device=device, time_us=draw(st.integers(1, 3))))
    return versions


class TestPlacements:
    @given(st.data())
    def test_merging_does_not_mind_the_order(self, data):
        versions = data.draw(placements())
        assert merge_placements(versions) == merge_placements(data.draw(st.permutations(versions)))

    @given(placements())
    def test_every_link_stays_that_nobody_took_away(self, versions):
        shown, _ = merge_placements(versions)
        shown_ids = {placed.link.id for placed in shown}
        taken = {former for version in versions for former in version.value.former}
        for version in versions:
            for link in version.value.links:
                if link not in taken:
                    assert link.id in shown_ids
        assert len(shown_ids) == len(shown)

    @given(placements())
    def test_what_is_shown_is_what_somebody_wrote(self, versions):
        written = {link for version in versions for link in version.value.links}
        assert {placed.link for placed in merge_placements(versions)[0]} <= written

    def test_a_folder_hangs_once(self):
        placement = Placement((link_to(1, ROOT_ITEM, b"a"), link_to(2, ROOT_ITEM, b"b")))
        folder = version_of(Content(Kind.DIRECTORY))
        assert names(view_item([version_of(placement)], [], [folder]).links) == [b"b"]
        file = version_of(Content(Kind.FILE))
        assert names(view_item([version_of(placement)], [], [file]).links) == [b"a", b"b"]

    def test_unseen_content_revives_at_the_latest_place(self):
        former = (link_to(1, ROOT_ITEM, b"last"), link_to(1, ROOT_ITEM, b"first"))
        content = version_of(text(b"x"), device=2)
        for seen, expected in ((EMPTY_CONTEXT, [b"last"]), (EMPTY_CONTEXT.add([content.dot]), [])):
            deletion = version_of(Placement((), former, seen))
            assert names(view_item([deletion], [], [content]).links) == expected

    def test_a_time_set_on_content_that_was_seen_does_not(self):
        origin = Dot(ActorId(bytes([1]) * 16), 1)
        touched = version_of(Content(Kind.FILE, origin=origin), device=2)
        deletion = Placement((), (link_to(1, ROOT_ITEM, b"a"),), EMPTY_CONTEXT.add([origin]))
        assert view_item([version_of(deletion)], [], [touched]).links == ()

    def test_a_merge_revives_only_if_something_that_it_covers_was_not_seen(self):
        former = (link_to(1, ROOT_ITEM, b"a"),)
        sides = [Dot(ActorId(bytes([device]) * 16), 1) for device in (2, 3)]
        merged = version_of(text(b"both"), device=4, seen=sides)
        for automatic, seen, expected in (
            (True, sides, []),
            (True, sides[:1], [b"a"]),
            (False, sides, [b"a"]),
        ):
            deletion = version_of(Placement((), former, EMPTY_CONTEXT.add(seen)))
            content = dataclasses.replace(merged, automatic=automatic)
            assert names(view_item([deletion], [], [content]).links) == expected

    def test_the_latest_attributes_are_shown(self):
        versions = [
            version_of(ItemAttributes(mode), device=mode, time_us=time)
            for mode, time in ((1, 5), (2, 9), (3, 7))
        ]
        assert view_item([], versions, []).attributes is versions[1]


def candidate(number, time_us=1, is_folder=False, device=1):
    version = version_of(Placement(()), device=device, time_us=time_us)
    link = link_to(number, ROOT_ITEM, b"name.txt")
    placed = PlacedLink(link, time_us, version.dot, version.device)
    return Candidate(item_id(number), placed, is_folder)


candidates = st.lists(
    st.builds(candidate, st.integers(1, 99), st.integers(1, 3), st.booleans(), st.integers(0, 2)),
    max_size=6,
    unique_by=lambda chosen: chosen.item,
)


class TestSharing:
    @given(st.data())
    def test_everybody_is_shown_once_whatever_the_order(self, data):
        wanting = data.draw(candidates)
        slot = share_name(wanting)
        assert slot == share_name(data.draw(st.permutations(wanting)))
        everybody = [*([slot.keeper] if slot.keeper else []), *slot.merged, *slot.renamed]
        assert sorted(c.item for c in everybody) == sorted(c.item for c in wanting)
        shown = dict(shown_names(slot, b"name.txt", str, lambda name: False))
        assert len(shown) == len(wanting) - len(slot.merged)
        event(f"merged: {bool(slot.merged)}, renamed: {bool(slot.renamed)}")

    def test_a_folder_then_the_earliest_keeps_the_name(self):
        early, late = candidate(1, 1), candidate(2, 2)
        assert share_name([late, early]) == Slot(early, (), (late,))
        folder, other = candidate(3, 9, is_folder=True), candidate(4, 8, is_folder=True)
        assert share_name([early, folder, other]) == Slot(other, (folder,), (early,))

    def test_nobody_wants_it(self):
        assert share_name([]) == Slot(None, (), ())
        assert list(shown_names(Slot(None, (), ()), b"a", str, lambda name: False)) == []


file_names = st.binary(min_size=1, max_size=255).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")
)
file_names = file_names.filter(lambda name: name not in (b".", b".."))
tricky_names = st.one_of(
    file_names,
    st.text("ab.() ~0é", min_size=1, max_size=20).map(str.encode),
    st.text("aé", min_size=120, max_size=127).map(str.encode),
).filter(lambda name: name not in (b".", b"..") and len(name) <= 255)


def contested(name, device="laptop", time_us=1_760_000_000_000_000, is_free=lambda name: True):
    return contested_name(name, device, time_us, is_free)


class TestContestedNames:
    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            (b"a", b"a (from laptop 2025-10-09)"),
            (b"a.txt", b"a (from laptop 2025-10-09).txt"),
            (b"a.tar.gz", b"a.tar (from laptop 2025-10-09).gz"),
            (b".bashrc", b".bashrc (from laptop 2025-10-09)"),
            (b"caf\xe9.txt", b"caf\xe9 (from laptop 2025-10-09).txt"),
        ],
    )
    def test_the_mark_stands_before_the_extension(self, name, shown):
        assert contested(name) == shown

    def test_they_are_numbered_until_free(self):
        taken = {b"a (from laptop 2025-10-09)", b"a (from laptop 2025-10-09 2)"}
        assert contested(b"a", is_free=lambda name: name not in taken) == (
            b"a (from laptop 2025-10-09 3)"
        )

    @given(tricky_names, st.text(max_size=60), st.integers(0, MAX_TIME_US))
    def test_they_are_names_that_a_folder_can_hold(self, name, device, time_us):
        shown = contested(name, device, time_us)
        assert check_name(shown) == shown
        assert CONTEST_MARK in shown
        assert shown != name
        event(f"cut: {len(shown) < len(name) + 30}")

    @given(tricky_names, tricky_names, st.text(max_size=9), st.text(max_size=9))
    def test_different_names_never_give_the_same_one(self, name, other, device, others_device):
        if name != other:
            assert contested(name, device) != contested(other, others_device)

    @pytest.mark.parametrize(
        ("name", "other"),
        [
            (b"n" * 250, b"n" * 251),
            (b"n" * 250 + b".txt", b"n" * 249 + b"m.txt"),
            (b"a", contested(b"a")),
            (b"a." + b"e" * 250, b"b." + b"e" * 250),
        ],
    )
    def test_nor_do_names_that_look_alike(self, name, other):
        assert contested(name) != contested(other)
        assert len(contested(name)) <= MAX_NAME_BYTES

    def test_a_name_that_looks_cut_carries_its_hash_too(self):
        long_name = b"n" * 255
        shown = contested(long_name)
        forged = shown[: shown.index(CONTEST_MARK)]
        assert contested(forged) != shown

    def test_a_long_name_is_cut_between_characters(self):
        contested("é".encode() * 127).decode()


def move(parent, *former, time_us=1, is_revived=False, number=1):
    dot = Dot(ActorId(bytes(16)), number)
    return Move(parent, former, (time_us, dot, link_id(number)), is_revived)


class TestCycles:
    A, B, C, D = (item_id(number) for number in range(1, 5))

    def test_a_tree_is_left_alone(self):
        moves = {self.A: move(ROOT_ITEM), self.B: move(self.A)}
        assert cut_cycles(moves, moves.get) == {}

    def test_the_latest_move_takes_its_former_place(self):
        moves = {
            self.A: move(self.B, ROOT_ITEM, time_us=1),
            self.B: move(self.A, self.C, time_us=2),
            self.C: move(ROOT_ITEM),
        }
        assert cut_cycles(moves, moves.get) == {self.B: self.C}

    def test_places_that_are_not_shown_or_close_the_cycle_are_passed_over(self):
        moves = {
            self.A: move(self.B, time_us=1),
            self.B: move(self.A, self.D, self.A, self.C, time_us=2),
            self.C: move(ROOT_ITEM),
        }
        assert cut_cycles(moves, moves.get) == {self.B: self.C}

    def test_without_a_former_place_it_hangs_in_the_root(self):
        moves = {self.A: move(self.A)}
        assert cut_cycles(moves, moves.get) == {self.A: ROOT_ITEM}

    def test_a_deleted_folder_gives_way_before_a_living_one(self):
        moves = {
            self.A: move(self.B, self.B, time_us=1, is_revived=True),
            self.B: move(self.A, ROOT_ITEM, time_us=2),
        }
        assert cut_cycles(moves, moves.get) == {self.A: ROOT_ITEM}

    @given(st.data())
    def test_no_cycle_is_left_and_the_order_does_not_matter(self, data):
        folders = [item_id(number) for number in range(1, 7)]
        anywhere = st.sampled_from([ROOT_ITEM, *folders])
        moves = {
            folder: move(
                data.draw(anywhere),
                *data.draw(st.lists(anywhere, max_size=3)),
                time_us=data.draw(st.integers(1, 3)),
                is_revived=data.draw(st.booleans()),
                number=number,
            )
            for number, folder in enumerate(folders, 1)
        }
        cuts = cut_cycles(folders, moves.get)
        assert cut_cycles(data.draw(st.permutations(folders)), moves.get) == cuts
        for folder in folders:
            met = set()
            while folder in moves and folder != ROOT_ITEM:
                assert folder not in met
                met.add(folder)
                folder = cuts.get(folder, moves[folder].parent)
        event(f"cuts: {len(cuts)}")


class TestWholeTree:
    def test_nothing_is_an_empty_root(self):
        tree = view_of({}, str)
        assert tree.entries == {}
        assert tree.merged == {(): frozenset({ROOT_ITEM})}

    def test_it_applies_every_rule_at_once(self):
        def view(number, parent, name, kind=Kind.DIRECTORY, device=1):
            placement = Placement((link_to(number, parent, name),))
            return view_item(
                [version_of(placement, device=device, time_us=number)],
                [],
                [version_of(Content(kind, device_number=number))],
            )

        deleted = view_item(
            [
                version_of(
                    Placement(
                        (),
                        (link_to(9, ROOT_ITEM, b"gone"),),
                        EMPTY_CONTEXT.add([Dot(ActorId(bytes(16)), 1)]),
                    )
                )
            ],
            [],
            [version_of(Content(Kind.DIRECTORY))],
        )
        items = {
            item_id(1): view(1, ROOT_ITEM, b"d"),
            item_id(2): view(2, ROOT_ITEM, b"d"),
            item_id(3): view(3, item_id(1), b"a", Kind.FILE),
            item_id(4): view(4, item_id(2), b"a", Kind.FILE),
            item_id(5): deleted,
            item_id(6): view(6, item_id(5), b"new", Kind.FILE),
            item_id(7): view(7, item_id(8), b"x"),
            item_id(8): view(8, item_id(7), b"y"),
        }
        tree = view_of(items, lambda device: "laptop")
        assert tree.entries == {
            (b"d",): item_id(1),
            (b"d", b"a"): item_id(3),
            (b"d", b"a (from laptop 1970-01-01)"): item_id(4),
            (b"gone",): item_id(5),
            (b"gone", b"new"): item_id(6),
            (b"y",): item_id(8),
            (b"y", b"x"): item_id(7),
        }
        assert tree.merged[(b"d",)] == {item_id(1), item_id(2)}
        assert tree.revived == {item_id(5)}
        assert tree.cuts == {item_id(8): ROOT_ITEM}
