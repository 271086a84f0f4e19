import pytest

from node.sync.server_honesty import ServerHonesty


@pytest.fixture
def sent(devices):
    """A device whose three records were acknowledged at the positions 1, 2 and 3."""
    device = devices(1)
    for name in "abc":
        device.make_file(name)
    for position, record in enumerate(device.seal_all(), 1):
        device.journal.acknowledge(record.id, position)
    return device


def honesty(device):
    return ServerHonesty(device.journal, lambda: 5_000)


async def test_a_server_that_gives_what_it_took_is_left_in_peace(sent):
    given = {record.to_wire() for record in sent.sealed}
    honesty(sent).check_page(0, 3, given)
    honesty(sent).check_page(3, 9, set())
    honesty(sent).conclude()
    assert sent.alarm_kinds == []
    assert sent.journal.count_outbox() == 0


async def test_what_was_acknowledged_and_is_not_given_is_an_alarm_and_sent_again(sent):
    given = {record.to_wire() for record in sent.sealed[::2]}
    honesty(sent).check_page(0, 3, given)
    assert sent.alarm_kinds == []
    honesty(sent).conclude()  # also by the next run of the node
    honesty(sent).conclude()
    (alarm,) = sent.journal.alarms()
    assert (alarm.kind, alarm.time_us) == ("withheld", 5)
    assert alarm.evidence == (sent.sealed[1].to_wire(),)
    assert [record.id for record in sent.journal.outbox(9)] == [sent.sealed[1].id]


async def test_what_is_not_given_because_the_rest_of_the_journal_covers_it_is_no_alarm(sent):
    honesty(sent).check_page(0, 3, {record.to_wire() for record in sent.sealed[1:]})
    sent.journal.give_up_dead(sent.sealed[0].id)
    assert sent.journal.knows(sent.sealed[0].id)  # something of it lives
    sent.database.execute("DELETE FROM versions WHERE record = ?", (sent.sealed[0].id,))
    sent.journal.give_up_dead(sent.sealed[0].id)
    honesty(sent).conclude()
    assert sent.alarm_kinds == []
    assert sent.journal.count_outbox() == 0


async def test_a_server_that_went_back_is_an_alarm_with_what_it_had_acknowledged(sent):
    honesty(sent).went_back()
    (alarm,) = sent.journal.alarms()
    assert alarm.kind == "rollback"
    assert alarm.evidence == tuple(record.to_wire() for record in sent.sealed[::-1])
