"""How programs save: which names are only steps on the way, and whose identity a name has after it.

Pure. Called by `node.filesystem.saves`, which carries out what is decided here, and by the open
files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protocol.values import Kind

RECENT_NS = 10 * 10**9  # programs write a new version, sync it and rename it within this
DANCE_NS = 2 * 10**9  # a name remembers who left it for as long as a change may wait to be sealed

_TEMPORARY = re.compile(
    rb"""
      .*~                              # emacs, gedit and vim backups
    | \#.*\#                           # emacs auto-save
    | \.\#.*                           # emacs locks
    | \.~lock\..*\#                    # LibreOffice locks
    | \..*\.sw[a-px]x?                 # vim swap files, and its probes for them
    | 4913                             # vim probes whether it may create files
    | \.goutputstream-\w+              # GLib
    | .*\.(?:tmp|temp|part|crdownload) # browsers and many others
    | \..*\.\w{6}                      # rsync: .NAME.abcdef
    | sed\w{6}                         # sed -i
    | tmp_(?:obj|pack|idx|rev)_\w+     # git object files
    | .*\.lock                         # git refs and index
    """,
    re.VERBOSE | re.DOTALL,
)


def is_temporary_name(name: bytes) -> bool:
    """Whether a file of this name is most likely renamed or deleted at once.

    A guess that costs nothing when wrong: such a file is published after the settle time instead
    of at once.
    """
    return _TEMPORARY.fullmatch(name) is not None


def is_backup_name(name: bytes, backup: bytes) -> bool:
    """Whether who moves ``name`` to ``backup`` puts the former version aside to write a new one.

    A guess as well: if it is wrong, the file that stays in the place has the history, and the one
    that was moved starts with what it holds.
    """
    if backup == name:
        return False
    stem = name.rpartition(b".")[0] or name
    return is_temporary_name(backup) or name in backup or backup in (stem + b".bak", stem + b".old")


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A file that comes to a name.

    Attributes:
        name: the one that it comes from.
        links: how many names it has.
        is_own: this run of this device made it, and nobody else has written to it.
        age_ns: since it was made here; None when that was not in this run, or is long ago.
    """

    kind: Kind
    name: bytes
    links: int
    is_own: bool
    age_ns: int | None


@dataclass(frozen=True, slots=True)
class Former:
    """The file that has the name, or had it until a moment ago.

    Attributes:
        steps: names that it was given or moved to just now, by the same save.
        lasting: further names that it has: hard links.
    """

    kind: Kind
    steps: int
    lasting: int


def is_fresh(newcomer: Newcomer) -> bool:
    """Whether a file is a new version of something, and nothing with a past of its own."""
    if newcomer.kind not in (Kind.FILE, Kind.SYMLINK) or newcomer.links != 1:
        return False
    is_recent = newcomer.age_ns is not None and newcomer.age_ns <= RECENT_NS
    return newcomer.is_own and (is_recent or is_temporary_name(newcomer.name))


def keeps_item(newcomer: Newcomer, former: Former) -> bool:
    """Whether a name keeps its item, which takes over what the newcomer holds.

    Otherwise the newcomer keeps its own identity under the name. What is shown is the same.
    """
    return (
        is_fresh(newcomer)
        and former.kind is newcomer.kind
        and not former.lasting
        and former.steps <= 1
    )
