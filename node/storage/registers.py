"""The lattice on disk: live versions of registers, and which of them still wait to be sealed.

Called by the tree, the drive and the sync tasks, always inside a transaction of theirs when it
writes. It follows `protocol.lattice.RegisterState` and decides nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from node.core.staged_content import StagedContent, staged_content
from node.core.tree_view import Version
from node.storage.database import Database
from protocol import codec, limits
from protocol.errors import LocalProtocolError
from protocol.ids import ActorId, DeviceId, ItemId, RecordId
from protocol.records import Register
from protocol.values import Content, ItemAttributes, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

RegisterValue = Placement | ItemAttributes | Content
AnyValue = TypeVar("AnyValue", Placement, ItemAttributes, Content)

_COLUMNS = "actor, n, context, time_us, device, automatic, staging, value"
_STAGING_HEAD = codec.encode([0, 0, 0])[:1]  # of the array in the column ``staging``
_EMPTY_CONTEXT_BYTES = codec.encode(EMPTY_CONTEXT.to_value())


class DotReusedError(LocalProtocolError):
    """Two values for one dot.

    Attributes:
        known: the record that carries the value known here; None when it waits to be sealed.
    """

    def __init__(self, item: ItemId, known: RecordId | None) -> None:
        super().__init__(f"two values for one dot of {item}")
        self.known = known


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes here in this run."""

    actor: ActorId
    device: DeviceId


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A local write that no record carries yet."""

    item: ItemId
    register: Register
    version: Version[Any]


class Registers:
    """Live versions of all registers.

    Concurrency: owned by the node's loop; no method awaits.
    """

    def __init__(self, database: Database, author: Author) -> None:
        self._database = database
        self._author = author

    @property
    def author(self) -> Author:
        """Who writes here in this run."""
        return self._author

    def placements(self, item: ItemId) -> list[Version[Placement]]:
        """Live placements of an item."""
        return self._versions(item, Register.PLACEMENT)

    def attributes(self, item: ItemId) -> list[Version[ItemAttributes]]:
        """Live attributes of an item."""
        return self._versions(item, Register.ATTRIBUTES)

    def contents(self, item: ItemId) -> list[Version[Content]]:
        """Live contents of an item."""
        return self._versions(item, Register.CONTENT)

    def all_versions(
        self, item: ItemId
    ) -> tuple[list[Version[Placement]], list[Version[ItemAttributes]], list[Version[Content]]]:
        """Live placements, attributes and contents of an item."""
        found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for register, *row in self._database.execute(
            f"SELECT register, {_COLUMNS} FROM versions WHERE item = ?", (item,)
        ):
            found[register].append(_version(Register(register), row))
        return found

    def content(self, item: ItemId, dot: Dot) -> Version[Content] | None:
        """One live content, or None when it is covered by now."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM versions WHERE item = ? AND register = ? AND actor = ? AND n = ?",
            (item, int(Register.CONTENT), dot.actor, dot.n),
        )
        return None if row is None else _version(Register.CONTENT, row)

    def seen(self, item: ItemId, register: Register) -> Context:
        """Every dot of the register that is known here."""
        rows = self._database.execute(
            "SELECT actor, n FROM versions WHERE item = ? AND register = ?", (item, int(register))
        )
        return self._covered(item, register).add(Dot(ActorId(a), n) for a, n in rows)

    def write_local(
        self,
        item: ItemId,
        register: Register,
        value: RegisterValue,
        time_us: int,
        group: int,
        bases: Sequence[Version[Any]] | None = None,
        *,
        automatic: bool = False,
    ) -> Dot:
        """Write a register here; the write waits in ``group`` to be sealed.

        A write that is still waiting and is covered by the new one is replaced in place: it keeps
        its dot, so that many saves within the settle time are one version.

        Args:
            bases: the versions that the writer had seen; None when it had seen all siblings.
            automatic: a node makes it on its own, out of the bases.

        Returns:
            The dot of the write.
        """
        if bases is None:
            seen = self.seen(item, register)
        else:
            seen = EMPTY_CONTEXT
            for base in bases:
                seen = seen.join(base.context.add([base.dot]))
        own = self._replaceable(item, register, seen)
        if own is not None:
            dot, context = own
            context = context.join(seen.without(dot))
        else:
            dot = Dot(self._author.actor, self._next_n(item, register))
            context = seen
        self._cover(item, register, context, dot)
        if isinstance(value, Content) and value.origin == dot:
            value = replace(value, origin=None)  # only the time of waiting bytes was set
        staging, encoded = _encode(value)
        self._database.execute(
            "INSERT OR REPLACE INTO versions VALUES (?,?,?,?,?,?,?,NULL,?,?,?,?)",
            (
                item,
                int(register),
                dot.actor,
                dot.n,
                codec.encode(context.to_value()),
                time_us,
                self._author.device,
                group,
                staging,
                encoded,
                int(automatic),
            ),
        )
        return dot

    def write_first(
        self, item: ItemId, register: Register, value: AnyValue, time_us: int, group: int
    ) -> Version[AnyValue]:
        """Write a register of an item that was just made here: as `write_local`, with less to ask."""
        staging, encoded = _encode(value)
        author = self._author
        self._database.execute(
            "INSERT INTO versions VALUES (?,?,?,1,?,?,?,NULL,?,?,?,0)",
            (
                item,
                int(register),
                author.actor,
                _EMPTY_CONTEXT_BYTES,
                time_us,
                author.device,
                group,
                staging,
                encoded,
            ),
        )
        return Version(Dot(author.actor, 1), time_us, author.device, EMPTY_CONTEXT, value)

    def apply_remote(
        self,
        item: ItemId,
        register: Register,
        version: Version[Any],
        record: RecordId,
    ) -> bool:
        """Take a write that a record brought.

        Returns:
            Whether it changed anything: a known or covered write does not.

        Raises:
            DotReusedError: the dot is known with another record.
        """
        dot = version.dot
        rows = list(
            self._database.execute(
                "SELECT actor, n, record FROM versions WHERE item = ? AND register = ?",
                (item, int(register)),
            )
        )
        for actor, n, known in rows:
            if (actor, n) == dot:
                if known != record:
                    raise DotReusedError(item, None if known is None else RecordId(known))
                return False
        covered = self._cover(item, register, version.context, None, rows)
        if covered.covers(dot):
            if register is Register.CONTENT:
                self._remember(item, version)
            return True
        staging, encoded = _encode(version.value)
        self._database.execute(
            "INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,NULL,?,?,?)",
            (
                item,
                int(register),
                version.dot.actor,
                version.dot.n,
                codec.encode(version.context.to_value()),
                version.time_us,
                version.device,
                record,
                staging,
                encoded,
                int(version.automatic),
            ),
        )
        return True

    def pending_writes(self, group: int) -> list[PendingWrite]:
        """The writes of a group, by item, register and count."""
        rows = self._database.execute(
            f"SELECT item, register, {_COLUMNS} FROM versions WHERE pending = ? "
            "ORDER BY item, register, n",
            (group,),
        )
        return [
            PendingWrite(ItemId(row[0]), Register(row[1]), _version(Register(row[1]), row[2:]))
            for row in rows
        ]

    def move_pending(self, writes: Iterable[PendingWrite], group: int) -> None:
        """Let waiting writes wait in another group."""
        for write in writes:
            dot = write.version.dot
            self._database.execute(
                "UPDATE versions SET pending = ? WHERE item = ? AND register = ? AND actor = ? "
                "AND n = ? AND pending IS NOT NULL",
                (group, write.item, int(write.register), dot.actor, dot.n),
            )

    def has_siblings(self, item: ItemId) -> bool:
        """Whether some register of an item has several live versions: their times decide."""
        row = self._database.row(
            "SELECT 1 FROM versions WHERE item = ? GROUP BY register HAVING count(*) > 1", (item,)
        )
        return row is not None

    def is_waiting(self, item: ItemId, register: Register) -> bool:
        """Whether a local write of the register is not yet sealed."""
        return (
            self._database.row(
                "SELECT 1 FROM versions WHERE item = ? AND register = ? AND pending IS NOT NULL",
                (item, int(register)),
            )
            is not None
        )

    def replace_value(
        self, item: ItemId, register: Register, dot: Dot, value: RegisterValue
    ) -> None:
        """Give a waiting write its final value (blocks instead of staging)."""
        staging, encoded = _encode(value)
        self._database.execute(
            "UPDATE versions SET staging = ?, value = ? "
            "WHERE item = ? AND register = ? AND actor = ? AND n = ? AND record IS NULL",
            (staging, encoded, item, int(register), dot.actor, dot.n),
        )

    def mark_sealed(
        self, group: int, record: RecordId, time_us: int, *, automatic: bool = False
    ) -> None:
        """The group's writes now travel in ``record``, with its time and its mark."""
        self._database.execute(
            "UPDATE versions SET record = ?, pending = NULL, time_us = ?, automatic = ? "
            "WHERE pending = ?",
            (record, time_us, int(automatic), group),
        )

    def forget_item(self, item: ItemId) -> None:
        """Drop an item of which nothing was ever sealed."""
        self._database.execute("DELETE FROM versions WHERE item = ?", (item,))
        self._database.execute("DELETE FROM covered WHERE item = ?", (item,))

    def history(self, item: ItemId) -> list[Version[Content]]:
        """Covered contents of an item that records had carried, as far as they are kept."""
        rows = self._database.execute(
            "SELECT actor, n, context, time_us, device, automatic, NULL, value FROM history "
            "WHERE item = ?",
            (item,),
        )
        return [_version(Register.CONTENT, row) for row in rows]

    def was_sealed(self, item: ItemId) -> bool:
        """Whether any write of the item is in a record, or was covered."""
        row = self._database.row(
            "SELECT 1 FROM versions WHERE item = ? AND record IS NOT NULL LIMIT 1", (item,)
        ) or self._database.row("SELECT 1 FROM covered WHERE item = ? LIMIT 1", (item,))
        return row is not None

    def items_in_group(self, group: int) -> list[ItemId]:
        """The items that the group writes."""
        rows = self._database.execute(
            "SELECT DISTINCT item FROM versions WHERE pending = ?", (group,)
        )
        return [ItemId(item) for (item,) in rows]

    def groups_of(self, items: Iterable[ItemId]) -> list[int]:
        """The groups in which any of the items has a waiting write."""
        found: set[int] = set()
        for item in items:
            rows = self._database.execute(
                "SELECT DISTINCT pending FROM versions WHERE item = ? AND pending IS NOT NULL",
                (item,),
            )
            found.update(group for (group,) in rows)
        return sorted(found)

    def in_staging(self, content: Content) -> list[ItemId]:
        """The items of which a waiting content is in the same staging file as this one."""
        if not isinstance(content, StagedContent):
            return []
        rows = self._database.execute(
            "SELECT DISTINCT item FROM versions WHERE staging >= ? AND staging < ?",
            _staged_as(content.staging),
        )
        return [ItemId(item) for (item,) in rows]

    def items_in_staging(self) -> list[ItemId]:
        """The items of which a waiting content is in staging."""
        # Left to itself, SQLite reads the whole table in the wanted order.
        rows = self._database.execute(
            "SELECT DISTINCT item FROM versions INDEXED BY versions_by_group "
            "WHERE pending IS NOT NULL AND staging IS NOT NULL"
        )
        return sorted(ItemId(item) for (item,) in rows)

    def refers_to_staging(self, name: str) -> bool:
        """Whether some waiting content is in a staging file."""
        row = self._database.row(
            "SELECT 1 FROM versions WHERE staging >= ? AND staging < ? LIMIT 1", _staged_as(name)
        )
        return row is not None

    def is_own(self, item: ItemId) -> bool:
        """Whether nobody but this run of this device has written to an item."""
        rows = self._database.execute(
            "SELECT 1 FROM versions WHERE item = ? AND actor <> ? LIMIT 1",
            (item, self._author.actor),
        )
        covered = self._database.execute("SELECT context FROM covered WHERE item = ?", (item,))
        contexts = [_context(encoded) for (encoded,) in covered]
        return not list(rows) and all(
            actor == self._author.actor for context in contexts for actor in context.vector
        )

    def adopt_waiting_writes(self) -> list[ItemId]:
        """Give writes that a former run left unsealed dots of this run's actor.

        A home restored from a backup may hold a waiting write whose dot the original device has
        since published with another value; a dot of this run can not have been published.

        Returns:
            The items changed.
        """
        rows = list(
            self._database.execute(
                "SELECT item, register, actor, n, staging, value FROM versions "
                "WHERE pending IS NOT NULL AND actor <> ?",
                (self._author.actor,),
            )
        )
        renamed: dict[tuple[bytes, Dot], Dot] = {}
        for item, register, actor, n, _, _ in rows:
            old = Dot(ActorId(actor), n)
            new = Dot(self._author.actor, self._next_n(ItemId(item), Register(register)))
            if register == Register.CONTENT:
                renamed[(item, old)] = new
            self._database.execute(
                "UPDATE versions SET actor = ?, n = ? "
                "WHERE item = ? AND register = ? AND actor = ? AND n = ?",
                (new.actor, new.n, item, register, old.actor, old.n),
            )
        for (item, old), new in renamed.items():
            self._rename_seen(ItemId(item), old, new)
        return sorted({ItemId(row[0]) for row in rows})

    def write_as(self, author: Author) -> None:
        """Write as another author from now on; `adopt_waiting_writes` gives it what waits."""
        self._author = author

    def waiting_dots(self, item: ItemId, register: Register) -> list[Dot]:
        """The dots of local writes of a register that are not yet sealed."""
        rows = self._database.execute(
            "SELECT actor, n FROM versions WHERE item = ? AND register = ? AND pending IS NOT NULL",
            (item, int(register)),
        )
        return [Dot(ActorId(actor), n) for actor, n in rows]

    def loosen(
        self, item: ItemId, register: Register, dot: Dot, record: RecordId, group: int
    ) -> Dot | None:
        """Let a sealed write wait in a group again, with a dot of the present author.

        Returns:
            The new dot; None when the write does not live.
        """
        new = Dot(self._author.actor, self._next_n(item, register))
        self._database.execute(
            "UPDATE versions SET actor = ?, n = ?, record = NULL, pending = ? "
            "WHERE item = ? AND register = ? AND actor = ? AND n = ? AND record = ?",
            (new.actor, new.n, group, item, int(register), dot.actor, dot.n, record),
        )
        return new if self._database.changes else None

    def uncover(
        self, item: ItemId, register: Register, strip: Callable[[Context], Context]
    ) -> None:
        """Take dots out of what is covered, and out of what waiting writes cover."""
        rows = list(
            self._database.execute(
                "SELECT actor, n, context, pending FROM versions WHERE item = ? AND register = ?",
                (item, int(register)),
            )
        )
        covered = strip(self._covered(item, register))
        for actor, n, encoded, pending in rows:
            context = _context(encoded)
            if pending is not None:
                self._database.execute(
                    "UPDATE versions SET context = ? "
                    "WHERE item = ? AND register = ? AND actor = ? AND n = ?",
                    (codec.encode(strip(context).to_value()), item, int(register), actor, n),
                )
            else:
                covered = covered.join(context)
        self._database.execute(
            "DELETE FROM covered WHERE item = ? AND register = ?", (item, int(register))
        )
        if covered.vector:
            self._database.execute(
                "INSERT INTO covered VALUES (?,?,?)",
                (item, int(register), codec.encode(covered.to_value())),
            )

    def _rename_seen(self, item: ItemId, old: Dot, new: Dot) -> None:
        for version in self.placements(item):
            if version.value.seen.covers(old) and self.is_waiting(item, Register.PLACEMENT):
                seen = version.value.seen.without(old).add([new])
                value = Placement(version.value.links, version.value.former, seen)
                self.replace_value(item, Register.PLACEMENT, version.dot, value)

    def _versions(self, item: ItemId, register: Register) -> list[Version[Any]]:
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM versions WHERE item = ? AND register = ?",
            (item, int(register)),
        )
        return [_version(register, row) for row in rows]

    def _covered(self, item: ItemId, register: Register) -> Context:
        row = self._database.row(
            "SELECT context FROM covered WHERE item = ? AND register = ?", (item, int(register))
        )
        return EMPTY_CONTEXT if row is None else _context(row[0])

    def _cover(
        self,
        item: ItemId,
        register: Register,
        context: Context,
        spare: Dot | None,
        rows: Sequence[Sequence[Any]] | None = None,
    ) -> Context:
        """Drop what a context covers; all that is covered from then on.

        Args:
            rows: actor, n and record of every live version, where the caller has just read them.
        """
        covered = self._covered(item, register)
        if not context.vector:
            return covered
        joined = covered.join(context)
        if joined != covered:
            self._database.execute(
                "INSERT OR REPLACE INTO covered VALUES (?,?,?)",
                (item, int(register), codec.encode(joined.to_value())),
            )
        if rows is None:
            rows = list(
                self._database.execute(
                    "SELECT actor, n, record FROM versions WHERE item = ? AND register = ?",
                    (item, int(register)),
                )
            )
        for actor, n, record in rows:
            dot = Dot(ActorId(actor), n)
            if dot == spare or not context.covers(dot):
                continue
            if record is not None and register is Register.CONTENT:
                self._database.execute(
                    "INSERT OR IGNORE INTO history SELECT item, actor, n, context, time_us, device, "
                    "value, automatic, NULL FROM versions "
                    "WHERE item = ? AND register = ? AND actor = ? AND n = ?",
                    (item, int(register), actor, n),
                )
            self._database.execute(
                "DELETE FROM versions WHERE item = ? AND register = ? AND actor = ? AND n = ?",
                (item, int(register), actor, n),
            )
            if record is not None:
                self._drop_record(record)
        return joined

    def _remember(self, item: ItemId, version: Version[Content]) -> None:
        """Keep a content that was covered before it arrived."""
        self._database.execute(
            "INSERT OR IGNORE INTO history VALUES (?,?,?,?,?,?,?,?,NULL)",
            (
                item,
                version.dot.actor,
                version.dot.n,
                codec.encode(version.context.to_value()),
                version.time_us,
                version.device,
                codec.encode(version.value.to_value()),
                int(version.automatic),
            ),
        )

    def _drop_record(self, record: bytes) -> None:
        self._database.execute(
            "DELETE FROM records WHERE record = ?1 AND position IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM versions WHERE record = ?1)",
            (record,),
        )

    def _replaceable(
        self, item: ItemId, register: Register, seen: Context
    ) -> tuple[Dot, Context] | None:
        rows = self._database.execute(
            "SELECT actor, n, context FROM versions "
            "WHERE item = ? AND register = ? AND pending IS NOT NULL",
            (item, int(register)),
        )
        for actor, n, context in list(rows):
            dot = Dot(ActorId(actor), n)
            if seen.covers(dot):
                return dot, _context(context)
        return None

    def _next_n(self, item: ItemId, register: Register) -> int:
        row = self._database.row(
            "SELECT max(n) FROM versions WHERE item = ? AND register = ? AND actor = ?",
            (item, int(register), self._author.actor),
        )
        live: int = (row[0] if row else None) or 0
        covered = self._covered(item, register).vector.get(self._author.actor, 0)
        return max(live, covered) + 1


def parse_value(register: Register, encoded: bytes) -> RegisterValue:
    """A register's value from its opened canonical bytes.

    Raises:
        RemoteProtocolError: it is not a value of that register.
    """
    value = codec.decode(encoded, limits.MAX_RECORD_BYTES)
    match register:
        case Register.PLACEMENT:
            return Placement.from_value(value)
        case Register.ATTRIBUTES:
            return ItemAttributes.from_value(value)
        case Register.CONTENT:
            return Content.from_value(value)


def _staged_as(name: str) -> tuple[bytes, bytes]:
    """Bounds of the column ``staging`` of all that is in one staging file."""
    first = _STAGING_HEAD + codec.encode(name)
    return first, first + b"\xff"


def _encode(value: RegisterValue) -> tuple[bytes | None, bytes]:
    if isinstance(value, StagedContent):
        staging = codec.encode([value.staging, value.size, value.mtime_ns])
        return staging, codec.encode(value.base.to_value())
    return None, codec.encode(value.to_value())


def _version(register: Register, row: Sequence[Any]) -> Version[Any]:
    actor, n, context, time_us, device, automatic, staging, encoded = row
    value = parse_value(register, encoded)
    if staging is not None:
        assert isinstance(value, Content)
        name, size, mtime_ns = codec.decode(staging, 4096)
        value = staged_content(value, name, size, mtime_ns)
    return Version(
        Dot(ActorId(actor), n),
        time_us,
        DeviceId(device),
        _context(context),
        value,
        bool(automatic),
    )


def _context(encoded: bytes) -> Context:
    if encoded == _EMPTY_CONTEXT_BYTES:
        return EMPTY_CONTEXT
    return Context.from_value(codec.decode(encoded, limits.MAX_RECORD_BYTES))
