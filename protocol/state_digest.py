"""Digests by which two devices compare what they know of a namespace, kept as it changes.

Every live write of every register is an element of a set; the set is split by the first bytes of the
items' ids into buckets, and each bucket, each group of buckets and the whole has a digest that an
element is added to and taken from in one step. Equal digests mean equal sets, so that two devices
that know the same learn it from one message, and others find what differs by going down.

What was covered is not an element: the context of a live write covers all that its writer had
seen, so devices with the same live writes have the same covered dots. The layout stands in
docs/formats.md. Called by `protocol.state_exchange` and by whoever keeps a state.

Source: incremental set hashing by addition, Bellare and Micciancio (1997); going down by prefixes,
Meyer, "Range-based set reconciliation" (2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.ids import ItemId, RecordId
from protocol.records import Register
from protocol.version_vector import Dot

DIGEST_BYTES: Final = 32

PREFIX_BYTES: Final = 2
"""The longest prefix that has a digest: 65,536 buckets, some fifteen items each of a million."""

_MODULUS: Final = 1 << (8 * DIGEST_BYTES)


@dataclass(frozen=True, slots=True, order=True)
class LiveWrite:
    """One live write of a register, and the record that carries it."""

    item: ItemId
    register: Register
    dot: Dot
    record: RecordId

    def element(self) -> int:
        """What it adds to the digests of its buckets."""
        place = b"".join(
            (
                self.item,
                bytes([self.register]),
                self.dot.actor,
                self.dot.n.to_bytes(8, "big"),
                self.record,
            )
        )
        digest = hashlib.blake2b(place, digest_size=DIGEST_BYTES, person=b"atoll-state-v1")
        return int.from_bytes(digest.digest(), "big")


class StateDigest:
    """The digests of one state.

    Concurrency: owned by whoever keeps the state; no method awaits.
    """

    def __init__(self, writes: Iterable[LiveWrite] = ()) -> None:
        self._sums: dict[bytes, int] = {}
        self._counts: dict[bytes, int] = {}
        for write in writes:
            self.add(write)

    def add(self, write: LiveWrite) -> None:
        """A write lives from now on. Adding one that is there already makes the digest wrong."""
        self._change(write, 1)

    def remove(self, write: LiveWrite) -> None:
        """A write is covered from now on."""
        self._change(write, -1)

    def _change(self, write: LiveWrite, sign: int) -> None:
        element = sign * write.element()
        for length in range(PREFIX_BYTES + 1):
            prefix = write.item[:length]
            count = self._counts.get(prefix, 0) + sign
            if count < 0:
                raise ValueError(f"{write} was never added")
            if count:
                self._sums[prefix] = (self._sums.get(prefix, 0) + element) % _MODULUS
                self._counts[prefix] = count
            else:
                del self._sums[prefix], self._counts[prefix]

    def count(self, prefix: bytes = b"") -> int:
        """Live writes of items whose ids begin with ``prefix``, of at most `PREFIX_BYTES`."""
        return self._counts.get(bytes(prefix), 0)

    def digest(self, prefix: bytes = b"") -> bytes:
        """The digest of the same; of no writes, zeros."""
        return self._sums.get(bytes(prefix), 0).to_bytes(DIGEST_BYTES, "big")

    def children(self, prefix: bytes) -> dict[int, bytes]:
        """The digests one byte further down, by that byte; empty ones are left out."""
        found = {}
        for byte in range(256):
            child = bytes(prefix) + bytes([byte])
            if child in self._sums:
                found[byte] = self.digest(child)
        return found
