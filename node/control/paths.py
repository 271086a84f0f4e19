"""From a path that a user typed to an item of the drive. Called by the control commands."""

from __future__ import annotations

import os
from pathlib import Path

from node.control.messages import ControlError
from node.storage.tree import ItemRow, Tree
from protocol.ids import ROOT_ITEM


def item_at(tree: Tree, mountpoint: Path, path: bytes) -> ItemRow:
    """The item that an absolute path names.

    Raises:
        ControlError: ``bad_request`` when it is outside the drive, ``not_found`` when nothing is
            there.
    """
    root = os.fsencode(mountpoint)
    if path != root and not path.startswith(root + b"/"):
        raise ControlError(
            "bad_request", f"{os.fsdecode(path)} is not in the drive at {os.fsdecode(root)}"
        )
    row = tree.item(ROOT_ITEM)
    for name in path[len(root) :].split(b"/"):
        if name and row is not None:
            row = tree.lookup(row.item, name)
    if row is None:
        raise ControlError("not_found", f"there is no {os.fsdecode(path)}")
    return row
