"""The plaintext of the blocks that were read last.

Owns a few whole blocks in memory, and that several reads that need the same one open it once: the
kernel reads ahead with many requests at a time. Refuses to know files. Called by
`node.sync.content_reader`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import trio

from node.core.recently_used import RecentlyUsed
from node.errors import NodeError
from node.sync.block_opener import BlockOpener
from protocol.crypto.blocks import open_block
from protocol.ids import NamespaceId
from protocol.manifests import Entry

# The whole entry: the key must be right even when the block is open already, or whoever knows a
# block's id could show its content under a manifest of his own. The namespace, because who may
# read one may not read the other.
_Key = tuple[NamespaceId, Entry]


@dataclass(slots=True)
class _Opening:
    """A block being opened by one task; set without a result when that task was cancelled."""

    done: trio.Event = field(default_factory=trio.Event)
    plain: bytes | None = None
    error: NodeError | None = None


class OpenBlocks:
    """Opens whole blocks and keeps the latest.

    Concurrency: shared. When the task that opens a block is cancelled, one that waits takes over.
    """

    def __init__(self, opener: BlockOpener, limit_bytes: int) -> None:
        """Keeps at most ``limit_bytes`` of plaintext."""
        self._opener = opener
        self._kept = RecentlyUsed[_Key, bytes](limit_bytes, len)
        self._under_way: dict[_Key, _Opening] = {}

    def kept(self, namespace: NamespaceId, entry: Entry) -> bytes | None:
        """The content of an entry's block, if it is in memory."""
        return self._kept.get((namespace, entry))

    async def open(self, namespace: NamespaceId, entry: Entry) -> bytes:
        """The content of an entry's block, which must not be a hole.

        Raises:
            ServerError: the block did not arrive.
            StorageError: the block can not be read or opened.
        """
        key = namespace, entry
        while True:
            plain = self._kept.get(key)
            if plain is not None:
                return plain
            opening = self._under_way.get(key)
            if opening is None:
                return await self._open(key)
            await opening.done.wait()
            if opening.error is not None:
                raise opening.error
            if opening.plain is not None:
                return opening.plain

    async def _open(self, key: _Key) -> bytes:
        namespace, entry = key
        assert entry.block is not None
        opening = self._under_way[key] = _Opening()
        try:
            opening.plain = await self._opener.open(
                namespace,
                entry.block,
                partial(open_block, key=entry.key, plain_length=entry.length),
                length=entry.length,
                work_bytes=entry.length,
            )
            self._kept.put(key, opening.plain)
            return opening.plain
        except NodeError as error:
            opening.error = error
            raise
        finally:
            del self._under_way[key]
            opening.done.set()
