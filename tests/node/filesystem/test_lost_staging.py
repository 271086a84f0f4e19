"""Staged bytes that a loss of power took, while the index that refers to them survived."""

import pytest

from protocol.limits import INLINE_BYTES
from tests.node.filesystem.machines import Machine

LONG = b"x" * (INLINE_BYTES + 1)


@pytest.fixture
def here(one, tmp_path):
    return Machine(one, tmp_path / "one")


def lose_staging(machine):
    """The device loses power, and its node starts again."""
    for path in machine._folder.iterdir():
        path.unlink()
    machine.crash()


def test_a_file_whose_staged_bytes_are_gone_can_be_read_written_and_published(here):
    here.put("new", LONG)
    lose_staging(here)
    assert here.read("new") == b""
    here.overwrite("new", b"again")
    assert here.read("new") == b"again"
    (record,) = here.index.seal()
    assert record.writes


def test_the_user_is_told_which_file_lost_its_latest_changes(here):
    here.put("new", LONG)
    for path in here._folder.iterdir():
        path.unlink()
    here._start()
    (trouble,) = here.files.recover()
    assert "new" in trouble
    assert here.files.recover() == []


def test_what_survived_is_kept(here):
    here.put("kept", LONG)
    here.crash()
    assert here.read("kept") == LONG
