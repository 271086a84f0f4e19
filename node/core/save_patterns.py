"""How programs save: which names are only steps on the way to another."""

from __future__ import annotations

import re

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
