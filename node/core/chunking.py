"""Where a file's bytes are cut into blocks, and which blocks of its former version stay.

Owns two decisions: the borders of content-defined chunks (FastCDC), and the plan by which a changed
file keeps every block that no write touched. Refuses to read, seal or store anything. Called by
``node.sync.publisher``, which carries a plan out.

The only importer of pyfastcdc.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pyfastcdc import FastCDC

Buffer = bytes | bytearray | memoryview
Range = tuple[int, int]
"""First byte, and the byte after the last one."""


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Lengths of chunks in bytes; what FastCDC calls the average is where its masks change."""

    minimum: int
    average: int
    maximum: int


CHUNK_SIZES: Final = ChunkSizes(256 * 1024, 1024 * 1024, 4 * 1024 * 1024)
"""Of the format: two devices that cut differently store the same content twice."""


@dataclass(frozen=True, slots=True)
class BaseEntry:
    """One entry of the former manifest, as far as planning needs to know it."""

    length: int
    is_hole: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """The entries ``first .. first + count - 1`` of the former manifest stay as they are."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Rechunk:
    """The bytes ``start .. end - 1`` of the new content are read, cut and sealed."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hole:
    """So many zero bytes, which need no block."""

    length: int


Step = Keep | Rechunk | Hole


def chunker_seed(chunker_key: bytes) -> int:
    """The seed that a namespace's chunker key gives, so that borders differ between namespaces.

    pyfastcdc takes 63 bits.
    """
    return int.from_bytes(chunker_key[:8], "big") >> 1


def plan_chunks(
    window: Buffer, *, seed: int, is_last: bool, sizes: ChunkSizes = CHUNK_SIZES
) -> list[int]:
    """The lengths of the chunks at the beginning of a window of a stream.

    The chunks lie one after the other from the window's first byte. What they leave is the
    beginning of the next window, with more of the stream behind it. Borders depend only on bytes
    since the border before, so the windows' sizes do not matter. A window of at least
    ``sizes.maximum`` bytes always yields a chunk; a shorter one may yield none.

    Args:
        window: the stream from the last border on.
        seed: see `chunker_seed`.
        is_last: whether the stream ends where the window ends; then the chunks fill the window.
        sizes: bounds of a chunk.

    Returns:
        Lengths in bytes.
    """
    # A chunker is not safe to share between threads, and takes 10 us to build.
    chunker = FastCDC(sizes.average, min_size=sizes.minimum, max_size=sizes.maximum, seed=seed)
    lengths = [chunk.length for chunk in chunker.cut_buf(window)]
    # The last border may stand where it does only because the window ended there.
    if lengths and not is_last and lengths[-1] < sizes.maximum:
        lengths.pop()
    return lengths


def plan_rewrite(
    entries: Sequence[BaseEntry],
    base_limit: int,
    touched: Iterable[Range],
    size: int,
    sizes: ChunkSizes = CHUNK_SIZES,
) -> list[Step]:
    """How the new content of a file is made from its former manifest and what was written.

    A new byte is the staged one where it was touched, else the base's below ``base_limit``, else
    zero. A kept entry is one that no write touched and no truncation cut. Two things are re-read
    although nothing touched them, so that edits do not leave ever smaller blocks behind: an entry
    below the minimum beside a changed range, and the last entry of the base when bytes follow it
    directly, since the end of the file had cut it and not its content.

    Args:
        entries: the former manifest; their lengths sum up to at least ``base_limit``.
        base_limit: how much of the base is still visible, in bytes; at most ``size``.
        touched: staged ranges, ascending, without overlap.
        size: of the new content, in bytes.
        sizes: bounds of a chunk.

    Returns:
        Steps that make up exactly ``size`` bytes in order; no two neighbours are mergeable.
    """
    assert 0 <= base_limit <= size
    spans = _classify(entries, base_limit, _clip(touched, size), size)
    return _to_steps(_absorb_small(spans, len(entries), size, sizes))


@dataclass(slots=True)
class _Span:
    """A stretch of the new content: an entry kept (its index), zeros, or data to be cut."""

    start: int
    end: int
    kept: int | None = None
    is_zero: bool = False

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def is_data(self) -> bool:
        return self.kept is None and not self.is_zero


def _clip(touched: Iterable[Range], size: int) -> list[Range]:
    return [(start, min(end, size)) for start, end in touched if start < min(end, size)]


def _classify(
    entries: Sequence[BaseEntry], base_limit: int, touched: list[Range], size: int
) -> list[_Span]:
    """Spans in order; neighbours of one kind are merged, except kept entries."""
    spans: list[_Span] = []
    ends = [end for _, end in touched]
    offset = 0
    for index, entry in enumerate(entries):
        start, end = offset, min(offset + entry.length, base_limit)
        offset += entry.length
        if start >= base_limit:
            break
        if entry.is_hole:
            _append_sparse(spans, start, end, _overlapping(touched, ends, start, end))
        elif end == offset and not _is_touched(touched, ends, start, end):
            spans.append(_Span(start, end, kept=index))
        else:
            _append(spans, _Span(start, end))
    _append_sparse(spans, base_limit, size, _overlapping(touched, ends, base_limit, size))
    return spans


def _is_touched(touched: list[Range], ends: list[int], start: int, end: int) -> bool:
    index = bisect.bisect_right(ends, start)
    return index < len(touched) and touched[index][0] < end


def _overlapping(touched: list[Range], ends: list[int], start: int, end: int) -> Iterator[Range]:
    first = bisect.bisect_right(ends, start)
    for low, high in itertools.islice(touched, first, None):
        if low >= end:
            return
        yield max(low, start), min(high, end)


def _append_sparse(spans: list[_Span], start: int, end: int, touched: Iterable[Range]) -> None:
    """Adds ``start .. end``, zero but for what was touched."""
    for low, high in touched:
        _append(spans, _Span(start, low, is_zero=True))
        _append(spans, _Span(low, high))
        start = high
    _append(spans, _Span(start, end, is_zero=True))


def _append(spans: list[_Span], span: _Span) -> None:
    if span.length == 0:
        return
    last = spans[-1] if spans else None
    if last is not None and last.kept is None and last.is_zero == span.is_zero:
        last.end = span.end
    else:
        spans.append(span)


def _absorb_small(
    spans: list[_Span], entry_count: int, size: int, sizes: ChunkSizes
) -> list[_Span]:
    """Turns small zero stretches and small kept entries beside data into data."""
    absorbed: list[_Span] = []
    for before, span, after in _with_neighbours(spans):
        beside_data = (before is not None and before.is_data) or (
            after is not None and after.is_data
        )
        limit = sizes.minimum
        if span.kept == entry_count - 1 and after is not None and after.is_data:
            limit = sizes.average
        ends_file = span.kept is not None and span.end == size
        if beside_data and not ends_file and span.length < limit:
            span = _Span(span.start, span.end)
        if span.kept is None:
            _append(absorbed, span)
        else:
            absorbed.append(span)
    return absorbed


def _with_neighbours(
    spans: list[_Span],
) -> Iterator[tuple[_Span | None, _Span, _Span | None]]:
    before: Iterable[_Span | None] = itertools.chain([None], spans)
    after: Iterable[_Span | None] = itertools.chain(spans[1:], [None])
    return zip(before, spans, after, strict=False)


def _to_steps(spans: list[_Span]) -> list[Step]:
    steps: list[Step] = []
    for span in spans:
        last = steps[-1] if steps else None
        if span.is_zero:
            steps.append(Hole(span.length))
        elif span.kept is None:
            steps.append(Rechunk(span.start, span.end))
        elif isinstance(last, Keep) and last.first + last.count == span.kept:
            steps[-1] = Keep(last.first, last.count + 1)
        else:
            steps.append(Keep(span.kept, 1))
    return steps
