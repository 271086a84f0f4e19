"""What the control socket's commands do: status, wait, alarms, approve, unmount.

Only reads the node's state and sets its end; shapes are those of the published interface. Made by
`node.main`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.control.messages import ControlError
from node.control.paths import item_at
from node.control.server import Handler
from node.filesystem.conflict_folder import ConflictFolder
from node.filesystem.open_files import OpenFiles
from node.net.server_client import ServerClient
from node.storage.aside import Aside
from node.storage.block_cache import BlockCache
from node.storage.deferred_records import DeferredRecords
from node.storage.held_deletions import HeldDeletions
from node.storage.journal import Journal
from node.storage.standing import Standing
from node.storage.tree import ItemRow, Tree, iterate_folder
from node.sync.approvals import Approvals
from node.sync.block_fetcher import BlockFetcher
from node.sync.block_uploader import BlockUploader
from node.sync.merger import Merger
from node.sync.publisher import Publisher
from node.sync.puller import Connection, Puller
from protocol.ids import ItemId
from protocol.values import Kind

_ALARMS_SHOWN = 16  # their evidence is two records of 1 MiB at most: an answer has 64 MiB
_LOOK_S = 0.02  # how often a wait looks whether it is over


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, for the reports."""

    device: str
    device_name: str
    account: str
    namespace: str
    mountpoint: Path


class Commands:
    """The handlers of one node.

    Concurrency: owned by the node's loop; only `wait` awaits.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        tree: Tree,
        journal: Journal,
        held: HeldDeletions,
        deferred: DeferredRecords,
        aside: Aside,
        approvals: Approvals,
        standing: Standing,
        files: OpenFiles,
        conflicts: ConflictFolder,
        cache: BlockCache,
        fetcher: BlockFetcher,
        uploader: BlockUploader,
        publisher: Publisher,
        puller: Puller,
        merger: Merger,
        client: ServerClient,
        stop: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._tree = tree
        self._journal = journal
        self._held = held
        self._deferred = deferred
        self._aside = aside
        self._approvals = approvals
        self._standing = standing
        self._files = files
        self._conflicts = conflicts
        self._cache = cache
        self._fetcher = fetcher
        self._uploader = uploader
        self._publisher = publisher
        self._puller = puller
        self._merger = merger
        self._client = client
        self._stop = stop

    def handlers(self) -> dict[str, Handler]:
        """By the command's name."""
        return {
            "status": self.status,
            "wait": self.wait,
            "alarms": self.alarms,
            "approve": self.approve,
            "unmount": self.unmount,
        }

    async def status(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The report of ``atoll status --json``."""
        await trio.lowlevel.checkpoint()
        identity = self._identity
        items, size_bytes = self._tree.totals()
        return {
            "device": {"id": identity.device, "name": identity.device_name},
            "account": identity.account,
            "mountpoint": os.fspath(identity.mountpoint),
            "synced": self._is_synced(),
            "server": {
                "url": str(self._client.address),
                "state": self._puller.connection.value,
                "cursor": self._journal.cursor[1],
            },
            "pending": self._pending(),
            "peers": [],
            "namespaces": [
                {"id": identity.namespace, "path": "/", "items": items, "bytes": size_bytes}
            ],
            "cache": {
                "bytes": self._cache.used_bytes,
                "limit": self._cache.limit_bytes,
                "pinned": 0,
            },
            "conflicts": len(self._conflicts.versions()),
            "held": self._held_report(),
            "deferred": self._deferred.count(),
            "alarms": [
                *self._held_sentences(),
                *self._deferred_sentences(),
                *self._aside_sentences(),
                *(alarm.message for alarm in self._journal.alarms()),
                *self._troubles(),
            ],
            "counters": {
                "bytes_from_server": self._fetcher.bytes_from["server"],
                "bytes_to_server": self._uploader.bytes_sent,
                "bytes_from_peers": 0,
                "bytes_to_peers": 0,
                "blocks_from_server": self._fetcher.blocks_from["server"],
                "blocks_from_peers": 0,
                "records_from_server": self._puller.records_applied,
                "records_from_peers": 0,
            },
        }

    async def alarms(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every alarm with its evidence, after that of number ``clear`` was forgotten.

        Raises:
            ControlError: there is no alarm of that number.
        """
        await trio.lowlevel.checkpoint()
        clear = arguments.get("clear")
        if clear is not None and not (isinstance(clear, int) and self._journal.clear_alarm(clear)):
            raise ControlError("not_found", f"there is no alarm {clear}; see: atoll alarms")
        return [
            {
                "id": alarm.id,
                "kind": alarm.kind,
                "message": alarm.message,
                "time": alarm.time_us / 1e6,
                "evidence": [base64.b64encode(wire).decode() for wire in alarm.evidence],
            }
            for alarm in self._journal.alarms()[-_ALARMS_SHOWN:]
        ]

    async def approve(self, arguments: Mapping[str, Any]) -> dict[str, int]:
        """Let held deletions through, or with ``reject`` put back what they took away.

        Returns:
            ``here`` and ``elsewhere``: how many items were decided about, by where they were deleted.
        """
        is_rejected = arguments.get("reject") is True
        decided = await (self._approvals.reject() if is_rejected else self._approvals.approve())
        return {"here": decided.here, "elsewhere": decided.elsewhere}

    def _held_report(self) -> dict[str, Any]:
        return {
            "here": self._held.count_local(),
            "elsewhere": [
                {"device": self._tree.device_name(device), "deletions": deletions}
                for device, deletions in self._held.by_device()
            ],
        }

    def _held_sentences(self) -> list[str]:
        report = self._held_report()
        counts = [(report["here"], "here")] if report["here"] else []
        counts += [
            (each["deletions"], f"on the device '{each['device']}'") for each in report["elsewhere"]
        ]
        return [
            f"{deletions} deletions made {place} wait for your approval: 'atoll approve' lets them "
            "through, 'atoll approve --reject' puts everything back"
            for deletions, place in counts
        ]

    def _deferred_sentences(self) -> list[str]:
        count = self._deferred.count()
        if not count:
            return []
        what = "1 change from another device waits" if count == 1 else f"{count} changes wait"
        return [f"{what} until the database that it concerns is closed here"]

    def _aside_sentences(self) -> list[str]:
        count = self._aside.count()
        if not count:
            return []
        files = "1 file" if count == 1 else f"{count} files"
        sentence = (
            f"{files} that others deleted while this device was away for long: what it had of them "
            "is kept in .atoll/aside; copy out what you need, and remove the rest there"
        )
        return [sentence]

    def _troubles(self) -> list[str]:
        errors = {"publishing": self._publisher.last_error, "merging": self._merger.last_error}
        return [f"{what}: {error}" for what, error in errors.items() if error]

    def _pending(self) -> dict[str, int]:
        open_files = sum(1 for file in self._files if file.is_dirty and not file.is_unlinked)
        records = self._journal.count_groups() + self._journal.count_outbox() + open_files
        records += len(self._held.held_groups())
        if not records:
            return {"records": 0, "blocks": 0, "bytes": 0}
        return {
            "records": records,
            "blocks": self._standing.unsent_blocks(),
            "bytes": self._standing.unsent_bytes(),
        }

    def _is_synced(self) -> bool:
        return (
            self._puller.connection is Connection.ONLINE
            and not self._pending()["records"]
            and not self._held.by_device()
            and self._journal.cursor[1] >= self._puller.announced
            and not self._merger.is_pending
        )

    async def wait(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for ``for``: local, peer, server (of ``path``, or of everything) or synced.

        Returns:
            ``done``, and ``pending`` when it is not.
        """
        target = arguments.get("for")
        path = arguments.get("path")
        timeout_s = float(arguments.get("timeout_s") or 0)
        if target not in ("local", "peer", "server", "synced"):
            raise ControlError("bad_request", "'for' is local, peer, server or synced")
        items = (
            None
            if path is None
            else self._items_below(item_at(self._tree, self._identity.mountpoint, path))
        )
        is_done = False
        with trio.move_on_after(timeout_s):
            while True:
                if target == "synced":
                    await self._puller.catch_up()
                if self._is_reached(target, items):
                    is_done = True
                    break
                if self._waits_for_approval():
                    break
                await trio.sleep(_LOOK_S)
        return {"done": is_done, "pending": None if is_done else self._what_is_pending()}

    def _waits_for_approval(self) -> bool:
        """Whether nothing is left to wait for but a decision."""
        if not self._held_sentences():
            return False
        return (
            self._puller.connection is Connection.ONLINE
            and self._pending()["records"] == len(self._held.held_groups())
            and self._journal.cursor[1] >= self._puller.announced
        )

    def _what_is_pending(self) -> Any:
        if self._waits_for_approval():
            return {"message": "; ".join(self._held_sentences()), "approval": True}
        if self._puller.connection is Connection.OFFLINE:
            reason = self._puller.last_error or "the server can not be reached"
            return {"message": f"{reason}; {self._pending()['records']} records wait here"}
        if self._merger.is_pending and not self._pending()["records"]:
            return {"message": "edits made apart are being merged"}
        return self._pending()

    def _is_reached(self, target: str, items: list[ItemId] | None) -> bool:
        if items is None or target == "synced":
            match target:
                case "local":
                    return not any(file.is_dirty for file in self._files)
                case "synced":
                    return self._is_synced()
                case _:
                    return not self._pending()["records"]
        if any(file.is_dirty for item in items for file in self._files.of_item(item)):
            return False
        return target == "local" or all(
            self._standing.durability(item) == "server" for item in items
        )

    def _items_below(self, row: ItemRow) -> list[ItemId]:
        found = [row.item]
        if row.kind is Kind.DIRECTORY:
            for _, child in iterate_folder(self._tree, row.item):
                found += self._items_below(child)
        return found

    async def unmount(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the orderly end of the node."""
        await trio.lowlevel.checkpoint()
        self._stop()
        return {}
