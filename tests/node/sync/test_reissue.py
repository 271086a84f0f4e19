import random

from tests.node.sync.sealed_devices import SealedDevice


def contents(device: SealedDevice, path: str) -> set[bytes]:
    """The bytes of all versions of a file."""
    item = device.row_at(path).item
    return {version.value.inline for version in device.registers.contents(item)}


def resumed_twice(devices):
    """Two nodes that continue one run from one snapshot, a third device, and the journal."""
    original, clone, other = devices(1), devices(1), devices(2)
    original.make_file("shared", "base")
    original.make_file("doomed", "base")
    journal = original.seal_all()
    clone.take(journal)
    clone.sequence, clone.previous = original.sequence, original.previous
    other.take(journal)
    for device in (original, clone, other):
        device.journal.end_reading()
    return original, clone, other, journal


def acknowledge(device, records):
    for record in records:
        device.journal.acknowledge(record.id, 1)


async def test_what_is_refused_as_a_fork_reaches_everybody_as_a_sibling(devices):
    original, clone, other, journal = resumed_twice(devices)
    original.write("shared", "by the original")
    journal += original.seal_all()
    clone.write("shared", "by the clone")
    clone.make_file("new", "of the clone")
    refused = clone.seal_all()
    journal += clone.be_refused(refused[0])
    assert clone.journal.count_outbox() == 2
    assert not any(clone.journal.knows(record.id) for record in refused)
    for device in (original, clone, other):
        device.read_again(journal)
        device.take(journal)
    assert clone.rejected == set()
    for device in (original, clone, other):
        assert contents(device, "shared") == {b"by the original", b"by the clone"}
        assert contents(device, "new") == {b"of the clone"}
    assert original.view() == clone.view() == other.view()


async def test_a_save_over_the_clones_own_save_does_not_bury_the_originals(devices):
    original, clone, other, journal = resumed_twice(devices)
    for number in range(3):
        original.write("shared", f"by the original, {number}")
        journal += original.seal_all()
    for number in range(5):
        clone.write("shared", f"by the clone, {number}")
        refused = clone.seal_all()
    clone.write("shared", "by the clone, waiting")
    first = clone.sealed[0]
    journal += clone.be_refused(first)
    assert refused[-1].id not in {record.id for record in clone.sealed[-1:]}
    clone.read_again(journal)
    for device in (original, clone, other):
        device.take(journal)
        assert contents(device, "shared") == {b"by the original, 2", b"by the clone, waiting"}


async def test_it_does_not_matter_whether_the_other_branch_or_the_refusal_comes_first(devices):
    original, clone, other, journal = resumed_twice(devices)
    original.write("shared", "by the original")
    journal += original.seal_all()
    clone.write("shared", "by the clone")
    refused = clone.seal_all()
    clone.take(journal)
    assert clone.rejected
    assert contents(clone, "shared") == {b"by the clone"}
    journal += clone.be_refused(refused[0])
    clone.read_again(journal)
    other.take(journal)
    assert contents(clone, "shared") == contents(other, "shared")
    assert len(contents(other, "shared")) == 2
    assert clone.rejected == set()


async def test_a_deletion_that_is_published_anew_deletes_what_the_clone_had_seen_only(devices):
    original, clone, other, journal = resumed_twice(devices)
    original.write("doomed", "edited by the original")
    journal += original.seal_all()
    clone.write("doomed", "edited by the clone")
    clone.write("shared", "edited by the clone")
    refused = clone.seal_all()
    clone.unlink("doomed")
    clone.unlink("shared")
    clone.seal_all()
    journal += clone.be_refused(refused[0])
    clone.read_again(journal)
    for device in (clone, other):
        device.take(journal)
        assert device.paths() == {"doomed"}, "the original's edit was not seen by the deletion"
        shown = device.row_at("doomed")
        content = device.registers.content(shown.item, shown.content)
        assert content.value.inline == b"edited by the original"


def do_something(device: SealedDevice, dice: random.Random) -> None:
    files = [path for path in sorted(device.paths()) if not path.endswith("/")]
    path = dice.choice(files) if files else None
    new = f"file {dice.randrange(12)}"
    match dice.randrange(5):
        case 0 if path:
            device.unlink(path)
        case 1 if path and new not in device.paths():
            device.move(path, new)
        case 2 if path:
            device.write(path, f"{device.number} {dice.random()}")
        case 3 if path:
            device.touch(path)
        case _ if new not in device.paths():
            device.make_file(new)
        case _:
            pass


def rows(device: SealedDevice, table: str) -> set[str]:
    return set(device.rows(table))


async def test_devices_agree_whatever_two_nodes_of_one_run_did(devices):
    conflicts = 0
    for seed in range(8):
        dice = random.Random(seed)
        original, clone, other, journal = resumed_twice(devices)
        for _ in range(dice.randrange(1, 20)):
            do_something(original, dice)
            if dice.random() < 0.5:
                journal += original.seal_all()
        journal += original.seal_all()
        for _ in range(dice.randrange(1, 20)):
            do_something(clone, dice)
            if dice.random() < 0.5:
                clone.seal_all()
        if dice.random() < 0.5:
            clone.take(journal)
        clone.seal_all()
        if dice.random() < 0.5:
            clone.start()  # the refusal is heard of by a later run
            do_something(clone, dice)
        if clone.sealed:
            journal += clone.be_refused(clone.sealed[0])
        clone.read_again(journal)
        for device in (original, other, clone):
            device.take(journal)
        for table in ("versions", "covered", "items", "links", "entries"):
            assert rows(clone, table) == rows(other, table) == rows(original, table), seed
        conflicts += sum(row.conflicts for row in clone.tree.conflicts())
    assert conflicts > 1
