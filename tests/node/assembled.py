"""Whole nodes in one process, without a mount, over a real server: started, copied, cut off.

Programs are calls of the drive by path. A node that is cut off seals what it writes and can send
nothing. Homes are copied as backups are: the directory of a node that ended, or that runs.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from node.assembly import Assembly, Surroundings
from node.core.account_keys import DeviceKeyPair
from node.errors import ServerError
from node.net.access_tokens import DeviceCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.settings import NodeSettings
from node.storage.keystore import Keystore
from node.storage.state_directory import StateDirectory
from node.storage.tree import ROOT_INODE, iterate_folder
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.ids import INCARNATION_BYTES, ROOT_ITEM, ItemId
from protocol.values import Kind

DEADLINE_S = 20.0


class CutOffClient:
    """A server's client that may have no network."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self.is_cut_off = False

    def __getattr__(self, name: str) -> Any:
        if self.is_cut_off:
            raise ServerError("unreachable", "there is no network", is_transient=True)
        return getattr(self._client, name)


class AssembledNode:
    """One run of a node."""

    def __init__(self, parts: Assembly, client: CutOffClient) -> None:
        self.parts = parts
        self._client = client

    def cut_off(self) -> None:
        """No request leaves from now on; use it before anything was asked."""
        self._client.is_cut_off = True

    def reconnect(self) -> None:
        self._client.is_cut_off = False

    # Programs

    def _inode(self, path: str) -> int:
        inode = ROOT_INODE
        for name in filter(None, path.split("/")):
            inode = self.parts.drive.lookup(inode, name.encode()).inode
        return inode

    def _place(self, path: str) -> tuple[int, bytes]:
        parent, _, name = path.rpartition("/")
        return self._inode(parent), name.encode()

    async def write(self, path: str, data: bytes) -> None:
        """As ``printf ... > path``."""
        drive = self.parts.drive
        parent, name = self._place(path)
        if path in self.tree():
            inode = self._inode(path)
            handle = await drive.open_file(inode, writable=True, truncate=True)
        else:
            handle, _ = drive.create_file(parent, name, 0o600, os.getuid(), os.getgid())
        await drive.write(handle, 0, data)
        await drive.flush(handle)
        await drive.release(handle)

    def remove(self, path: str) -> None:
        self.parts.drive.unlink(*self._place(path))

    def tree(self) -> dict[str, bytes]:
        """The bytes of every short file by its path."""
        return dict(self._below(ROOT_ITEM, ""))

    def _below(self, folder: ItemId, prefix: str) -> Any:
        for name, row in iterate_folder(self.parts.tree, folder):
            path = prefix + name.decode()
            if row.kind is Kind.DIRECTORY:
                yield from self._below(row.item, path + "/")
            else:
                version = self.parts.registers.content(row.item, row.content)
                yield path, b"" if version is None else version.value.inline

    def versions(self, path: str) -> set[bytes]:
        """The bytes of all versions of a file that are side by side."""
        row = self.parts.tree.item_of_inode(self._inode(path))
        assert row is not None
        return {version.value.inline for version in self.parts.registers.contents(row.item)}

    # What it says

    @property
    def alarm_kinds(self) -> set[str]:
        return {alarm.kind for alarm in self.parts.journal.alarms()}

    async def alarmed(self, kind: str) -> None:
        """An alarm of a kind was raised."""
        await until(lambda: kind in self.alarm_kinds)

    @property
    def has_sent_all(self) -> bool:
        journal = self.parts.journal
        return not journal.count_groups() + journal.count_outbox()

    async def settled(self) -> None:
        """Everything that was written is in records of this node."""
        await until(lambda: not self.parts.journal.count_groups())

    async def synced(self) -> None:
        """Everything of this node is at the server, and everything of the server here."""
        await until(lambda: self.has_sent_all)
        with trio.fail_after(DEADLINE_S):
            await self.parts.puller.catch_up()
        await until(lambda: not self.parts.journal.is_to_be_read_again)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that is to come about."""
    with trio.fail_after(DEADLINE_S):
        while not is_so():
            await trio.sleep(0.01)


def client_of(home: Path) -> ServerClient:
    keystore = Keystore.load(home)
    device = DeviceKeyPair(
        SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
    )
    return ServerClient(
        ServerAddress.parse(keystore.server), DeviceCredentials(device.id, device.signing)
    )


@asynccontextmanager
async def running(
    home: Path,
    *,
    is_cut_off: bool = False,
    incarnation: bytes | None = None,
    tombstone_days: float = 180,
) -> AsyncIterator[AssembledNode]:
    """A node that runs.

    Args:
        incarnation: of its run, where two nodes are to continue one: a resumed snapshot.
    """

    def token_bytes(size: int) -> bytes:
        nonlocal incarnation
        if incarnation is not None and size == INCARNATION_BYTES:
            drawn, incarnation = incarnation, None
            return drawn
        return os.urandom(size)

    settings = NodeSettings(
        home=home,
        mountpoint=home.with_name(home.name + "-mount"),
        tombstone_days=tombstone_days,
    )
    surroundings = Surroundings(time.time_ns, token_bytes, random.random, trio.to_thread.run_sync)
    with ExitStack() as stack:
        state = stack.enter_context(StateDirectory.open(home))
        async with client_of(home) as client:
            gate = CutOffClient(client)
            gate.is_cut_off = is_cut_off
            parts = Assembly(settings, state, Keystore.load(home), surroundings, gate)
            stack.callback(parts.close)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parts.run_drive)
                nursery.start_soon(parts.run_sync)
                yield AssembledNode(parts, gate)
                nursery.cancel_scope.cancel()


def copy_home(source: Path, target: Path) -> None:
    """As a backup tool copies the state directory of a node that does not run."""
    shutil.copytree(source, target)
