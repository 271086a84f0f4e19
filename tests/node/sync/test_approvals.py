from tests.node.sync.sealed_devices import SealedDevice

FOLDERS = [f"folder{number}" for number in range(4)]
FILES = [f"{folder}/file{number}" for folder in FOLDERS for number in range(5)]
PATHS = {*FILES, *(f"{folder}/" for folder in FOLDERS)}


def fill(*devices: SealedDevice):
    """Twenty files in four folders, known to all."""
    for folder in FOLDERS:
        devices[0].make_folder(folder)
    for file in FILES:
        devices[0].make_file(file)
    records = devices[0].seal_all()
    for other in devices[1:]:
        other.take(records)
    for device in devices:
        device.journal.end_reading()
    return records


def remove_most(device):
    for folder in FOLDERS[:3]:
        device.remove_all(folder)


def pair_after_deletions(devices):
    """A device that has deleted most of the tree, unguarded, and another that has not heard of it."""
    one, two = devices(1), devices(2)
    fill(one, two)
    remove_most(one)
    one.database.execute("UPDATE groups SET held = 2")
    return one, two, one.seal_all()


async def test_deletions_of_another_device_beyond_the_limit_wait_and_the_rest_goes_on(devices):
    one, two, deletions = pair_after_deletions(devices)
    one.make_file("new")
    two.take([*deletions, *one.seal_all()])
    assert two.paths() > {"new", "folder3/"}
    assert len(two.paths()) >= len(PATHS) - 12
    ((device, count),) = two.held.by_device()
    assert device == one.device
    assert count >= 6
    before = two.paths()
    two.start()  # it survives a restart, and comes from the server again
    two.take(deletions)
    assert two.paths() == before
    assert two.held.by_device() == [(device, count)]


async def test_approved_deletions_take_effect(devices):
    one, two, deletions = pair_after_deletions(devices)
    two.take(deletions)
    decided = await two.approvals.approve()
    assert decided.here == 0
    assert decided.elsewhere > 0
    assert two.paths() == one.paths()
    assert not two.held.by_device()
    two.take(deletions)
    assert two.paths() == one.paths()


async def test_rejected_deletions_are_undone_on_all_devices(devices):
    one, two, deletions = pair_after_deletions(devices)
    two.take(deletions)
    assert two.paths() < PATHS, "the first ones went through before it was too much"
    await two.approvals.reject()
    assert two.paths() == PATHS, "they are undone as well"
    assert not two.held.by_device()
    one.take(two.seal_all())
    assert one.paths() == PATHS


async def test_a_name_that_was_given_anew_stays_so_when_deletions_are_rejected(devices):
    one, two = devices(1), devices(2)
    names = [f"file{number:02}" for number in range(20)]
    for name in names:
        one.make_file(name)
    two.take(one.seal_all())
    two.journal.end_reading()
    for name in names[:15]:
        one.unlink(name)
    one.database.execute("UPDATE groups SET held = 2")
    two.take(one.seal_all())
    assert names[0] not in two.paths()
    two.make_file(names[0], "new")
    await two.approvals.reject()
    assert two.paths() == set(names)
    row = two.row_at(names[0])
    assert two.registers.content(row.item, row.content).value.inline == b"new"


async def test_a_script_is_seen_before_its_first_deletion_is_published(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    remove_most(one)
    assert one.seal_all() == []
    assert one.held.count_local() == 18
    one.make_file("new")
    one.move("folder3/file0", "moved")
    two.take(one.seal_all())
    assert two.paths() == {*PATHS, "new", "moved"} - {"folder3/file0"}, "all else goes on"


async def test_replacing_files_is_not_deleting_them(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    for file in FILES:
        one.make_file("copy")
        two.take(one.seal_all())
        one.move("copy", file)
        two.take(one.seal_all())
    assert one.paths() == two.paths() == PATHS
    assert not one.held.count_local()
    assert not two.held.by_device()


async def test_a_rejection_on_one_device_settles_the_question_on_the_others(devices):
    one, two, deletions = pair_after_deletions(devices)
    three = devices(3)
    three.journal.end_reading()
    before = [record for record in one.sealed if record not in deletions]
    three.take(before)
    two.take(deletions)
    three.take(deletions)
    await two.approvals.reject()
    assert three.held.by_device()
    three.intake.release_settled()
    assert three.held.by_device(), "nothing was decided yet"
    three.take(two.seal_all())
    three.intake.release_settled()
    assert not three.held.by_device()
    assert three.paths() == two.paths() == PATHS


async def test_a_reader_that_hears_of_deletions_in_one_record_holds_all_of_them(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    remove_most(one)
    one.journal.open_group(
        one.now_ns // 1000, [group.id for group in one.journal.groups(2**62, 2**62, 99)]
    )
    one.database.execute("UPDATE groups SET held = 2")
    (record,) = one.seal_all()
    two.take([record])
    assert two.paths() == PATHS
    await two.approvals.reject()
    assert two.paths() == PATHS
    one.take(two.seal_all())
    assert one.paths() == PATHS


async def test_local_deletions_beyond_the_limit_are_not_published_until_approved(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    remove_most(one)
    two.take(one.seal_all())
    assert one.held.count_local() > 0
    assert "folder2/" in two.paths()
    one.start()
    assert not one.seal_all()
    await one.approvals.approve()
    two.take(one.seal_all())
    await two.approvals.approve()
    assert one.paths() == two.paths() == {path for path in PATHS if path.startswith("folder3")}
    assert one.held.count_local() == 0


async def test_rejected_local_deletions_are_put_back_and_the_others_never_hear_of_them(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    for file in FILES[:3]:
        one.unlink(file)
    two.take(one.seal_all())
    remove_most(one)
    two.take(one.seal_all())
    assert two.paths() == {*PATHS} - {*FILES[:3]}
    await one.approvals.reject()
    two.take(one.seal_all())
    assert two.paths() == one.paths() == PATHS


async def test_few_deletions_and_many_of_more_pass(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    one.remove_all("folder0")
    two.take(one.seal_all())
    for number in range(100):
        one.make_file(f"more{number}")
    two.take(one.seal_all())
    for number in range(40):
        one.unlink(f"more{number}")
    two.take(one.seal_all())
    assert one.paths() == two.paths()
    assert not one.held.count_local()
    assert not two.held.by_device()


async def test_deletions_long_apart_are_not_one_go(devices):
    one, two = devices(1), devices(2)
    fill(one, two)
    for folder in FOLDERS:
        one.remove_all(folder)
        two.take(one.seal_all())
        one.now_ns += 11 * 60 * 10**9
    assert one.paths() == two.paths() == set()


async def test_a_new_device_does_not_ask_about_what_went_through_before_it_came(devices):
    one, two, newcomer = devices(1), devices(2), devices(3)
    records = fill(one, two)
    remove_most(one)
    one.database.execute("UPDATE groups SET held = 2")
    records += one.seal_all()
    newcomer.take(records)
    assert newcomer.paths() == one.paths()
    assert not newcomer.held.by_device()


async def test_held_deletions_of_a_device_that_is_revoked_have_no_effect_even_if_approved(devices):
    one, two, deletions = pair_after_deletions(devices)
    last_valid = one.sealed[0]
    two.take(deletions)
    before = two.paths()
    assert two.held.by_device()
    two.account.revoke(one.device, last_valid)
    await two.approvals.approve()
    assert not two.held.by_device()
    assert two.paths() == before
    assert "revoked" in two.alarm_kinds
