"""The blocks of a namespace: which are missing, taking them in, handing them out.

Owns the rules: only members read, only writers upload, a page only after its children, and nobody
learns what another namespace has. Whoever asks or uploads leases the block, so that it stays while
the record that needs it is on its way. Knows no HTTP, SQL or files; called by the routes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from protocol.http_api import BlockList, ErrorCode
from protocol.ids import BlockId, NamespaceId
from server.blobs.port import BlockStore, StoredBlock
from server.errors import ApiError, BlockError, BlockNotFoundError
from server.services.block_locks import BlockLocks
from server.services.namespaces import WRITERS, require_role
from server.services.ports import Surroundings
from server.services.sessions import Session, SessionService
from server.stores.port import MetadataStore

LEASE_S: Final = 24 * 3600
"""Longer than any upload of the blocks of one record."""

RECHECK_AFTER_S: Final = 2
"""An upload that took at least so long has its session looked at again before it counts."""


class BlockService:
    """What may be done with a namespace's blocks.

    Args:
        store: knows which namespace has which blocks.
        blobs: holds them.
        sessions: asked again when an upload ends: it may have taken long.
        locks: held while bytes and what is known of them are not in step.
        surroundings: time.
    """

    def __init__(
        self,
        store: MetadataStore,
        blobs: BlockStore,
        sessions: SessionService,
        locks: BlockLocks,
        surroundings: Surroundings,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._sessions = sessions
        self._locks = locks
        self._surroundings = surroundings

    async def missing(
        self, session: Session, namespace: NamespaceId, question: BlockList
    ) -> BlockList:
        """Which of the blocks the namespace lacks.

        Raises:
            ApiError: the account may not write here.
        """
        await require_role(self._store, session, namespace, WRITERS)
        blocks = tuple(dict.fromkeys(question.blocks))
        missing = await self._store.missing_blocks(namespace, blocks, self._lease_until_s())
        return BlockList(tuple(missing))

    async def put(
        self,
        session: Session,
        namespace: NamespaceId,
        block: BlockId,
        chunks: AsyncIterator[bytes],
    ) -> None:
        """Take a block in. When this returns it is durable and in the namespace.

        Raises:
            ApiError: the account may not write here, the bytes are not that block, a page's
                children are not here, or the session ended meanwhile.
        """
        await require_role(self._store, session, namespace, WRITERS)
        started_s = self._surroundings.now_s()
        try:
            async with self._blobs.receive(block) as incoming:
                async for chunk in chunks:
                    await incoming.write(chunk)
                children = incoming.header().children
                await self._check_children(namespace, children)
                if self._surroundings.now_s() - started_s >= RECHECK_AFTER_S:
                    await self._sessions.check(session)
                async with self._locks.of(block):
                    size_bytes = await incoming.keep()
                    await self._store.add_block(
                        namespace, block, size_bytes, self._lease_until_s(), children
                    )
        except BlockError as error:
            raise ApiError(422, ErrorCode.BLOCK_MISMATCH, str(error)) from error

    @asynccontextmanager
    async def get(
        self, session: Session, namespace: NamespaceId, block: BlockId
    ) -> AsyncIterator[StoredBlock]:
        """A block of the namespace, open for reading.

        Raises:
            ApiError: the account is no member, or the namespace lacks the block.
        """
        await require_role(self._store, session, namespace)
        if not await self._store.has_block(namespace, block):
            raise _not_found()
        try:
            async with self._blobs.open(block) as stored:
                yield stored
        except BlockNotFoundError as error:
            raise _not_found() from error

    async def _check_children(self, namespace: NamespaceId, children: tuple[BlockId, ...]) -> None:
        if not children:
            return
        missing = await self._store.missing_blocks(namespace, children, self._lease_until_s())
        if missing:
            raise _children_missing(tuple(missing))

    def _lease_until_s(self) -> int:
        return self._surroundings.now_s() + LEASE_S


def _not_found() -> ApiError:
    return ApiError(404, ErrorCode.NOT_FOUND, "this namespace has no such block")


def _children_missing(blocks: tuple[BlockId, ...]) -> ApiError:
    return ApiError(
        409,
        ErrorCode.BLOCKS_MISSING,
        "the children of this page must be uploaded first",
        retryable=True,
        blocks=blocks,
    )
