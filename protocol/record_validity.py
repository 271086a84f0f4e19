"""Where the valid records of a revoked device end: one rule for server and nodes.

Validity is a function of the record and the logs. Neither when a record came nor by which route
changes it, so that everybody who has read the same logs takes in the same records.
"""

from __future__ import annotations

from protocol.logs import DeviceEntry
from protocol.records import SignedRecord


def is_before_revocation(signed: SignedRecord, author: DeviceEntry) -> bool:
    """Whether a record is among those that its device's revocation leaves valid.

    Every record of a device that is enrolled is. Of a revoked one, those of the actors that its cuts
    name are, up to the cut; at the cut itself only the record that it names, so that a fork does not
    take its place. The chain of `previous` ties the ones before to it.
    """
    if author.cuts is None:
        return True
    record = signed.record
    for cut in author.cuts:
        if cut.actor == record.actor:
            return record.sequence < cut.sequence or (
                record.sequence == cut.sequence and signed.id == cut.record
            )
    return False
