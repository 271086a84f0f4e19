"""What belongs to one SQLite database: its file, its journal or log, and what is shared beside it.

The files are one thing: a database with another moment's log is damaged. Pure; names and header are
those of "Database File Format" and "Temporary Files Used By SQLite" (sqlite.org). Called by
`node.filesystem.database_families`.
"""

from __future__ import annotations

HEADER = b"SQLite format 3\0"
"""The first 16 bytes of every database that is not empty."""

_COMPANIONS = (b"-journal", b"-wal", b"-shm")


def database_name(name: bytes) -> bytes:
    """The name of the database to which a file belongs if it is one of a database at all."""
    for suffix in _COMPANIONS:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def family_names(database: bytes) -> tuple[bytes, ...]:
    """The names of all files that a database may have, its own first."""
    return (database, *(database + suffix for suffix in _COMPANIONS))
