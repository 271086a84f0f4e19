"""Several devices with an index each, and records that travel between them in any order.

Nothing is sealed here: a record is its list of writes. Local changes are made by the real `Edits`,
foreign ones arrive through `Registers.apply_remote` and `Tree.refresh`, as the puller does it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from node.core.record_sealing import OpenedWrite
from node.core.tree_view import ItemView, Version, view_item
from node.core.whole_tree import WholeTree, view_of
from node.errors import DriveError
from node.filesystem.edits import Edits
from node.storage.database import Database
from node.storage.journal import Journal
from node.storage.registers import Author, Registers
from node.storage.tree import ItemRow, Tree
from protocol.ids import ROOT_ITEM, ActorId, DeviceId, ItemId, LinkId, RecordId
from protocol.records import FolderChange, Register
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

START_NS = 1_760_000_000 * 10**9
STEP_NS = 10**9

draw_id: Callable[[int], bytes] = os.urandom  # replaced by `repeatable_ids`

_SCHEMA_TABLES = ("items", "links", "entries", "cuts")


class _RolledBackError(Exception):
    pass


class DatabasePool:
    """Databases that are costly to make: each use is a transaction that is taken back."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        self._databases: list[Database] = []

    @contextmanager
    def borrow(self, count: int) -> Iterator[list[Database]]:
        while len(self._databases) < count:
            path = self._folder / f"{len(self._databases)}.db"
            self._databases.append(Database(path, bytes(32)))
        borrowed = self._databases[:count]
        with ExitStack() as stack:
            for database in borrowed:
                stack.enter_context(taken_back(database))
            yield borrowed

    def close(self) -> None:
        for database in self._databases:
            database.close()
        shutil.rmtree(self._folder)


@contextmanager
def taken_back(database: Database) -> Iterator[None]:
    try:
        with database.transaction():
            yield
            raise _RolledBackError
    except _RolledBackError:
        pass


@dataclass(frozen=True)
class SentRecord:
    """What one device did at once."""

    id: RecordId
    writes: tuple[OpenedWrite, ...]
    folders: tuple[FolderChange, ...]


def device_name(device: DeviceId) -> str:
    return f"device {device[0]}"


class Index:
    """One device's index."""

    def __init__(self, database: Database, number: int) -> None:
        self.number = number
        self.device = DeviceId(bytes([number]) * 32)
        self.database = database
        self.now_ns = START_NS
        self.author = Author(ActorId(bytes([number]) * 16), self.device)
        self.registers = Registers(database, self.author)
        self.tree = Tree(database, self.registers)
        self.journal = Journal(database)
        for other in range(8):
            device = DeviceId(bytes([other]) * 32)
            self.journal.add_device(device, bytes(32), bytes(32), device_name(device))
        self.edits = Edits(
            database,
            self.registers,
            self.tree,
            self.journal,
            lambda: self.now_ns,
            lambda size: draw_id(size),
        )
        self.known: set[RecordId] = set()
        self._records = itertools.count(1)
        self._files = itertools.count(1)

    def seal(self) -> list[SentRecord]:
        """Everything that waits, as records."""
        records = []
        for group in self.journal.groups(2**62, 2**62, 2**31):
            writes = self.registers.pending_writes(group.id)
            folders = self.journal.group_folders(group.id)
            record = RecordId(
                hashlib.sha256(b"%d/%d" % (self.number, next(self._records))).digest()
            )
            self.journal.close_group(group.id)
            if not writes:
                continue
            time_us = max(group.last_us, *(write.version.time_us for write in writes))
            is_automatic = all(write.version.automatic for write in writes)
            self.registers.mark_sealed(group.id, record, time_us, automatic=is_automatic)
            placements = {
                write.item: write.version
                for write in writes
                if write.register is Register.PLACEMENT
            }
            for item in dict.fromkeys(write.item for write in writes):
                self.tree.retime(item, placements.get(item), time_us, self.now_ns)
            opened = tuple(
                OpenedWrite(
                    write.item,
                    write.register,
                    Version(
                        write.version.dot,
                        time_us,
                        self.device,
                        write.version.context,
                        write.version.value,
                        is_automatic,
                    ),
                )
                for write in writes
            )
            records.append(SentRecord(record, opened, folders))
            self.known.add(record)
        return records

    def receive(self, record: SentRecord) -> None:
        self.known.add(record.id)
        writes = [write for write in record.writes if not self.tree.burials.holds(write.item)]
        for write in writes:
            self.registers.apply_remote(write.item, write.register, write.version, record.id)
        for change in record.folders:
            self.tree.note_entries_changed(change.folder, change.time_us)
        placed = {write.item for write in writes if write.register is Register.PLACEMENT}
        for item in dict.fromkeys(write.item for write in writes):
            self.tree.refresh(item, self.now_ns, is_placed_anew=item in placed)

    # Looking

    def rows(self, table: str) -> list[str]:
        columns = "*"
        if table == "items":
            columns = (
                "item, kind, mode, uid, gid, size, mtime_ns, device_number, xattr_count, "
                "content_actor, content_n, explicit_ns, explicit_set_us, conflicts, merged_into"
            )
        return sorted(map(repr, self.database.execute(f"SELECT {columns} FROM {table}")))

    def view(self) -> dict[str, list]:
        """All that the view says, but for inode numbers and times that are this device's own.

        Among them is the time of a folder whose changes were taken back before anybody saw them.
        """
        return {table: self.rows(table) for table in _SCHEMA_TABLES}

    def shown(self) -> dict[tuple[bytes, ...], ItemId]:
        """Every path with its item, found by walking from the root."""
        found: dict[tuple[bytes, ...], ItemId] = {}
        unread: list[tuple[tuple[bytes, ...], ItemId]] = [((), ROOT_ITEM)]
        while unread:
            path, folder = unread.pop()
            for name, _, row in self.tree.list_folder(folder, b"", 10_000):
                found[*path, name] = row.item
                if row.kind is Kind.DIRECTORY:
                    unread.append(((*path, name), row.item))
        return found

    def from_scratch(self) -> WholeTree:
        views: dict[ItemId, ItemView] = {}
        for (raw,) in list(self.database.execute("SELECT DISTINCT item FROM versions")):
            item = ItemId(raw)
            registers = self.registers
            views[item] = view_item(
                registers.placements(item), registers.attributes(item), registers.contents(item)
            )
        rows = self.database.execute("SELECT item FROM buried WHERE is_done = 1")
        return view_of(views, device_name, {ItemId(item) for (item,) in rows})

    def paths(self) -> set[str]:
        """The shown paths as text, folders with a slash at the end."""
        texts = set()
        for path, item in self.shown().items():
            row = self.tree.item(item)
            assert row is not None
            texts.add("/".join(map(bytes.decode, path)) + "/" * (row.kind is Kind.DIRECTORY))
        return texts

    def shows(self, path: str) -> bool:
        """Whether a path of `paths` is still one."""
        item = ROOT_ITEM
        kind = Kind.DIRECTORY
        for name in filter(None, path.split("/")):
            row = self.tree.lookup(item, name.encode())
            if row is None:
                return False
            item, kind = row.item, row.kind
        return (kind is Kind.DIRECTORY) is path.endswith("/")

    def row_at(self, path: str) -> ItemRow:
        item = ROOT_ITEM
        for name in filter(None, path.split("/")):
            row = self.tree.lookup(item, name.encode())
            assert row is not None, f"{path} is not shown"
            item = row.item
        row = self.tree.item(item)
        assert row is not None
        return row

    # Changing, by paths

    def make_folder(self, path: str) -> ItemId:
        return self._create(path, Content(Kind.DIRECTORY))

    def make_file(self, path: str, data: str | None = None) -> ItemId:
        """A file; its bytes are like no other's unless they are given."""
        if data is None:
            data = f"{next(self._files)} of {self.number}"
        return self._create(path, _file(data.encode(), self.now_ns))

    def _create(self, path: str, content: Content) -> ItemId:
        parent, name = _split(path)
        self._tick()
        return self.edits.create(self.row_at(parent), name, content, ItemAttributes(0o700)).item

    def write(self, path: str, data: str) -> None:
        self._tick()
        row = self.row_at(path)
        base = self.registers.content(row.item, row.content)
        self.edits.write_content(row.item, _file(data.encode(), self.now_ns), base, is_urgent=False)

    def touch(self, path: str) -> None:
        self._tick()
        row = self.row_at(path)
        base = self.registers.content(row.item, row.content)
        assert base is not None
        content = Content(
            Kind.FILE,
            base.value.size,
            self.now_ns,
            base.value.origin or base.dot,
            base.value.inline,
        )
        self.edits.write_content(row.item, content, base, is_urgent=False)

    def set_mode(self, path: str, mode: int) -> None:
        self._tick()
        self.edits.set_attributes(
            self.row_at(path).item, lambda now, _: ItemAttributes(mode, now.uid, now.gid)
        )

    def unlink(self, path: str) -> None:
        self._tick()
        parent, name = _split(path)
        folder = self.row_at(parent)
        entry = self.tree.entry(folder.item, name)
        assert entry is not None
        self.edits.unlink(folder, entry)

    def remove_folder(self, path: str) -> None:
        self._tick()
        parent, name = _split(path)
        folder = self.row_at(parent)
        entry = self.tree.entry(folder.item, name)
        assert entry is not None
        self.edits.remove_folder(folder, entry)

    def remove_all(self, path: str) -> None:
        """As ``rm -r``."""
        prefix = path.strip("/") + "/"
        below = sorted(
            (shown for shown in self.paths() if shown.startswith(prefix) and shown != prefix),
            key=lambda shown: -shown.rstrip("/").count("/"),
        )
        for shown in [*below, prefix]:
            if not self.shows(shown):
                continue
            try:
                if shown.endswith("/"):
                    self.remove_folder(shown)
                else:
                    self.unlink(shown)
            except DriveError:
                return

    def move(self, source: str, target: str) -> None:
        self._tick()
        source_parent, source_name = _split(source)
        target_parent, target_name = _split(target)
        source_folder, target_folder = self.row_at(source_parent), self.row_at(target_parent)
        entry = self.tree.entry(source_folder.item, source_name)
        assert entry is not None
        replaced = self.tree.entry(target_folder.item, target_name)
        self.edits.move(source_folder, entry, target_folder, target_name, replaced)

    def link(self, source: str, target: str) -> None:
        self._tick()
        parent, name = _split(target)
        self.edits.link(self.row_at(source), self.row_at(parent), name)

    def _tick(self) -> None:
        self.now_ns += STEP_NS


class World:
    """Devices that tell each other what they did when told to."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self.indexes = [Index(database, number) for number, database in enumerate(databases)]
        self.records: list[SentRecord] = []

    def seal(self) -> None:
        for index in self.indexes:
            self.records += index.seal()

    def missing(self, index: Index) -> list[SentRecord]:
        return [record for record in self.records if record.id not in index.known]

    def tell(self, index: Index) -> None:
        """One device hears of everything."""
        self.seal()
        for record in self.missing(index):
            index.receive(record)

    def sync(self) -> None:
        """Everything reaches everybody, in the order of its making; clocks meet."""
        self.seal()
        for index in self.indexes:
            for record in self.missing(index):
                index.receive(record)
        latest = max(index.now_ns for index in self.indexes)
        for index in self.indexes:
            index.now_ns = latest


@contextmanager
def repeatable_ids(seed: bytes) -> Iterator[None]:
    """Ids that edits draw are the same in every run."""
    counter = itertools.count()

    def draw(size: int) -> bytes:
        return hashlib.shake_256(seed + next(counter).to_bytes(4, "big")).digest(size)

    with patch("tests.node.storage.indexes.draw_id", draw):
        yield


# Versions by hand


def item_id(number: int) -> ItemId:
    return ItemId(number.to_bytes(16, "big"))


def link_id(number: int) -> LinkId:
    return LinkId(number.to_bytes(8, "big"))


def link_to(number: int, parent: ItemId, name: bytes) -> Link:
    return Link(link_id(number), parent, name)


def version_of(
    value: Placement | ItemAttributes | Content,
    *,
    device: int = 0,
    n: int = 1,
    time_us: int = 1,
    seen: Iterable[Dot] = (),
) -> Version:
    context: Context = EMPTY_CONTEXT.add(seen)
    actor = ActorId(bytes([device]) * 16)
    return Version(Dot(actor, n), time_us, DeviceId(bytes([device]) * 32), context, value)


def register_of(value: object) -> Register:
    kinds: dict[type, Register] = {
        Placement: Register.PLACEMENT,
        ItemAttributes: Register.ATTRIBUTES,
        Content: Register.CONTENT,
    }
    return kinds[type(value)]


def _file(data: bytes, mtime_ns: int) -> Content:
    return Content(Kind.FILE, len(data), mtime_ns, inline=data)


def _split(path: str) -> tuple[str, bytes]:
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent, name.encode()


Clock = Callable[[], int]
