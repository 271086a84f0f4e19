"""What this device had of buried items and nobody else has: kept for the user, outside the tree.

Called by the task that buries, and by the folder ``.atoll``; writers are inside transactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node.core.tree_view import Version
from node.storage.database import Database
from protocol import codec, limits
from protocol.ids import ActorId, BlockId, DeviceId, ItemId
from protocol.values import Content
from protocol.version_vector import EMPTY_CONTEXT, Dot


@dataclass(frozen=True, slots=True)
class AsideFile:
    """One version of a file.

    Attributes:
        path: where it was, from the root of the drive; each is there once.
        blocks: all of them, also pages of its manifest.
    """

    id: int
    item: ItemId
    path: bytes
    version: Version[Content]
    blocks: tuple[BlockId, ...]


class Aside:
    """The table ``aside``.

    Attributes:
        revision: grows with every change.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.revision = 0

    def add(
        self, item: ItemId, path: bytes, version: Version[Content], blocks: Iterable[BlockId]
    ) -> None:
        """Keep a version under a path, or under the next free one like it."""
        first, slash, rest = path.partition(b"/")
        free, number = path, 1
        while not self._is_free(free):
            number += 1
            free = b"%s (%d)" % (first, number) + slash + rest
        self.revision += 1
        self._database.execute(
            "INSERT INTO aside (item, path, actor, n, time_us, device, value, blocks) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (
                item,
                free,
                version.dot.actor,
                version.dot.n,
                version.time_us,
                version.device,
                codec.encode(version.value.to_value()),
                b"".join(blocks),
            ),
        )

    def _is_free(self, path: bytes) -> bool:
        """Whether nothing is kept under a path, in it, or under one that leads to it."""
        parts = path.split(b"/")
        above = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        marks = ",".join("?" * len(above))
        row = self._database.row(
            f"SELECT 1 FROM aside WHERE path IN ({marks}) OR (path > ? AND path < ?) LIMIT 1",
            (*above, path + b"/", path + b"0"),
        )
        return row is None

    def remove(self, number: int) -> None:
        """Give a version up."""
        self.revision += 1
        self._database.execute("DELETE FROM aside WHERE id = ?", (number,))

    def files(self) -> list[AsideFile]:
        """Everything that is kept, by path."""
        rows = self._database.execute(
            "SELECT id, item, path, actor, n, time_us, device, value, blocks "
            "FROM aside ORDER BY path"
        )
        return [
            AsideFile(
                number,
                ItemId(item),
                path,
                Version(
                    Dot(ActorId(actor), n),
                    time_us,
                    DeviceId(device),
                    EMPTY_CONTEXT,
                    Content.from_value(codec.decode(value, limits.MAX_RECORD_BYTES)),
                ),
                _ids(blocks),
            )
            for number, item, path, actor, n, time_us, device, value, blocks in rows
        ]

    def blocks(self) -> set[BlockId]:
        """Every block of what is kept."""
        rows = self._database.execute("SELECT blocks FROM aside")
        return {block for (joined,) in rows for block in _ids(joined)}

    def count(self) -> int:
        """How many versions are kept."""
        row = self._database.row("SELECT count(*) FROM aside")
        return int(row[0]) if row else 0


def _ids(joined: bytes) -> tuple[BlockId, ...]:
    size = BlockId.size_bytes
    return tuple(BlockId(joined[at : at + size]) for at in range(0, len(joined), size))
