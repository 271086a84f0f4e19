"""The services of one server, complete: what the routes are given."""

from dataclasses import dataclass
from typing import Self

from server.blobs.port import BlockStore
from server.services.accounts import AccountService
from server.services.block_locks import BlockLocks
from server.services.blocks import BlockService
from server.services.burials import BurialService
from server.services.collector import Collector
from server.services.events import EventService
from server.services.journal import JournalService
from server.services.namespaces import NamespaceService
from server.services.notifier import Notifier
from server.services.ports import Surroundings
from server.services.sessions import SessionService
from server.services.verified_logs import VerifiedLogs
from server.stores.port import MetadataStore


@dataclass(frozen=True, slots=True)
class Services:
    """Every service, over one pair of stores. Server and simulation both build it by `over`."""

    sessions: SessionService
    accounts: AccountService
    namespaces: NamespaceService
    journal: JournalService
    burials: BurialService
    blocks: BlockService
    events: EventService
    collector: Collector
    notifier: Notifier
    store: MetadataStore
    blobs: BlockStore

    @classmethod
    async def over(
        cls,
        store: MetadataStore,
        blobs: BlockStore,
        surroundings: Surroundings,
        *,
        server_id: bytes,
        token_lifetime_s: int,
        needs_invitation: bool,
    ) -> Self:
        """Build them. The arguments are those of the services."""
        notifier = Notifier()
        logs = VerifiedLogs(store, surroundings.worker)
        locks = BlockLocks()
        sessions = SessionService(
            store, surroundings, server_id, await store.secret(), token_lifetime_s
        )
        return cls(
            sessions=sessions,
            accounts=AccountService(
                store, logs, notifier, surroundings, needs_invitation=needs_invitation
            ),
            namespaces=NamespaceService(store, logs, notifier),
            journal=JournalService(store, logs, notifier, surroundings),
            burials=BurialService(store, logs, surroundings),
            blocks=BlockService(store, blobs, sessions, locks, surroundings),
            events=EventService(store, sessions, notifier),
            collector=Collector(store, blobs, locks, surroundings),
            notifier=notifier,
            store=store,
            blobs=blobs,
        )
