"""The journal of a namespace: commits and deltas.

Owns the order of a commit: parse, judge by the logs, then one transaction of the store, then wake
those who wait. Knows no HTTP and no SQL; called by the routes.
"""

from typing import Final

from protocol.http_api import (
    CommitRequest,
    CommitResponse,
    CommitResult,
    Cursor,
    DeltaRecord,
    DeltaResponse,
    ErrorBody,
    ErrorCode,
)
from protocol.ids import NamespaceId
from protocol.logs import NamespaceLog
from protocol.records import SignedRecord
from server.errors import ApiError
from server.services.namespaces import WRITERS, no_member, require_role, role_name
from server.services.notifier import Notifier
from server.services.ports import Surroundings
from server.services.record_checks import judge_records, parse_record
from server.services.sessions import Session
from server.services.verified_logs import VerifiedLogs
from server.stores.port import Commit, CommitKind, CommitOutcome, MetadataStore, NewRecord

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of records in one page: half of what a body may have; the largest record is 1 MiB."""

FEW: Final = 2
"""So many records are judged on the loop: a hop to a thread and back costs as much as one."""

_REFUSALS: Final = {
    CommitKind.FORK: (
        ErrorCode.FORK,
        "the device has signed another record of the same actor and sequence",
    ),
    CommitKind.DOT_REUSED: (
        ErrorCode.DOT_REUSED,
        "another record wrote a register with the same dot",
    ),
    CommitKind.DROPPED: (
        ErrorCode.RECORD_DROPPED,
        "a record of that number was here, and was dropped when nothing needed it any more",
    ),
    CommitKind.BLOCKS_MISSING: (
        ErrorCode.BLOCKS_MISSING,
        "blocks of the record must be uploaded first",
    ),
}


class JournalService:
    """What may be done with a namespace's records.

    Args:
        store: keeps them.
        logs: the same store's logs, verified.
        notifier: wakes the members after a commit.
        surroundings: time, and the worker that checks signatures.
    """

    def __init__(
        self,
        store: MetadataStore,
        logs: VerifiedLogs,
        notifier: Notifier,
        surroundings: Surroundings,
    ) -> None:
        self._store = store
        self._logs = logs
        self._notifier = notifier
        self._worker = surroundings.worker
        self._now_s = surroundings.now_s

    async def commit(
        self, session: Session, namespace: NamespaceId, request: CommitRequest
    ) -> CommitResponse:
        """Add records, each or not, in the order of the request. Again is the same as once.

        Raises:
            ApiError: the account may not write here.
        """
        wires = request.records
        if len(wires) <= FEW:
            parsed = [parse_record(wire) for wire in wires]
        else:
            parsed = await self._worker.run(lambda: [parse_record(wire) for wire in wires])
        records = [each for each in parsed if isinstance(each, SignedRecord)]
        log, judged = await self._judge(session, namespace, records)
        accepted = [each for each in judged if isinstance(each, NewRecord)]
        if accepted:
            commit = await self._store.commit(namespace, accepted)
        else:
            commit = Commit(await self._store.journal_epoch(), ())
        if any(outcome.is_new for outcome in commit.outcomes):
            self._notifier.wake(log.members)
        verdicts = iter(judged)
        outcomes = iter(commit.outcomes)
        results = []
        for each in parsed:
            if isinstance(each, ErrorBody):
                results.append(CommitResult(error=each))
                continue
            verdict = next(verdicts)
            if isinstance(verdict, ErrorBody):
                results.append(CommitResult(id=each.id, error=verdict))
            else:
                results.append(_result(verdict, next(outcomes)))
        return CommitResponse(commit.journal_epoch, tuple(results))

    async def delta(
        self, session: Session, namespace: NamespaceId, cursor: Cursor | None, limit: int
    ) -> DeltaResponse:
        """Records after a cursor; from the start without one.

        Raises:
            ApiError: the account is no member, or the cursor is of another journal epoch.
        """
        await require_role(self._store, session, namespace)
        after = 0 if cursor is None else cursor.position
        page = await self._store.delta(namespace, after, limit, MAX_PAGE_BYTES)
        if cursor is not None and (
            cursor.journal_epoch != page.journal_epoch or cursor.position > page.head
        ):
            raise ApiError(
                409,
                ErrorCode.JOURNAL_EPOCH_CHANGED,
                "the server's journal began anew, as after a restored backup: compare and start over",
                journal_epoch=page.journal_epoch,
            )
        return DeltaResponse(
            records=tuple(DeltaRecord(position, wire) for position, wire in page.records),
            cursor=str(Cursor(page.journal_epoch, page.last)),
            more=page.last < page.head,
            head=page.head,
        )

    async def _judge(
        self, session: Session, namespace: NamespaceId, records: list[SignedRecord]
    ) -> tuple[NamespaceLog, list[NewRecord | ErrorBody]]:
        devices = list(dict.fromkeys(signed.record.device for signed in records))
        context = await self._store.commit_context(namespace, devices)
        log = None
        if context.namespace is not None:
            log = await self._logs.namespace(namespace, context.namespace)
        if log is None or session.account not in log.members:
            raise no_member()
        role = log.members[session.account]
        if role not in WRITERS:
            raise ApiError(
                403, ErrorCode.FORBIDDEN, f"a {role_name(role)} may not change this namespace"
            )
        account_logs = {}
        for account, state in context.logs.items():
            account_log = await self._logs.account(account, state)
            if account_log is not None:
                account_logs[account] = account_log

        def judge() -> list[NewRecord | ErrorBody]:
            return judge_records(
                records, namespace, log, context.accounts, account_logs, self._now_s()
            )

        return log, judge() if len(records) <= FEW else await self._worker.run(judge)


def _result(record: NewRecord, outcome: CommitOutcome) -> CommitResult:
    if outcome.kind is CommitKind.STORED:
        return CommitResult(id=record.id, position=outcome.position)
    code, message = _REFUSALS[outcome.kind]
    error = ErrorBody(
        code.value,
        message,
        retryable=outcome.kind is CommitKind.BLOCKS_MISSING,
        blocks=outcome.missing or None,
        evidence=outcome.evidence or None,
    )
    return CommitResult(id=record.id, error=error)
