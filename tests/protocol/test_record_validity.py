import dataclasses

import pytest

from protocol.crypto.labels import SignedType
from protocol.logs import Cut, DeviceEntry
from protocol.record_validity import is_before_revocation
from protocol.records import NO_RECORD, SignedRecord
from tests.protocol.test_records import DEVICE, KEY, RECORD

OTHER_RUN = b"another."


def signed(sequence, incarnation=RECORD.incarnation, time_us=1):
    record = dataclasses.replace(
        RECORD,
        sequence=sequence,
        previous=NO_RECORD if sequence == 1 else RECORD.previous,
        incarnation=incarnation,
        hybrid_time_us=time_us,
    )
    if sequence > 1:
        record = dataclasses.replace(record, previous=type(NO_RECORD)(b"p" * 32))
    body = record.encode()
    return SignedRecord(record, body, KEY.sign(SignedType.RECORD, body))


def entry(*cuts):
    return DeviceEntry(DEVICE, KEY.public, bytes(32), b"", {}, cuts)


def cut_at(record):
    return Cut(record.record.actor, record.record.sequence, record.id)


def test_every_record_of_an_enrolled_device_is_valid():
    assert is_before_revocation(signed(7), dataclasses.replace(entry(), cuts=None))


def test_a_device_that_was_revoked_without_a_cut_wrote_nothing_valid():
    assert not is_before_revocation(signed(1), entry())


@pytest.mark.parametrize(("sequence", "is_valid"), [(1, True), (4, True), (5, True), (6, False)])
def test_records_are_valid_up_to_the_cut_of_their_run(sequence, is_valid):
    assert is_before_revocation(signed(sequence), entry(cut_at(signed(5)))) is is_valid


def test_at_the_cut_only_the_record_that_it_names_is_valid():
    assert not is_before_revocation(signed(5, time_us=2), entry(cut_at(signed(5))))


def test_each_run_has_its_own_cut():
    cuts = (cut_at(signed(2)), cut_at(signed(9, OTHER_RUN)))
    assert not is_before_revocation(signed(3), entry(*cuts))
    assert is_before_revocation(signed(3, OTHER_RUN), entry(*cuts))
    assert not is_before_revocation(signed(1, b"unnamed."), entry(*cuts))
