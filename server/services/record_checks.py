"""Which records may enter the journal: pure rules over a record and the verified logs.

Owns the checks that need no transaction. Validity is a function of the record and the logs, never of
who sends it or when: a member may push again what others signed, as after a backup was restored.
Called by `journal`, on a worker thread.
"""

from collections.abc import Mapping, Sequence

from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.http_api import ErrorBody, ErrorCode
from protocol.ids import AccountId, DeviceId, NamespaceId
from protocol.limits import FORMAT_VERSION
from protocol.logs import AccountLog, NamespaceLog
from protocol.record_validity import is_before_revocation
from protocol.records import Record, SignedRecord
from server.services.namespaces import WRITERS
from server.stores.port import Cover, NewRecord


def parse_record(wire: bytes) -> SignedRecord | ErrorBody:
    """The record, or why it is none."""
    try:
        return SignedRecord.from_wire(wire)
    except UnsupportedFormatError as error:
        return ErrorBody(
            ErrorCode.UPGRADE_REQUIRED.value,
            f"{error}: the server must be upgraded first",
            retryable=False,
        )
    except RemoteProtocolError as error:
        return ErrorBody(ErrorCode.MALFORMED.value, str(error), retryable=False)


def judge_records(
    records: Sequence[SignedRecord],
    namespace: NamespaceId,
    namespace_log: NamespaceLog,
    owners: Mapping[DeviceId, AccountId],
    account_logs: Mapping[AccountId, AccountLog],
    now_s: int,
) -> list[NewRecord | ErrorBody]:
    """For each record what the store is given, or why it may not enter.

    Args:
        records: as they came.
        namespace: where they shall enter.
        namespace_log: its log.
        owners: the account of each known device.
        account_logs: the logs of those accounts.
        now_s: when they came.
    """
    results: list[NewRecord | ErrorBody] = []
    for signed in records:
        account = owners.get(signed.record.device)
        log = None if account is None else account_logs.get(account)
        error = _refusal(signed, namespace, namespace_log, log)
        results.append(_new_record(signed, now_s) if error is None else error)
    return results


def _refusal(
    signed: SignedRecord,
    namespace: NamespaceId,
    namespace_log: NamespaceLog,
    account_log: AccountLog | None,
) -> ErrorBody | None:
    record = signed.record
    if record.namespace != namespace:
        return _error(ErrorCode.MALFORMED, "the record belongs to another namespace")
    entry = None if account_log is None else account_log.devices.get(record.device)
    if account_log is None or entry is None:
        return _error(ErrorCode.FORBIDDEN, f"{record.device} is not enrolled")
    if namespace_log.members.get(account_log.id) not in WRITERS:
        return _error(ErrorCode.FORBIDDEN, f"{record.device} may not write to this namespace")
    if not is_before_revocation(signed, entry):
        return _error(ErrorCode.DEVICE_REVOKED, f"{record.device} was revoked before this record")
    if namespace_log.minimum_format > FORMAT_VERSION:
        return _error(
            ErrorCode.UPGRADE_REQUIRED,
            f"this namespace takes records from format {namespace_log.minimum_format} on",
        )
    if record.epoch > len(namespace_log.epochs):
        return _error(ErrorCode.UNKNOWN_EPOCH, f"the namespace's log knows no epoch {record.epoch}")
    try:
        signed.verify(entry.signing_public)
    except RemoteProtocolError as error:
        return _error(ErrorCode.BAD_SIGNATURE, str(error))
    return None


def covers_of(record: Record) -> tuple[Cover, ...]:
    """The versions that a record covers; they and their blocks may be given up some time later."""
    return tuple(
        Cover(write.item, int(write.register), write.context)
        for write in record.writes
        if write.context.vector
    )


def _new_record(signed: SignedRecord, now_s: int) -> NewRecord:
    record = signed.record
    return NewRecord(
        id=signed.id,
        actor=record.actor,
        sequence=record.sequence,
        previous=record.previous,
        dots=tuple((write.item, int(write.register), write.n) for write in record.writes),
        blocks=record.blocks,
        wire=signed.to_wire(),
        covers=covers_of(record),
        accepted_s=now_s,
    )


def _error(code: ErrorCode, message: str) -> ErrorBody:
    return ErrorBody(code.value, message, retryable=False)
