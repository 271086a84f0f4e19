"""A node's index with a great many items, written straight into its tables; and changes to them.

The rows are what the node itself would have written for files that another device made, one record
each, in folders of 100. Item ids ascend, so that a million of them are written in a minute.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.core.account_keys import DeviceKeyPair, open_epochs, open_generations
from node.core.record_sealing import Draft, OpenedWrite, seal_record
from node.core.tree_view import Version
from node.net.access_tokens import DeviceCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.storage.database import Database
from node.storage.keystore import Keystore
from protocol import codec
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.http_api import MAX_COMMIT_RECORDS
from protocol.ids import ROOT_ITEM, ActorId, BlockId, DeviceId, ItemId, LinkId, RecordId, actor_id
from protocol.logs import AccountLog, NamespaceLog, events_from_wire
from protocol.manifests import Entry, Manifest
from protocol.records import NO_RECORD, FolderChange, Register
from protocol.values import Content, ItemAttributes, Kind, Link, Placement
from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

FOLDER_FILES = 100
_WIRE_BYTES = 640  # of a record that makes a file with one block
_TIME_US = 1_780_000_000 * 10**6
_INCARNATION = b"long ago"


@dataclass(frozen=True, slots=True)
class BigFile:
    """One of the files in the index, as far as a change to it must know it."""

    item: ItemId
    link: Link


def device_keys(home: Path) -> DeviceKeyPair:
    keystore = Keystore.load(home)
    return DeviceKeyPair(
        SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
    )


def past_actor(home: Path) -> ActorId:
    """Who made what the index is filled with."""
    return actor_id(device_keys(home).id, _INCARNATION)


def item_of(number: int) -> ItemId:
    """Ids that ascend with the number and look random otherwise."""
    noise = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=11).digest()
    return ItemId(b"\x01" + (number << 8).to_bytes(5, "big")[:4] + noise)


def file_of(number: int) -> BigFile:
    """The file of that number; every 101st number is the folder of those that follow."""
    folder = number - number % (FOLDER_FILES + 1)
    link = Link(
        LinkId(b"link" + number.to_bytes(4, "big")), item_of(folder), b"file %d.txt" % number
    )
    return BigFile(item_of(number), link)


def fill_index(home: Path, author_home: Path, items: int) -> None:
    """Put so many items into the index of a node that is not running."""
    keystore = Keystore.load(home)
    database = Database(home / "index.db", derive(keystore.index_key, Label.INDEX_DATABASE))
    device, actor = device_keys(author_home).id, past_actor(author_home)
    try:
        for start in range(0, items, 20_000):
            numbers = range(start, min(start + 20_000, items))
            with database.transaction():
                for table, rows in _rows(numbers, device, actor).items():
                    marks = ",".join("?" * len(rows[0]))
                    for row in rows:
                        database.execute(f"INSERT INTO {table} VALUES ({marks})", row)
        with database.transaction():
            database.set_meta("next_inode", items + 10_000)
        database.sync()
    finally:
        database.close()


def _rows(
    numbers: Sequence[int], device: DeviceId, actor: ActorId
) -> dict[str, list[tuple[object, ...]]]:
    rows: dict[str, list[tuple[object, ...]]] = {
        name: [] for name in ("versions", "records", "items", "links", "entries")
    }
    context = codec.encode(EMPTY_CONTEXT.to_value())
    attributes = codec.encode(ItemAttributes(0o644).to_value())
    folder_content = codec.encode(Content(Kind.DIRECTORY).to_value())
    for number in numbers:
        is_folder = number % (FOLDER_FILES + 1) == 0
        item = item_of(number)
        link = file_of(number).link
        content, size = folder_content, 0
        if is_folder:
            link = Link(link.id, ROOT_ITEM, b"folder %d" % number)
        else:
            size = 5000 + number % 1000
            block = Entry(BlockId(hashlib.sha256(item).digest()), bytes(32), size)
            content = codec.encode(
                Content(Kind.FILE, size, _TIME_US * 1000, manifest=Manifest((block,))).to_value()
            )
        record = RecordId(item + item)
        values = [codec.encode(Placement((link,)).to_value()), attributes, content]
        rows["versions"] += [
            (item, register, actor, 1, context, _TIME_US, device, record, None, None, value, 0)
            for register, value in enumerate(values)
        ]
        # No place of the server's journal, which must give what it acknowledged.
        place = -1 - number
        rows["records"].append((record, actor, number + 1, place, os.urandom(_WIRE_BYTES), 0, 1))
        kind = Kind.DIRECTORY if is_folder else Kind.FILE
        rows["items"].append(_item_row(number + 2, item, kind, size, actor))
        rows["links"].append(
            (item, link.id, link.parent, link.name, _TIME_US, actor, 1, device, int(is_folder))
        )
        rows["entries"].append((link.parent, link.name, link.name, item, link.id))
    return rows


def _item_row(
    inode: int, item: ItemId, kind: Kind, size: int, actor: ActorId
) -> tuple[object, ...]:
    mtime_ns = 0 if kind is Kind.DIRECTORY else _TIME_US * 1000
    return (
        *(inode, item, int(kind), 0o644, None, None, size, mtime_ns, _TIME_US * 1000, 0, 0),
        *(actor, 1, None, None, 0, 0, None, None if kind is Kind.DIRECTORY else item + bytes(4)),
    )


class Author:
    """A device that changes the files of the index: it seals and signs, and shows nothing."""

    def __init__(self, home: Path, account: AccountLog, namespace: NamespaceLog) -> None:
        self._device = device_keys(home)
        self._account = account
        self._namespace = namespace
        generations = open_generations(account, self._device.id, self._device.box)
        epochs = open_epochs(namespace, account.id, generations)
        self._keys = epochs[max(epochs)]
        self._past = Dot(past_actor(home), 1)
        self._sequence, self._previous = 0, NO_RECORD

    def changes(self, count: int, items: int, seed: int) -> Iterator[bytes]:
        """Records: new files, edits, renames, modes and deletions, spread over all folders."""
        draw = random.Random(seed)
        numbers = draw.sample(range(items), min(items, count + count // 50))
        changed = (file_of(n) for n in numbers if n % (FOLDER_FILES + 1))
        kinds = itertools.cycle(
            ["make", "edit", "edit", "make", "rename", "edit", "mode", "make", "edit", "delete"]
        )
        for made, kind, file in zip(range(count), kinds, changed, strict=False):
            yield self._record(made, kind, file)

    def _record(self, made: int, kind: str, file: BigFile) -> bytes:
        folder = file.link.parent
        content = Content(Kind.FILE, 64, _TIME_US * 1000, inline=b"%064d" % made)
        seen = EMPTY_CONTEXT.add([self._past])
        writes: list[OpenedWrite]
        if kind == "make":
            item = ItemId(b"\x02" + hashlib.blake2b(b"%d" % made, digest_size=15).digest())
            link = Link(LinkId(b"made" + made.to_bytes(4, "big")), folder, b"new %d.txt" % made)
            writes = [
                self._write(item, Register.PLACEMENT, Placement((link,)), EMPTY_CONTEXT),
                self._write(item, Register.ATTRIBUTES, ItemAttributes(0o600), EMPTY_CONTEXT),
                self._write(item, Register.CONTENT, content, EMPTY_CONTEXT),
            ]
        elif kind == "edit":
            writes = [self._write(file.item, Register.CONTENT, content, seen)]
        elif kind == "mode":
            writes = [self._write(file.item, Register.ATTRIBUTES, ItemAttributes(0o755), seen)]
        elif kind == "rename":
            link = Link(file.link.id, folder, b"renamed " + file.link.name)
            writes = [
                self._write(file.item, Register.PLACEMENT, Placement((link,), (file.link,)), seen)
            ]
        else:
            gone = Placement((), (file.link,), seen)
            writes = [self._write(file.item, Register.PLACEMENT, gone, seen)]
        has_entries = kind in ("make", "rename", "delete")
        return self._sign(writes, [folder] if has_entries else [])

    def _write(
        self, item: ItemId, register: Register, value: object, context: Context
    ) -> OpenedWrite:
        dot = Dot(actor_id(self._device.id, bytes(8)), 1)
        return OpenedWrite(item, register, Version(dot, _TIME_US, self._device.id, context, value))

    def _sign(self, writes: Sequence[OpenedWrite], folders: Sequence[ItemId]) -> bytes:
        self._sequence += 1
        time_us = _TIME_US + self._sequence
        draft = Draft(
            namespace=self._namespace.id,
            device=self._device.id,
            incarnation=bytes(8),
            sequence=self._sequence,
            previous=self._previous,
            hybrid_time_us=time_us,
            account_head=self._account.head,
            namespace_head=self._namespace.head,
            folders=tuple(FolderChange(folder, time_us) for folder in folders),
            writes=writes,
        )
        signed = seal_record(draft, self._keys, self._device.signing)
        self._previous = signed.id
        return signed.to_wire()


async def commit_changes(home: Path, count: int, items: int) -> None:
    """Let the device of ``home`` commit so many changes to the server."""
    keystore, device = Keystore.load(home), device_keys(home)
    assert keystore.account is not None
    assert keystore.namespace is not None
    credentials = DeviceCredentials(device.id, device.signing)
    async with ServerClient(ServerAddress.parse(keystore.server), credentials) as client:
        account = AccountLog.from_events(
            events_from_wire(await client.whole_account_log(keystore.account))
        )
        namespace = NamespaceLog.from_events(
            events_from_wire(await client.whole_namespace_log(keystore.namespace)),
            lambda _: account,
        )
        changes = Author(home, account, namespace).changes(count, items, seed=1)
        while batch := list(itertools.islice(changes, MAX_COMMIT_RECORDS)):
            answer = await client.commit(keystore.namespace, batch)
            refused = [result.error for result in answer.results if result.error is not None]
            assert not refused, refused[0]
