"""Turns a fetched frame into what it holds, with one more attempt when the cached one is damaged.

Owns that rule alone. Refuses to know what opening means: it is given a function. Called by
`node.sync.manifest_reader` and `node.sync.content_reader`.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVar

from node.errors import StorageError
from node.sync.block_fetcher import BlockFetcher
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId, NamespaceId

Opened = TypeVar("Opened")


async def open_fetched(
    fetcher: BlockFetcher,
    namespace: NamespaceId,
    block: BlockId,
    opening: Callable[[bytes], Awaitable[Opened]],
) -> Opened:
    """What ``opening`` makes of a block's frame.

    A frame that does not open is fetched once more, past the cache: a cached file may have been
    damaged on the disk.

    Raises:
        ServerError: the block did not arrive.
        StorageError: what arrived is the block, but does not open: its manifest is wrong (EIO).
    """
    frame = await fetcher.get(namespace, block)
    try:
        return await opening(frame)
    except RemoteProtocolError:
        frame = await fetcher.get_again(namespace, block)
    try:
        return await opening(frame)
    except RemoteProtocolError as error:
        raise StorageError(errno.EIO, f"block {block} can not be opened: {error}") from error
