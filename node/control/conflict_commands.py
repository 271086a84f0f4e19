"""The control commands ``conflicts`` and ``resolve``: what is in conflict, and how a user settles it.

Owns what each choice means and the words for what is wrong with one. The drive writes the
settlement. Made by the node's assembly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from node.control.messages import ControlError
from node.control.paths import item_at
from node.control.server import Handler
from node.core.content_merge import Settlement, Side
from node.core.staged_content import StagedContent
from node.core.tree_view import Version
from node.drive import Drive
from node.filesystem.conflict_folder import ConflictFolder, ConflictVersion
from node.storage.registers import Registers
from node.storage.tree import ItemRow, Tree
from node.sync.merger import Merger
from node.sync.sibling_merge import SiblingMerge
from protocol.ids import DeviceId
from protocol.values import Content, Kind
from protocol.version_vector import EMPTY_CONTEXT

_SEALING_S = 20.0  # until a version that was just written is sealed, so that others can have it
_LOOK_S = 0.05
_LISTED_VERSIONS = 12


class ConflictCommands:
    """The handlers of one node.

    Concurrency: owned by the node's loop. `resolve` looks at the versions and settles them without
    awaiting in between, unless it has to read them; then it looks again.
    """

    def __init__(
        self,
        *,
        mountpoint: Path,
        device: DeviceId,
        tree: Tree,
        registers: Registers,
        conflicts: ConflictFolder,
        drive: Drive,
        merging: SiblingMerge,
        merger: Merger,
    ) -> None:
        self._mountpoint = mountpoint
        self._device = device
        self._tree = tree
        self._registers = registers
        self._conflicts = conflicts
        self._drive = drive
        self._merging = merging
        self._merger = merger

    def handlers(self) -> dict[str, Handler]:
        """By the command's name."""
        return {"conflicts": self.list_conflicts, "resolve": self.resolve}

    async def list_conflicts(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every conflict version of a file that is shown."""
        await trio.lowlevel.checkpoint()
        root = os.fsencode(self._mountpoint)
        return [
            {
                "path": os.fsdecode(root + b"/" + conflict.path),
                "item": str(conflict.row.item),
                "version": os.fsdecode(conflict.name),
                "device": conflict.device_name,
                "time": conflict.version.time_us / 1e6,
                "size": conflict.version.value.size,
                "readable_at": os.fsdecode(
                    b"/".join((root, b".atoll/conflicts", conflict.path, conflict.name))
                ),
                "reason": self._merger.reason(conflict.row.item),
            }
            for conflict in self._conflicts.versions()
        ]

    async def resolve(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Settle the conflict of ``path`` by ``keep``; the result survives the loss of power.

        Returns:
            ``path``, ``kept`` (a version, or "merge"), ``beside`` (paths of files made of others).

        Raises:
            ControlError: ``bad_request``, ``not_found``, ``no_conflict``, ``ambiguous``,
                ``no_version``, ``not_mergeable``, ``busy``; each with what to do.
        """
        path, keep = arguments.get("path"), arguments.get("keep")
        if not isinstance(path, bytes) or not isinstance(keep, str) or not keep:
            raise ControlError("bad_request", "resolve takes 'path' and 'keep'")
        row = self._file_at(path)
        await self._wait_sealed(row, path)
        choice = _Choice(
            os.fsdecode(path),
            self._device,
            tuple(self._registers.contents(row.item)),
            self._conflicts.versions_of(row),
        )
        match keep:
            case "merge":
                return choice.report("merge", await self._merge(row, choice))
            case "both":
                kept, beside = choice.versions[0], choice.versions[1:]
            case "mine":
                kept, beside = choice.mine(), ()
            case "theirs":
                kept, beside = choice.theirs(), ()
            case _:
                kept, beside = choice.named(keep), ()
        content = replace(kept.version.value, origin=None)
        versions = tuple(each.version for each in beside)
        made = await self._settle(row, Settlement(choice.siblings, content, versions))
        return choice.report(os.fsdecode(kept.name), made)

    def _file_at(self, path: bytes) -> ItemRow:
        if path.startswith(os.fsencode(self._mountpoint) + b"/.atoll/"):
            raise ControlError(
                "bad_request",
                f"{os.fsdecode(path)} is a conflict version; name the file that it belongs to",
            )
        row = item_at(self._tree, self._mountpoint, path)
        if row.kind is Kind.DIRECTORY or len(self._conflicts.versions_of(row)) < 2:
            raise ControlError(
                "no_conflict",
                f"there is no conflict at {os.fsdecode(path)}; `atoll conflicts` lists what there is",
            )
        return row

    async def _wait_sealed(self, row: ItemRow, path: bytes) -> None:
        """A version that was just written may be copied once its bytes are in blocks."""
        with trio.move_on_after(_SEALING_S):
            while any(
                isinstance(version.value, StagedContent)
                for version in self._registers.contents(row.item)
            ):
                self._drive.publish_soon(row.item)
                await trio.sleep(_LOOK_S)
            return
        raise ControlError(
            "busy", f"{os.fsdecode(path)} was just written and is still being sealed; try again"
        )

    async def _merge(self, row: ItemRow, choice: _Choice) -> list[str]:
        """Merge; where both sides changed the same, with both texts between marks."""
        siblings = choice.siblings
        history = self._registers.history(row.item)
        side = (await self._merging.join(siblings, history)).side
        if side is None or len(side.versions) < len(siblings):
            marked = await self._merging.marked(siblings, history, choice.label)
            if isinstance(marked, str):
                raise ControlError(
                    "not_mergeable",
                    f"{choice.path} can not be merged: {marked}; keep {choice.listed}",
                )
            side = Side(siblings, EMPTY_CONTEXT, None, marked)
        dots = {version.dot for version in self._registers.contents(row.item)}
        if dots != {version.dot for version in siblings}:
            raise ControlError("busy", f"{choice.path} was changed meanwhile; try again")
        content = side.published(is_automatic=False)
        if content is None:
            assert side.data is not None
            content = self._drive.stage(row.item, side.data, side.mtime_ns)
        return await self._settle(row, Settlement(siblings, content))

    async def _settle(self, row: ItemRow, settlement: Settlement) -> list[str]:
        """Carry it out; the paths of the files that were made beside."""
        stale, made = self._drive.settle(row.item, settlement)
        paths = [self._tree.path(item) for item in made]
        await self._drive.announce(stale)
        await self._drive.sync_content(settlement.content)
        root = os.fsencode(self._mountpoint)
        return [os.fsdecode(root + b"/" + path) for path in paths if path is not None]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What there is to choose from.

    Attributes:
        siblings: all live versions; some may have the same bytes.
        versions: those with different bytes, the shown one first.
    """

    path: str
    device: DeviceId
    siblings: tuple[Version[Content], ...]
    versions: tuple[ConflictVersion, ...]

    def mine(self) -> ConflictVersion:
        """The version that this device wrote."""
        return self._only_one("by this device", lambda device: device == self.device)

    def theirs(self) -> ConflictVersion:
        """The version that another device wrote."""
        return self._only_one("by other devices", lambda device: device != self.device)

    def _only_one(self, whose: str, is_meant: Callable[[DeviceId], bool]) -> ConflictVersion:
        found = [
            each
            for each in self.versions
            if any(
                is_meant(sibling.device) and sibling.value.has_same_bytes(each.version.value)
                for sibling in self.siblings
            )
        ]
        if len(found) == 1:
            return found[0]
        many = f"{len(found)} versions" if found else "no version"
        raise ControlError(
            "ambiguous" if found else "no_version",
            f"{self.path} has {many} {whose}; keep {self.listed}",
        )

    def named(self, name: str) -> ConflictVersion:
        """The version of that name."""
        for each in self.versions:
            if os.fsdecode(each.name) == name:
                return each
        raise ControlError("no_version", f"{self.path} has no version {name}; keep {self.listed}")

    def label(self, version: Version[Content]) -> str:
        """What a version is called."""
        return next(
            os.fsdecode(each.name)
            for each in self.versions
            if each.version.value.has_same_bytes(version.value)
        )

    @property
    def listed(self) -> str:
        """The versions there are, to be named in a sentence."""
        names = [os.fsdecode(each.name) for each in self.versions[:_LISTED_VERSIONS]]
        names[0] += " (shown)"
        if len(self.versions) > len(names):
            names.append("another one that `atoll conflicts` lists")
        return f"{', '.join(names[:-1])} or {names[-1]}"

    def report(self, kept: str, beside: Sequence[str]) -> dict[str, Any]:
        """The answer of the command."""
        return {"path": self.path, "kept": kept, "beside": list(beside)}
