"""The server as a source of blocks, behind the port that LAN peers join."""

from __future__ import annotations

from typing import Protocol

from protocol.ids import BlockId, NamespaceId


class BlockServer(Protocol):
    """What of the server's client is used here."""

    async def get_block(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """The verified frame of a block."""


class ServerSource:
    """Fetches blocks from the server. Concurrency: shared."""

    name = "server"
    is_verifying = True  # the client compares what it received with the id

    def __init__(self, client: BlockServer) -> None:
        self._client = client

    async def fetch(self, namespace: NamespaceId, block: BlockId) -> bytes:
        """The sealed frame of a block.

        Raises:
            ServerError: the server can not be reached, or does not have it.
        """
        return await self._client.get_block(namespace, block)
