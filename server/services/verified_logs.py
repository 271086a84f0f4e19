"""Account and namespace logs as verified values, kept between requests.

Owns the cache. A log is verified once; later only what was appended since. What the cache holds is
checked against the store's head at every use, so any number of processes may append. Called by the
other services.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

from protocol.errors import RemoteProtocolError
from protocol.ids import AccountId, NamespaceId
from protocol.logs import AccountLog, NamespaceLog, SignedEvent, events_from_wire
from server.services.ports import Worker
from server.stores.port import LogPage, LogState, MetadataStore

MAX_CACHED_LOGS: Final = 2048
"""Logs of each kind; a log of ten devices takes some 20 KiB."""

_PAGE_BYTES: Final = 8 * 1024 * 1024

Key = TypeVar("Key")
Log = TypeVar("Log")


class _Cache(Generic[Key, Log]):
    """The logs that were used last."""

    def __init__(self) -> None:
        self._logs: OrderedDict[Key, Log] = OrderedDict()

    def get(self, key: Key) -> Log | None:
        log = self._logs.get(key)
        if log is not None:
            self._logs.move_to_end(key)
        return log

    def put(self, key: Key, log: Log) -> None:
        self._logs[key] = log
        self._logs.move_to_end(key)
        if len(self._logs) > MAX_CACHED_LOGS:
            self._logs.popitem(last=False)


class VerifiedLogs:
    """Verified logs, from the store.

    Concurrency: for any task. Two tasks may verify the same log at once; both results are right.
    """

    def __init__(self, store: MetadataStore, worker: Worker) -> None:
        self._store = store
        self._worker = worker
        self._accounts: _Cache[AccountId, AccountLog] = _Cache()
        self._namespaces: _Cache[NamespaceId, NamespaceLog] = _Cache()

    async def account(self, account: AccountId, state: LogState | None = None) -> AccountLog | None:
        """The log of an account, None when it is not known.

        Args:
            account: whose.
            state: what the store said just now about the log, if it was asked.
        """
        known = self._accounts.get(account)
        if known is not None and state is not None and state.head == known.head:
            return known
        start = 0 if known is None else known.length
        events: list[SignedEvent] = []
        while True:
            page = await self._store.account_log(account, start + len(events), _PAGE_BYTES)
            if page is None:
                return None
            events += events_from_wire(page.events)
            if start + len(events) >= page.state.length or not page.events:
                break
        if events or known is None:
            known = await self._worker.run(lambda: _longer_account_log(known, events))
            self._accounts.put(account, known)
        return known

    async def accounts(self, wanted: Sequence[AccountId]) -> Mapping[AccountId, AccountLog]:
        """The logs of those accounts that are known."""
        logs = {account: await self.account(account) for account in dict.fromkeys(wanted)}
        return {account: log for account, log in logs.items() if log is not None}

    async def namespace(
        self, namespace: NamespaceId, state: LogState | None = None
    ) -> NamespaceLog | None:
        """The log of a namespace, None when it is not known. ``state`` as for `account`."""
        known = self._namespaces.get(namespace)
        if known is not None and state is not None and state.head == known.head:
            return known
        start = 0 if known is None else known.length
        events: list[SignedEvent] = []
        page: LogPage | None
        while True:
            page = await self._store.namespace_log(namespace, start + len(events), _PAGE_BYTES)
            if page is None:
                return None
            events += events_from_wire(page.events)
            if start + len(events) >= page.state.length or not page.events:
                break
        if events or known is None:
            known = await self.longer_namespace_log(known, events)
            self._namespaces.put(namespace, known)
        return known

    async def longer_namespace_log(
        self, log: NamespaceLog | None, events: Sequence[SignedEvent]
    ) -> NamespaceLog:
        """A namespace's log with events appended; from the genesis event on when there is none.

        Raises:
            RemoteProtocolError: an event breaks a rule, or its author is not known.
        """
        authors = [AccountId(event.event.account) for event in events if event.event.account]
        accounts = await self.accounts(authors)

        def author(account: AccountId) -> AccountLog:
            try:
                return accounts[account]
            except KeyError as error:
                raise RemoteProtocolError(f"{account} is not known here") from error

        def extend() -> NamespaceLog:
            if log is None:
                return NamespaceLog.from_events(events, author)
            longer = log
            for event in events:
                longer = longer.append(event, author)
            return longer

        return await self._worker.run(extend)


def _longer_account_log(log: AccountLog | None, events: Sequence[SignedEvent]) -> AccountLog:
    if log is None:
        return AccountLog.from_events(events)
    for event in events:
        log = log.append(event)
    return log
