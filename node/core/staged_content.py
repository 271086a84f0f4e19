"""File content whose bytes are still in staging: written here, not yet sealed into blocks."""

from __future__ import annotations

from dataclasses import dataclass

from protocol import codec
from protocol.values import Content, Kind
from protocol.version_vector import Dot


@dataclass(frozen=True, slots=True)
class StagedContent(Content):
    """A file as it was written, before its record is made.

    Attributes:
        base: the content that was written over; ranges that staging lacks come from it.
        staging: name of the staging file.
    """

    base: Content = Content(Kind.FILE)
    staging: str = ""

    def identity(self) -> codec.Value:
        """Unsealed bytes are told by where they are, and by how many of them count."""
        return [self.staging, self.size]

    def has_same_bytes(self, other: Content) -> bool:
        """Unsealed bytes are the same only as themselves."""
        return isinstance(other, StagedContent) and other.staging == self.staging


def staged_content(
    base: Content, staging: str, size: int, mtime_ns: int, origin: Dot | None = None
) -> StagedContent:
    """The content of a file of ``size`` bytes whose changes to ``base`` are in ``staging``."""
    return StagedContent(
        kind=Kind.FILE, size=size, mtime_ns=mtime_ns, origin=origin, base=base, staging=staging
    )
