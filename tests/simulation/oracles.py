"""What must hold when all faults are over and nothing waits any more.

Each oracle raises `BrokenPromiseError` with what is wrong. Called by the world.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from node.assembly import Assembly
from node.core.tree_view import ItemView, view_item
from node.core.whole_tree import WholeTree, view_of
from node.drive import Drive
from node.storage.tree import ROOT_INODE
from protocol.ids import ROOT_ITEM, ItemId
from protocol.records import Register, SignedRecord
from protocol.values import Kind
from tests.simulation.device import SimulatedDevice
from tests.simulation.ledger import Ledger, marks_in
from tests.simulation.programs import MAX_READ
from tests.simulation.simulated_server import SimulatedServer


class BrokenPromiseError(AssertionError):
    """The product did not do what it promises."""


Shown = dict[bytes, tuple[Any, ...]]


async def tree_of(parts: Assembly, *, with_conflicts: bool) -> Shown:
    """Every path with its kind, mode, links, extended attributes, bytes, and the time of these.

    Not of a folder: its time follows what each device did in it last.
    """
    drive = parts.drive
    shown: Shown = {}
    unread = [(ROOT_INODE, b"")]
    if with_conflicts:
        unread.append((drive.lookup(ROOT_INODE, b".atoll").inode, b".atoll"))
    while unread:
        inode, path = unread.pop()
        handle = drive.open_folder(inode)
        entries = list(drive.read_folder(handle, 0))
        drive.release_folder(handle)
        for entry in entries:
            found, shown_path = entry.attributes, path + b"/" + entry.name
            data: bytes | None = None
            if found.kind is Kind.DIRECTORY:
                unread.append((found.inode, shown_path))
            elif found.kind is Kind.SYMLINK:
                data = drive.read_symlink(found.inode)
            elif found.kind is Kind.FILE:
                file = await drive.open_file(found.inode, writable=False, truncate=False)
                data = await drive.read(file, 0, MAX_READ)
                await drive.release(file)
            mtime_ns = None if found.kind is Kind.DIRECTORY else found.mtime_ns
            xattrs = _xattrs_of(drive, found.inode) if not path.startswith(b".atoll") else ()
            shown[shown_path] = (found.kind, oct(found.mode), found.nlink, mtime_ns, xattrs, data)
    return shown


def _xattrs_of(drive: Drive, inode: int) -> tuple[tuple[bytes, bytes], ...]:
    """What programs set; what Atoll says of a file differs between devices."""
    names = [name for name in drive.list_xattrs(inode) if not name.startswith(b"user.atoll.")]
    return tuple((name, drive.get_xattr(inode, name)) for name in sorted(names))


async def check(
    devices: list[SimulatedDevice],
    server: SimulatedServer,
    ledger: Ledger,
    counts: Counter[str],
    allowed_alarms: frozenset[str],
) -> Shown:
    """All of them; what every device shows."""
    trees = []
    aside: set[bytes] = set()
    for device in devices:
        assert device.parts is not None
        _check_alarms(device.number, device.parts, allowed_alarms)
        _check_view(device.number, device.parts)
        tree = await tree_of(device.parts, with_conflicts=True)
        kept = [path for path in tree if path.startswith(b".atoll/aside")]
        counts["kept aside"] += len(kept)
        aside = aside.union(*(marks_in(tree.pop(path)[-1] or b"") for path in kept))
        trees.append(tree)
    first = trees[0]
    for device, tree in zip(devices[1:], trees[1:], strict=True):
        _check_equal(device.number, first, tree)
    found = aside.union(*(marks_in(data or b"") for *_, data in first.values()))
    lost = ledger.owed() - found
    if lost:
        raise BrokenPromiseError(f"acknowledged writes are gone: {sorted(lost)}")
    _check_blocks(server)
    counts["marks found"] += len(ledger.owed())
    counts["conflict versions"] += sum(
        path.startswith(b".atoll/conflicts")
        for path, (kind, *_) in first.items()
        if kind is Kind.FILE
    )
    counts["entries in the end"] += len(first)
    return first


def _check_equal(number: int, first: Shown, other: Shown) -> None:
    if first == other:
        return
    differing = sorted(path for path in {*first, *other} if first.get(path) != other.get(path))
    shown = [
        (path, _described(first.get(path)), _described(other.get(path))) for path in differing[:4]
    ]
    raise BrokenPromiseError(f"device 0 and {number} differ in {len(differing)} paths: {shown}")


def _described(entry: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """An entry with the marks in its bytes instead of them."""
    if entry is None or entry[-1] is None:
        return entry
    *attributes, data = entry
    return (*attributes, len(data), hashlib.sha256(data).hexdigest()[:8], sorted(marks_in(data)))


def _check_alarms(number: int, parts: Assembly, allowed: frozenset[str]) -> None:
    alarms = [alarm for alarm in parts.journal.alarms() if alarm.kind not in allowed]
    if alarms:
        raise BrokenPromiseError(f"device {number} raised {alarms}")


def _check_view(number: int, parts: Assembly) -> None:
    """The incremental view is the view from scratch."""
    registers, tree = parts.registers, parts.tree
    views: dict[ItemId, ItemView] = {}
    for (raw,) in list(parts.database.execute("SELECT DISTINCT item FROM versions")):
        item = ItemId(raw)
        views[item] = view_item(
            registers.placements(item), registers.attributes(item), registers.contents(item)
        )
    rows = parts.database.execute("SELECT item FROM buried WHERE is_done = 1")
    buried = {ItemId(item) for (item,) in rows}
    whole: WholeTree = view_of(views, tree.device_name, buried)
    shown: dict[tuple[bytes, ...], ItemId] = {}
    unread: list[tuple[tuple[bytes, ...], ItemId]] = [((), ROOT_ITEM)]
    while unread:
        path, folder = unread.pop()
        for name, _, row in tree.list_folder(folder, b"", 10_000):
            shown[*path, name] = row.item
            if row.kind is Kind.DIRECTORY:
                unread.append(((*path, name), row.item))
    if shown != whole.entries:
        different = {
            path: (shown.get(path), whole.entries.get(path))
            for path in {*shown, *whole.entries}
            if shown.get(path) != whole.entries.get(path)
        }
        raise BrokenPromiseError(
            f"the view of device {number} is not that from scratch: {different}"
        )
    _check_folders(number, parts, whole)


def _check_folders(number: int, parts: Assembly, whole: WholeTree) -> None:
    """Which folders are shown as one, and where cycles are cut, is as from scratch."""
    for path, group in whole.merged.items():
        folder = whole.entries.get(path, ROOT_ITEM)
        found = set(parts.tree.merged_folders(folder))
        if found != group:
            raise BrokenPromiseError(f"device {number} merges {found} at {path}, not {group}")
    cuts = {bytes(folder): bytes(parent) for folder, parent in whole.cuts.items()}
    kept = dict(parts.database.execute("SELECT folder, parent FROM cuts"))
    if kept != cuts:
        raise BrokenPromiseError(f"device {number} cuts cycles at {kept}, not at {cuts}")


def _check_blocks(server: SimulatedServer) -> None:
    """The server has every block that a record with a content refers to which is not given up."""
    for namespace in server.store._namespaces.values():
        for record in namespace.records.values():
            dots = [dot for dot in record.dots if dot[1] == Register.CONTENT]
            if not any((record.actor, *dot) in namespace.dots for dot in dots):
                continue
            signed = SignedRecord.from_wire(record.wire)
            missing = [block for block in signed.record.blocks if block not in server.blobs.blocks]
            if missing:
                raise BrokenPromiseError(f"record {signed.id} refers to {missing}")
