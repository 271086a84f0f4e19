"""Every bound on what may cross the wire: value, unit, reason.

Whoever parses refuses what is above; whoever builds never exceeds it.
"""

from typing import Final

FORMAT_VERSION: Final = 1
"""Version of records, log events, blocks and manifests written by this release."""

MAX_DEPTH: Final = 16
"""Nesting of canonical msgpack. A record needs 5; the rest is room for later formats."""

MAX_NAME_BYTES: Final = 255
"""One path component, as in ext4 and NAME_MAX."""

MAX_SYMLINK_BYTES: Final = 4095
"""PATH_MAX less its terminating zero."""

MAX_LINKS: Final = 1024
"""Hard links of one item; each is carried by every placement record of it."""

MAX_FORMER_LINKS: Final = 8
"""Former links kept in a placement. Enough for a chain of moves made apart to find a place."""

MAX_XATTR_NAME_BYTES: Final = 255
"""As in Linux (XATTR_NAME_MAX)."""

MAX_XATTRS_BYTES: Final = 64 * 1024
"""Names and values of one item in all; Linux allows 64 KiB for one value, ext4 4 KiB in all."""

INLINE_BYTES: Final = 4096
"""Contents up to this size travel in the record itself: one block less to store and to ask for.
Every device holds all records, so this bounds what a small file costs on each of them."""

MAX_RECORD_WRITES: Final = 4096
"""Registers written by one record; a rename that also publishes shown names needs a few."""

MAX_RECORD_FOLDERS: Final = 4096
"""Folders whose entries one record changed."""

MAX_RECORD_BLOCKS: Final = 4096
"""Block ids listed by one record. Longer contents are listed by the root page of the manifest."""

MAX_RECORD_BYTES: Final = 1024 * 1024
"""A signed record as it travels; a folder rename has some 400 bytes, an inline file some 5,000."""

MAX_CONTEXT_ACTORS: Final = 4096
"""Actors in the context of one write."""

MAX_CONTEXT_EXCEPTIONS: Final = 4096
"""Dots below the vector that one context excepts."""

MAX_EVENT_BYTES: Final = 256 * 1024
"""A signed event of an account or namespace log: wraps for some 1,500 members."""

MAX_LOG_EVENTS: Final = 100_000
"""Events of one log that a reader accepts."""

MAX_COUNTER: Final = 2**63 - 1
"""Largest integer in any format, so that SQLite and every language can hold it."""

MAX_TIME_US: Final = MAX_COUNTER // 1000
"""Latest hybrid time, microseconds since 1970: in the year 2262, so that the same time in nanoseconds
is within MAX_COUNTER."""

MAX_FILE_BYTES: Final = 2**62
"""Largest file. Sums of sizes stay within MAX_COUNTER."""

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
"""One length-prefixed frame: a block of 4 MiB and its envelope, with room."""

MAX_HANDSHAKE_FRAME_BYTES: Final = 4096
"""A frame from a peer that has proved nothing yet: 64 proofs of 32 bytes and the rest."""

MAX_PEER_FRAME_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024
"""A frame from a peer that is known: one record of the largest size, or many small ones."""

MAX_PEER_PROOFS: Final = 64
"""LAN keys that one side of a session proves: namespaces, and their epochs of the last days."""

MAX_PEER_LOGS: Final = 4096
"""Logs, and namespaces, that two peers can have in common."""

MAX_PEER_REQUESTS: Final = 64
"""Blocks that one peer may have asked another for and not got yet: 64 MiB of mean size are enough
to fill a link of 10 Gbit/s for 50 ms."""

PIECE_BYTES: Final = 256 * 1024
"""A block crosses in pieces of at most so much, so that a record never waits behind a whole one: 20 ms
at 100 Mbit/s."""

MAX_PEER_WRITES: Final = 8192
"""Live writes in one list of an exchange, some 80 bytes each."""

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""One HTTP request or response body that is not a block."""

CLOCK_LEAD_US: Final = 24 * 3600 * 1_000_000
"""A record from further ahead than this does not move the local clock (microseconds)."""
