"""Whoever keeps what a folder lists can tell when it is no longer so, whatever changed it."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from node.errors import DriveError
from node.storage.revisions import Revisions
from protocol.ids import ROOT_ITEM
from tests.node.storage.indexes import World, item_id, repeatable_ids

NAMES = ("a", "b", "a/a", "a/b", "b/a", "b/b")
CHANGES = ("file", "same", "folder", "write", "mode", "unlink", "remove", "move", "link", "sync")


@pytest.mark.parametrize("ids", [{1}, {1, 2}, {7, 1}])
def test_a_change_concerns_what_it_names(ids):
    revisions = Revisions()
    revisions.note({item_id(1)})
    assert revisions.have_concerned({item_id(n) for n in ids}, 0)
    assert not revisions.have_concerned({item_id(9)}, 0)
    assert not revisions.have_concerned({item_id(1)}, revisions.number)


def test_who_looked_away_for_long_reads_anew():
    revisions = Revisions()
    for number in range(2000):
        revisions.note({item_id(number)})
    assert revisions.have_concerned({item_id(5000)}, 0)
    assert not revisions.have_concerned({item_id(5000)}, 1900)


def test_what_concerns_a_great_many_concerns_everything():
    revisions = Revisions()
    revisions.note({item_id(number) for number in range(1000)})
    assert revisions.have_concerned({item_id(5000)}, 0)


def change(index, kind, path, other, data):
    match kind:
        case "file":
            index.make_file(path)
        case "same":
            index.make_file(path, "the same")
        case "folder":
            index.make_folder(path)
        case "write":
            index.write(path, data)
        case "mode":
            index.set_mode(path, 0o600 + len(data))
        case "unlink":
            index.unlink(path)
        case "remove":
            index.remove_folder(path)
        case "move":
            index.move(path, other)
        case "link":
            index.link(path, other)


def listed(index, folder):
    """As the drive lists: names, how often each item is found, and its row."""
    return [
        (name, links, row._replace(merged_into=None))
        for name, links, row in index.tree.list_folder(folder, b"", 1000)
    ]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 1]),
            st.sampled_from(CHANGES),
            st.sampled_from(NAMES),
            st.sampled_from(NAMES),
            st.sampled_from(["", "x", "the same"]),
        ),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=400, deadline=None)
def test_a_listing_that_no_change_concerned_is_still_what_the_folder_lists(pool, steps):
    with pool.borrow(2) as databases, repeatable_ids(b"revisions"):
        world = World(databases)
        kept: list[dict] = [{}, {}]
        for number, kind, path, other, data in steps:
            index = world.indexes[number]
            try:
                if kind == "sync":
                    world.sync()
                else:
                    change(index, kind, path, other, data)
            except (DriveError, AssertionError, KeyError):
                continue
            for index, listings in zip(world.indexes, kept, strict=True):
                look(index, listings)


def look(index, listings):
    """Compare what is kept and said to be true, then keep everything as it is now."""
    revisions = index.tree.revisions
    for folder, (before, concerned, since) in listings.items():
        if not revisions.have_concerned(concerned, since):
            event("a listing stayed true")
            assert listed(index, folder) == before
        else:
            event("a listing was read anew")
    folders = [ROOT_ITEM] + [
        row.item for _, _, row in listed(index, ROOT_ITEM) if row.kind.name == "DIRECTORY"
    ]
    listings.clear()
    for folder in folders:
        found = listed(index, folder)
        concerned = {folder, *(row.item for _, _, row in found)}
        listings[folder] = found, concerned, revisions.number
