"""Who may write in a namespace and with which keys: verified logs, and what they open.

The logs are kept in the index, so that a node that starts without a network can seal and open as
before. Called by the publisher and the puller; only `refresh` touches the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.core.account_keys import (
    DeviceKeyPair,
    GenerationKeys,
    open_device_names,
    open_epochs,
    open_generations,
)
from node.errors import ServerError
from node.storage.database import Database
from node.storage.journal import Journal
from protocol import codec
from protocol.crypto.keys import EpochKeys
from protocol.errors import RemoteProtocolError, UnsupportedFormatError
from protocol.ids import AccountId, DeviceId, NamespaceId
from protocol.limits import MAX_EVENT_BYTES, MAX_LOG_EVENTS
from protocol.logs import AccountLog, DeviceEntry, NamespaceLog, Role, SignedEvent, events_from_wire

_ACCOUNT_LOG = "account_log"
_NAMESPACE_LOG = "namespace_log"
_MAX_STORED_BYTES = 1024 * MAX_EVENT_BYTES


class ForkedLogError(RemoteProtocolError):
    """A log does not continue the one that is known.

    Attributes:
        evidence: the event known here, and the one that the server gave in its place, if any.
    """

    def __init__(self, message: str, evidence: Sequence[SignedEvent]) -> None:
        super().__init__(message)
        self.evidence = tuple(event.to_wire() for event in evidence)


class LogClient(Protocol):
    """What of the server's client is used here."""

    async def whole_account_log(self, account: AccountId) -> list[bytes]:
        """All events of an account's log, unverified."""

    async def whole_namespace_log(self, namespace: NamespaceId) -> list[bytes]:
        """All events of a namespace's log, unverified."""


@dataclass(frozen=True, slots=True)
class _Verified:
    account: AccountLog
    namespace: NamespaceLog
    generations: dict[int, GenerationKeys] = field(repr=False)
    epochs: dict[int, EpochKeys] = field(repr=False)


class Trust:
    """The verified logs of one account and one of its namespaces.

    Concurrency: owned by the node's loop; state changes in one step, after a refresh was verified.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        account: AccountId,
        namespace: NamespaceId,
        device: DeviceKeyPair,
    ) -> None:
        self._database = database
        self._journal = journal
        self._account_id = account
        self._namespace_id = namespace
        self._device = device
        self._verified: _Verified | None = None
        stored = [database.meta(key) for key in (_ACCOUNT_LOG, _NAMESPACE_LOG)]
        if all(stored):
            account_events, namespace_events = (_unpack(value) for value in stored)
            self._verified = self._verify(account_events, namespace_events)

    @property
    def is_known(self) -> bool:
        """Whether the logs were ever fetched: before that nothing can be sealed or opened."""
        return self._verified is not None

    @property
    def account(self) -> AccountLog:
        """The account's log."""
        return self._known().account

    @property
    def namespace(self) -> NamespaceLog:
        """The namespace's log."""
        return self._known().namespace

    @property
    def epochs(self) -> dict[int, EpochKeys]:
        """Keys of every epoch that is sealed to the account."""
        return self._known().epochs

    @property
    def current_epoch(self) -> EpochKeys:
        """Keys with which new records are sealed."""
        epochs = self.epochs
        return epochs[max(epochs)]

    @property
    def author_is_enrolled(self) -> bool:
        """Whether this device may still write."""
        entry = self.account.devices.get(self._device.id)
        return entry is not None and not entry.is_revoked

    def author(self, device: DeviceId) -> DeviceEntry | None:
        """The entry of a record's author; None when the logs known here do not name it."""
        if self.namespace.members.get(self.account.id) not in (Role.OWNER, Role.EDITOR):
            return None
        return self.account.devices.get(device)

    async def refresh(self, client: LogClient) -> None:
        """Fetch both logs, verify them, and keep them if they continue the ones known here.

        Raises:
            ServerError: the server can not be reached, or its logs are not valid or shorter than
                or another than those known here; an alarm was raised.
        """
        account_wire = await client.whole_account_log(self._account_id)
        namespace_wire = await client.whole_namespace_log(self._namespace_id)
        try:
            account_events = events_from_wire(account_wire)
            namespace_events = events_from_wire(namespace_wire)
            self._check_continues(account_events, namespace_events)
            verified = self._verify(account_events, namespace_events)
        except UnsupportedFormatError as error:
            # Nobody's fault: what it says may decide who may write, so nothing is taken in before.
            message = (
                f"a newer release of Atoll has written to this account ({error}): upgrade Atoll"
            )
            self._journal.raise_alarm("upgrade", message, 0)
            raise ServerError("upgrade_required", message) from error
        except RemoteProtocolError as error:
            message = f"the server's logs can not be trusted: {error}"
            evidence = error.evidence if isinstance(error, ForkedLogError) else ()
            self._journal.raise_alarm("log", message, 0, evidence)
            raise ServerError("untrusted_log", message) from error
        with self._database.transaction():
            self._database.set_meta(_ACCOUNT_LOG, codec.encode(account_wire))
            self._database.set_meta(_NAMESPACE_LOG, codec.encode(namespace_wire))
            names = open_device_names(verified.account, verified.generations)
            for device, entry in verified.account.devices.items():
                self._journal.add_device(
                    device, verified.account.id, entry.signing_public, names[device]
                )
        self._verified = verified

    def _check_continues(
        self, account_events: Sequence[SignedEvent], namespace_events: Sequence[SignedEvent]
    ) -> None:
        for name, key, events in (
            ("account", _ACCOUNT_LOG, account_events),
            ("namespace", _NAMESPACE_LOG, namespace_events),
        ):
            stored = self._database.meta(key)
            known = [] if stored is None else _unpack(stored)
            if len(events) < len(known):
                raise ForkedLogError(
                    f"the {name} log has {len(events)} events, and had {len(known)}", known[-1:]
                )
            for number, (one, other) in enumerate(zip(known, events, strict=False)):
                if one.id != other.id:
                    raise ForkedLogError(
                        f"the {name} log was forked at event {number}", [one, other]
                    )

    def _verify(
        self, account_events: Sequence[SignedEvent], namespace_events: Sequence[SignedEvent]
    ) -> _Verified:
        account = AccountLog.from_events(account_events)
        if account.id != self._account_id:
            raise RemoteProtocolError(f"the account log is of {account.id}")

        def accounts(wanted: AccountId) -> AccountLog:
            if wanted != account.id:
                raise RemoteProtocolError(f"{wanted} is not known here")
            return account

        namespace = NamespaceLog.from_events(namespace_events, accounts)
        if namespace.id != self._namespace_id:
            raise RemoteProtocolError(f"the namespace log is of {namespace.id}")
        generations = open_generations(account, self._device.id, self._device.box)
        epochs = open_epochs(namespace, account.id, generations)
        if not epochs:
            raise RemoteProtocolError("no epoch is sealed to this account")
        return _Verified(account, namespace, generations, epochs)

    def _known(self) -> _Verified:
        if self._verified is None:
            raise ServerError(
                "not_ready", "the account's logs were not fetched yet", is_transient=True
            )
        return self._verified


def _unpack(stored: bytes) -> list[SignedEvent]:
    events = codec.as_list(codec.decode(stored, _MAX_STORED_BYTES), "stored log", MAX_LOG_EVENTS)
    return events_from_wire(events)
