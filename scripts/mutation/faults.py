"""The faults: each a small mistake of the kind that loses, duplicates or mixes files.

A fault replaces one place of one file. The tests named beside it are those that must fail with it,
and pass without it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake.

    Attributes:
        old: stands in the file exactly once.
        tests: arguments for pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_LATTICE = ("tests/protocol/test_lattice.py", "tests/protocol/test_version_vector.py")
_VIEW = ("tests/node/core/test_tree_view.py", "tests/node/storage/test_tree_law.py")
_TREE = ("tests/node/storage/test_tree.py", "tests/node/storage/test_tree_law.py")
_REGISTERS = ("tests/node/storage/test_registers.py", "tests/node/storage/test_waiting_writes.py")
_MERGE = ("tests/node/core/test_text_merge.py", "tests/node/core/test_content_merge.py")
_MERGER = ("tests/node/sync/test_merger.py", "tests/node/test_drive_conflicts.py")
_INTAKE = ("tests/node/sync/test_record_intake.py", "tests/node/core/test_author_heads.py")
_SAVES = ("tests/node/filesystem/test_saves.py",)
_GUARD = ("tests/node/core/test_deletion_guard.py",)
_SERVER = ("tests/server/stores", "tests/scenarios/test_10_server.py", "-k", "not backup")
_BURIALS = ("tests/scenarios/test_12_long_gone.py",)
_WORLDS = ("tests/simulation/test_simulation.py",)

FAULTS = (
    Fault(
        "lattice: a covered write comes back",
        "protocol/lattice.py",
        "        if not covered.covers(dot):\n            live.setdefault(dot, value)",
        "        live.setdefault(dot, value)",
        _LATTICE,
    ),
    Fault(
        "lattice: a write buries siblings that it has not seen",
        "protocol/lattice.py",
        "                if context.covers(known):\n                    del live[known]",
        "                del live[known]",
        _LATTICE,
    ),
    Fault(
        "lattice: merging drops the other's siblings",
        "protocol/lattice.py",
        "both = {**other.live, **self.live}",
        "both = dict(self.live)",
        _LATTICE,
    ),
    Fault(
        "lattice: merging forgets what the other had covered",
        "protocol/lattice.py",
        "covered = self.covered.join(other.covered)",
        "covered = self.covered",
        _LATTICE,
    ),
    Fault(
        "contexts: the last dot of an actor is not covered",
        "protocol/version_vector.py",
        "return dot.n <= self.vector.get(dot.actor, 0) and dot not in self.exceptions",
        "return dot.n < self.vector.get(dot.actor, 0) and dot not in self.exceptions",
        _LATTICE,
    ),
    Fault(
        "contexts: exceptions are forgotten",
        "protocol/version_vector.py",
        "return dot.n <= self.vector.get(dot.actor, 0) and dot not in self.exceptions",
        "return dot.n <= self.vector.get(dot.actor, 0)",
        _LATTICE,
    ),
    Fault(
        "view: the earlier content keeps the name",
        "node/core/tree_view.py",
        "for version in sorted(versions, key=lambda version: version.rank, reverse=True):\n"
        "        if not any(",
        "for version in sorted(versions, key=lambda version: version.rank):\n        if not any(",
        _VIEW,
    ),
    Fault(
        "view: a file is not brought back by content that its deleter had not seen",
        "node/core/tree_view.py",
        "    return any(not _was_seen(version, seen) for version in contents)",
        "    return False",
        (*_VIEW, "tests/node/storage/test_tree.py"),
    ),
    Fault(
        "view: a merge brings back what was deleted by somebody who knew all of it",
        "node/core/tree_view.py",
        "return version.automatic and seen.contains(version.context)",
        "return False",
        _VIEW,
    ),
    Fault(
        "view: a sibling that only repeats a place outdoes a move",
        "node/core/tree_view.py",
        "            for placed in _placed(version, version.value.links):\n"
        "                if (placed.link in left) is is_left:",
        "            for placed in _placed(version, version.value.links):\n"
        "                if not is_left:",
        _TREE,
    ),
    Fault(
        "view: of a cycle the folder gives way that was moved first",
        "node/core/tree_view.py",
        "latest, present = max(cycle, key=",
        "latest, present = min(cycle, key=",
        _VIEW,
    ),
    Fault(
        "index: deleted folders that hang in each other keep each other alive",
        "node/storage/hanging.py",
        "                if self._view(ItemId(child)).links:\n                    return True",
        "                return True",
        _TREE,
    ),
    Fault(
        "index: a content that was covered is not kept for merges",
        "node/storage/registers.py",
        "if record is not None and register is Register.CONTENT:",
        "if record is None and register is Register.CONTENT:",
        _REGISTERS,
    ),
    Fault(
        "index: a write forgets the base that it was made over",
        "node/storage/registers.py",
        "seen = seen.join(base.context.add([base.dot]))",
        "seen = seen.join(base.context)",
        _REGISTERS,
    ),
    Fault(
        "index: writes of a former run keep dots that may be in use elsewhere",
        "node/storage/registers.py",
        '"WHERE pending IS NOT NULL AND actor <> ?"',
        '"WHERE pending IS NULL AND actor <> ?"',
        _REGISTERS,
    ),
    Fault(
        "merge: of two changes to one line ours is taken",
        "node/core/text_merge.py",
        "            if one != other and old not in (one, other):\n                return None",
        "            if one != other and old not in (one, other):\n                other = one",
        _MERGE,
    ),
    Fault(
        "merge: an insertion at the edge of a change is taken for part of it",
        "node/core/text_merge.py",
        "if not all(edit.is_line_for_line for edit in (*self.ours, *self.theirs)):\n"
        "            return None",
        "if not all(edit.is_line_for_line for edit in (*self.ours, *self.theirs)):\n"
        "            return ours",
        _MERGE,
    ),
    Fault(
        "merge: a base that only one side was written over",
        "node/core/content_merge.py",
        "if one.context.covers(version.dot) and other.context.covers(version.dot)",
        "if one.context.covers(version.dot) or other.context.covers(version.dot)",
        (*_MERGE, *_MERGER),
    ),
    Fault(
        "merge: the oldest common version as the base",
        "node/core/content_merge.py",
        "    newest = [version for version in common if not seen.covers(version.dot)]",
        "    newest = [version for version in common if seen.covers(version.dot)] or common",
        (*_MERGE, *_MERGER),
    ),
    Fault(
        "intake: two records under one number",
        "node/core/author_heads.py",
        "return Verdict.AGAIN if same.record == link.record else Verdict.FORK",
        "return Verdict.AGAIN",
        _INTAKE,
    ),
    Fault(
        "intake: a record of a device after its revocation takes effect",
        "protocol/record_validity.py",
        "            return record.sequence < cut.sequence or (",
        "            return record.sequence > 0 or (",
        ("tests/protocol/test_record_validity.py",),
    ),
    Fault(
        "saves: the moved file keeps its own identity instead of the name's",
        "node/core/save_patterns.py",
        "        is_fresh(newcomer)\n        and former.kind",
        "        False\n        and former.kind",
        (*_SAVES, "tests/node/core/test_save_patterns.py"),
    ),
    Fault(
        "saves: a hard-linked file is written by a save under one of its names",
        "node/core/save_patterns.py",
        "        and not former.lasting\n",
        "",
        (*_SAVES, "tests/node/core/test_save_patterns.py"),
    ),
    Fault(
        "drive: a change from elsewhere shows in a file that is open",
        "node/drive.py",
        "        if row.inode not in self._lookups and file is None:\n            return []\n        version",
        "        if file is None or file is not None:\n            return []\n        version",
        ("tests/node/test_drive_conflicts.py", "tests/scenarios/test_09_readers.py"),
    ),
    Fault(
        "guard: it asks only when everything is gone",
        "node/core/deletion_guard.py",
        "together > limits.share * (window.shown + window.gone)",
        "together > window.shown + window.gone",
        _GUARD,
    ),
    Fault(
        "publisher: records go before their blocks",
        "node/sync/publisher.py",
        "            await self._uploader.upload(self._namespace, blocks)",
        "            pass",
        ("tests/system/test_two_devices.py", "-k", "travel"),
    ),
    Fault(
        "publisher: bytes that a program synced are given up before the disk has them",
        "node/sync/publisher.py",
        "            if was_synced:\n                await self._make_durable()",
        "            if was_synced:\n                pass",
        _WORLDS,
    ),
    Fault(
        "drive: fsync returns before the index is on the disk",
        "node/drive.py",
        "        await self._files.sync(file)\n        await self._run_sync(self._sync_disk)",
        "        await self._files.sync(file)",
        _WORLDS,
    ),
    Fault(
        "puller: the cursor passes a record that was not taken in",
        "node/sync/record_intake.py",
        "self._journal.set_cursor(journal_epoch, received[count - 1].position)",
        "self._journal.set_cursor(journal_epoch, received[-1].position)",
        _INTAKE,
    ),
    Fault(
        "intake: what was written to a buried item comes back",
        "node/sync/record_intake.py",
        "        writes = [write for write in writes if not self._tree.burials.holds(write.item)]\n",
        "",
        _BURIALS,
    ),
    Fault(
        "burying: what only a late device has goes without being kept",
        "node/sync/burying.py",
        "                    self._aside.add(item, each.path, each.version, each.blocks)",
        "                    pass",
        _BURIALS,
    ),
    Fault(
        "view: what hangs in a buried folder is not shown",
        "node/core/tree_view.py",
        "        if is_buried(placed.link.parent):",
        "        if False:",
        _TREE,
    ),
    Fault(
        "server: records of items that were not buried go",
        "server/stores/sqlite_burials.py",
        "    if is_needed is not None:\n        return\n",
        "",
        _SERVER,
    ),
    Fault(
        "server: a lease does not keep a block",
        "server/stores/sqlite_collection.py",
        '"(held.lease_until_s >= :now_s"',
        '"(held.lease_until_s < 0"',
        _SERVER,
    ),
    Fault(
        "server: a page's children go while it is held",
        "server/stores/sqlite_collection.py",
        "WHERE page.namespace = held.namespace AND page.child = held.block)",
        "WHERE page.namespace = held.namespace AND page.child = held.block AND 0)",
        _SERVER,
    ),
    Fault(
        "server: another record under a used number enters",
        "server/stores/sqlite_journal.py",
        "        if same[0] == record.id:\n            return CommitOutcome(CommitKind.STORED, position=same[1])\n"
        "        return CommitOutcome(CommitKind.FORK, evidence=same[2])",
        "        return CommitOutcome(CommitKind.STORED, position=same[1])",
        _SERVER,
    ),
)
