from protocol.records import Register


def journal_of(*devices):
    """One record for each group that waits, device by device."""
    return [record for device in devices for record in device.seal_all()]


async def test_records_from_after_a_revocation_have_no_effect_and_are_kept_aside(devices):
    lost, reader = devices(1), devices(2)
    lost.make_file("before")
    (kept,) = lost.seal_all()
    lost.make_file("after")
    (late,) = lost.seal_all()
    lost.account.revoke(lost.device, kept)
    reader.take([kept, late])
    assert reader.paths() == {"before"}
    assert reader.rejected == {late.id}
    (alarm,) = reader.journal.alarms()
    assert alarm.kind == "revoked"
    assert alarm.evidence == (late.to_wire(),)


async def test_whether_a_record_came_before_the_revocation_does_not_matter(devices):
    lost, honest, early, late = devices(1), devices(2), devices(3), devices(4)
    honest.make_file("shared", "first")
    honest.make_file("kept", "kept")
    honest.make_folder("folder")
    journal = journal_of(honest)
    lost.take(journal)
    lost.write("shared", "by the lost device, valid")
    lost.make_file("valid")
    journal += journal_of(lost)
    last_valid = journal[-1]
    lost.write("shared", "by whoever found it")
    lost.unlink("kept")
    lost.move("valid", "folder/moved")
    lost.make_file("planted")
    journal += journal_of(lost)
    early.take(journal)
    assert early.paths() == {"shared", "folder/", "folder/moved", "planted"}

    lost.account.revoke(lost.device, last_valid)
    late.take(journal)
    early.withdraw(journal)
    assert late.paths() == {"shared", "kept", "folder/", "valid"}
    assert early.view() == late.view()
    assert early.rejected == late.rejected != set()
    for device in (early, late):
        row = device.row_at("shared")
        content = device.registers.content(row.item, row.content)
        assert content.value.inline == b"by the lost device, valid"


async def test_local_changes_that_are_not_sent_outlast_a_withdrawal(devices):
    lost, here = devices(1), devices(2)
    lost.make_file("sealed", "valid")
    lost.make_file("waiting", "valid")
    valid = journal_of(lost)
    lost.write("sealed", "invalid")
    lost.write("waiting", "invalid")
    journal = [*valid, *journal_of(lost)]
    here.take(journal)
    here.write("sealed", "sealed here")
    (unsent,) = here.seal_all()
    here.write("waiting", "waits here")
    lost.account.revoke(lost.device, valid[-1])
    here.withdraw(journal)
    for path in ("sealed", "waiting"):
        row = here.row_at(path)
        shown = here.registers.content(row.item, row.content).value.inline
        assert shown == (b"sealed here" if path == "sealed" else b"waits here")
    assert here.journal.outbox(10)[0].id == unsent.id
    assert here.registers.is_waiting(here.row_at("waiting").item, Register.CONTENT)


async def test_a_revocation_beyond_which_nothing_came_empties_nothing(devices):
    lost, reader = devices(1), devices(2)
    lost.make_file("a")
    journal = journal_of(lost)
    reader.take(journal)
    lost.account.revoke(lost.device, journal[-1])
    reader.withdraw(journal)
    assert not reader.journal.is_to_be_read_again
    assert reader.paths() == {"a"}
    assert reader.alarm_kinds == []


async def test_own_changes_that_come_back_unknown_tell_of_a_backup_or_a_copy(devices):
    original, restored = devices(1), devices(1)
    original.make_file("before the backup")
    backup = journal_of(original)
    restored.take(backup)
    restored.journal.end_reading()
    original.start(b"run 0002")
    original.make_file("after the backup")
    later = journal_of(original)
    restored.start(b"run 0003")
    restored.make_file("by the restored one")
    restored.take(later, 2)
    assert restored.paths() == {"before the backup", "after the backup", "by the restored one"}
    (alarm,) = restored.journal.alarms()
    assert alarm.kind == "copy"
    assert alarm.evidence == (later[0].to_wire(),)
    original.take(restored.seal_all(), 3)
    assert original.paths() == restored.paths()


async def test_a_device_whose_index_was_lost_reads_its_own_changes_without_an_alarm(devices):
    original, again = devices(1), devices(1)
    for name in "abc":
        original.make_file(name)
    journal = journal_of(original)
    again.start(b"run 0002")
    again.take(journal)
    assert again.paths() == set("abc")
    assert again.alarm_kinds == []
