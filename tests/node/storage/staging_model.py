"""A staged file on plain bytes: what `StagingFile` must look like to whoever reads it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node.storage.staging import StagingStore
from node.storage.staging_file import StagingFile
from node.storage.staging_pieces import BaseRange, Piece, StagedBytes, Zeros

KEY = bytes(range(32))


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


class ModelFile:
    """Plain bytes with the same writes and truncations."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.data = bytearray(base)

    def write(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))
        del self.data[size:]


def filled(pieces: Sequence[Piece], offset: int, base: bytes) -> bytes:
    """The bytes that pieces stand for; checks that they follow each other without gaps."""
    result = bytearray()
    for piece in pieces:
        assert piece.offset == offset + len(result)
        assert piece.size > 0
        match piece:
            case StagedBytes(_, data):
                result += data
            case BaseRange(start, size):
                assert start + size <= len(base)
                result += base[start : start + size]
            case Zeros(_, size):
                result += bytes(size)
    return bytes(result)


def content(file: StagingFile, base: bytes) -> bytes:
    return filled(file.read(0, file.size + 1), 0, base)


def content_of(file: StagingFile, offset: int, size: int) -> bytes:
    """Bytes of a file that has no base."""
    return filled(file.read(offset, size), offset, b"")


def reopened(directory: Path, **limits: Any) -> StagingFile:
    """The one file that a new store finds in a directory."""
    (file,) = StagingStore(directory, KEY, **limits).open_all().files
    return file
