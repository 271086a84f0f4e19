"""Scenario 5: saves and moves meet hard links, and edits that others make meanwhile.

Sources: the issue's list, number 5; DESIGN section 4, "A name keeps its item through every way of
saving"; Hughes, Pierce, Arts and Norell, "Mysteries of Dropbox" (2016), whose model found deletions and
re-creations that lost an edit; Kleppmann et al. (2021) for moves. The plausible simpler designs that
this breaks: a save over a name writes to the item, which a hard link shows as well; a move is a
deletion and a creation; a folder is known by its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.filesystem.dances import DANCES, IN_PLACE, Dance
from tests.node.filesystem.machines import Machine, Syncing
from tests.node.storage.indexes import DatabasePool, World, repeatable_ids

every_dance = pytest.mark.parametrize("dance", DANCES, ids=lambda dance: dance.__name__)


class Devices:
    """Two devices that meet when told to."""

    def __init__(self, world: World, folder: Path) -> None:
        self.a, self.b = (Machine(index, folder / str(index.number)) for index in world.indexes)
        self._sync = Syncing(world, self.a, self.b)

    def sync(self) -> None:
        self._sync()
        assert self.a.tree() == self.b.tree()
        for machine in (self.a, self.b):
            machine.check_names()
            machine.wait(60)  # nothing that was made before is new any more

    def sync_between(self) -> None:
        """What travels while a program is in the middle of something."""
        self._sync()

    def bytes_of(self, path: str) -> set[bytes]:
        """The shown bytes of a file and those of its conflict versions, on both devices."""
        found = []
        for machine in (self.a, self.b):
            contents = machine.index.registers.contents(machine.item(path))
            assert machine.read(path) in {version.value.inline for version in contents}
            found.append({version.value.inline for version in contents})
        assert found[0] == found[1]
        return found[0]


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    pool = DatabasePool()
    with pool.borrow(2) as databases, repeatable_ids(b"dances"):
        yield Devices(World(databases), tmp_path)
    pool.close()


@every_dance
def test_of_a_hard_linked_pair_only_the_name_that_was_saved_changes(
    devices: Devices, dance: Dance
) -> None:
    """Source: number 5; POSIX rename(2): the other link of the replaced file is unaffected."""
    devices.a.put("f", b"old")
    devices.a.link("f", "pair")
    devices.sync()
    dance(devices.a, b"new")
    devices.sync()
    for machine in (devices.a, devices.b):
        assert machine.read("f") == b"new"
        assert machine.read("pair") == (b"new" if dance in IN_PLACE else b"old")


@every_dance
def test_of_a_hard_linked_pair_the_other_name_keeps_an_edit_made_elsewhere(
    devices: Devices, dance: Dance
) -> None:
    """Source: number 5: the edit belongs to the file that both names had."""
    devices.a.put("f", b"old")
    devices.a.link("f", "pair")
    devices.sync()
    dance(devices.a, b"new")
    devices.b.overwrite("pair", b"edited")
    devices.sync()
    if dance in IN_PLACE:
        assert devices.bytes_of("f") == devices.bytes_of("pair") == {b"new", b"edited"}
    else:
        assert devices.bytes_of("f") == {b"new"}
        assert devices.bytes_of("pair") == {b"edited"}


def test_a_move_over_a_file_beside_an_edit_of_what_was_moved(devices: Devices) -> None:
    """`mv X Y`, edit of X elsewhere. Source: DESIGN section 4, "rename / edit: both"."""
    devices.a.put("X", b"x")
    devices.a.put("Y", b"y")
    devices.sync()
    devices.a.rename("X", "Y")
    devices.b.overwrite("X", b"edited x")
    devices.sync()
    assert devices.a.names() == ["Y"]
    assert devices.bytes_of("Y") == {b"edited x"}


def test_a_move_over_a_file_beside_an_edit_of_what_was_replaced(devices: Devices) -> None:
    """`mv X Y`, edit of Y elsewhere. Source: DESIGN section 4, "edit / delete: it lives"."""
    devices.a.put("X", b"x")
    devices.a.put("Y", b"y")
    devices.sync()
    devices.a.rename("X", "Y")
    devices.b.overwrite("Y", b"edited y")
    devices.sync()
    shown = {devices.b.read(name) for name in devices.b.names()}
    assert shown == {b"x", b"edited y"}
    assert "Y" in devices.b.names()
    assert "X" not in devices.b.names()


def test_a_move_over_a_file_beside_edits_of_both(devices: Devices) -> None:
    """`mv X Y`, edits of X and of Y elsewhere: three changes, none lost."""
    devices.a.put("X", b"x")
    devices.a.put("Y", b"y")
    devices.sync()
    devices.a.rename("X", "Y")
    devices.b.overwrite("X", b"edited x")
    devices.b.overwrite("Y", b"edited y")
    devices.sync()
    shown = {devices.b.read(name) for name in devices.b.names()}
    assert shown == {b"edited x", b"edited y"}
    assert "X" not in devices.b.names()


def test_a_new_file_that_is_moved_over_another_is_an_edit_of_it(devices: Devices) -> None:
    """`echo > X; mv X Y`, edit of Y elsewhere: siblings of one file, which can be merged."""
    devices.a.put("Y", b"y")
    devices.sync()
    devices.a.put("X", b"new y")
    devices.a.rename("X", "Y")
    devices.b.overwrite("Y", b"edited y")
    devices.sync()
    assert devices.b.names() == ["Y"]
    assert devices.bytes_of("Y") == {b"new y", b"edited y"}


def test_a_folder_that_was_moved_is_not_the_new_one_in_its_place(devices: Devices) -> None:
    """`mv d e; mkdir d`, additions and edits in d elsewhere: they follow the folder to e.

    Source: number 5; Kleppmann et al. (2021), section 2: a folder that is known by its path takes
    them into the wrong one.
    """
    devices.a.mkdir("d")
    devices.a.put("d/f", b"old")
    devices.sync()
    devices.a.rename("d", "e")
    devices.a.mkdir("d")
    devices.b.put("d/added", b"added")
    devices.b.overwrite("d/f", b"edited")
    devices.sync()
    assert devices.b.names() == ["d", "e"]
    assert devices.b.names("d") == []
    assert devices.b.names("e") == ["added", "f"]
    assert devices.b.read("e/f") == b"edited"


def test_a_folder_that_is_moved_and_made_anew_on_both_devices_is_one(devices: Devices) -> None:
    """`mv d e; mkdir d` on both: one e with what d had, one d with the union of the new ones."""
    devices.a.mkdir("d")
    devices.a.put("d/f", b"old")
    devices.sync()
    for machine, name in ((devices.a, "a"), (devices.b, "b")):
        machine.rename("d", "e")
        machine.mkdir("d")
        machine.put(f"d/{name}", name.encode())
    devices.sync()
    assert devices.a.names() == ["d", "e"]
    assert devices.a.names("d") == ["a", "b"]
    assert devices.a.names("e") == ["f"]


@every_dance
def test_a_save_under_a_contested_name_never_touches_the_loser(
    devices: Devices, dance: Dance
) -> None:
    """Two devices made `f` apart; the keeper is saved. Source: number 6, DESIGN "Shown names are stable"."""
    devices.a.put("f", b"keeper")
    devices.b.wait(1)
    devices.b.put("f", b"loser")
    devices.sync()
    assert devices.a.read("f") == b"keeper"
    (other,) = (name for name in devices.a.names() if "from" in name)
    loser = devices.a.item(other)
    dance(devices.a, b"saved")
    devices.sync()
    assert devices.b.read("f") == b"saved"
    assert devices.b.item(other) == loser
    assert devices.b.read(other) == b"loser"


def test_what_arrives_while_a_program_saves_is_a_sibling(devices: Devices) -> None:
    """Between the making of the new file and its rename an edit arrives that the program has not seen.

    Source: DESIGN section 4: "a save covers only the version that its program had opened".
    """
    devices.a.put("f", b"old")
    devices.sync()
    assert devices.a.read("f") == b"old"
    devices.b.overwrite("f", b"edited")
    devices.a.put("f.tmp", b"saved")
    devices.sync_between()
    devices.a.rename("f.tmp", "f")
    devices.sync()
    assert devices.bytes_of("f") == {b"saved", b"edited"}
