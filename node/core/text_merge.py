"""Three-way merge of text files, line by line, as a pure function of three files' bytes.

Both sides are compared with their common base; what only one side changed is taken, and what both
changed alike is taken once. The order of the sides does not matter. Where both changed the same
lines differently there is no merge: nothing is guessed and nothing of ours is put into a user's
file, unless somebody asks for the marked text. Called by the merger and by ``atoll resolve``.

Which changes overlap (`_overlap`): those that share a line of the base; an insertion inside what the
other changed; and changes that touch, because the order of what both add there is unknown. Touching
ones are apart when one of them replaces line for line (so its lines have their places), or when both
only remove. Where all that overlaps replaces line for line, it is merged line by line.

Source: S. Khanna, K. Kunal, B. Pierce, "A formal investigation of diff3" (2007), for the regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from node.core.line_diff import Change, TooMuchWorkError, WorkBudget, line_changes
from node.core.text_lines import (
    Encoding,
    NotTextError,
    Text,
    common_encoding,
    encode,
    line_end,
    read_text,
)

_WORK_STEPS = 2_000_000
"""For one merge, about a second. Counted, so that a slow device decides as a quick one does."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The file with the changes of both sides."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Overlap:
    """Both sides changed the same places differently."""

    places: int


@dataclass(frozen=True, slots=True)
class NotMergeable:
    """No text of which lines could be mixed; the reason is a clause, "it is not text"."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Edit:
    """``base[start:end]`` became these lines; ``is_open`` when the last one lacks its end."""

    start: int
    end: int
    lines: list[bytes]
    is_open: bool

    @property
    def is_line_for_line(self) -> bool:
        return len(self.lines) == self.end - self.start > 0 and not self.is_open


@dataclass(frozen=True, slots=True)
class _Region:
    """What becomes of ``base[start:end]``: the edits of both sides that overlap there."""

    start: int
    end: int
    ours: list[_Edit]
    theirs: list[_Edit]

    def merged(
        self, base: list[bytes], ours: list[bytes], theirs: list[bytes]
    ) -> list[bytes] | None:
        """The region's lines with what both sides did to it; None when that is in doubt."""
        if ours == theirs or not self.theirs:
            return ours
        if not self.ours:
            return theirs
        if not all(edit.is_line_for_line for edit in (*self.ours, *self.theirs)):
            return None
        lines = []
        for old, one, other in zip(base, ours, theirs, strict=True):
            if one != other and old not in (one, other):
                return None
            lines.append(other if one == old else one)
        return lines


def merge(base: bytes, ours: bytes, theirs: bytes) -> Merged | Overlap | NotMergeable:
    """Merge what two sides made of a base.

    A side that equals the base yields to the other, and equal sides are one, whatever they hold.
    """
    if ours == theirs or theirs == base:
        return Merged(ours)
    if ours == base:
        return Merged(theirs)
    try:
        comparison = _Comparison.of(base, ours, theirs)
    except NotTextError as error:
        return NotMergeable(str(error))
    except TooMuchWorkError:
        return NotMergeable("its versions differ too much")
    overlaps = 0

    def count(_ours: list[bytes], _theirs: list[bytes]) -> list[bytes]:
        nonlocal overlaps
        overlaps += 1
        return []

    data = comparison.joined(count)
    return Overlap(overlaps) if overlaps else Merged(data)


def mark(
    base: bytes | None, ours: bytes, theirs: bytes, our_label: str, their_label: str
) -> bytes | NotMergeable:
    """The merge with both texts, between marks, wherever there is no merge.

    Args:
        base: None when it is not known: then every difference is marked.
        our_label: says whose text is above the middle mark.
    """
    try:
        comparison = _Comparison.of(ours if base is None else base, ours, theirs)
    except NotTextError as error:
        return NotMergeable(str(error))
    except TooMuchWorkError:
        return NotMergeable("its versions differ too much")

    def marked(our_lines: list[bytes], their_lines: list[bytes]) -> list[bytes]:
        return [
            comparison.mark_line(f"<<<<<<< {our_label}"),
            *comparison.closed(our_lines),
            comparison.mark_line("======="),
            *comparison.closed(their_lines),
            comparison.mark_line(f">>>>>>> {their_label}"),
        ]

    return comparison.joined(marked, is_every_edit_marked=base is None)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A base and two sides, compared."""

    encoding: Encoding
    mark: bytes
    base: list[bytes]
    end: bytes
    regions: list[_Region]

    @classmethod
    def of(cls, base: bytes, ours: bytes, theirs: bytes) -> _Comparison:
        texts = [read_text(data) for data in (base, ours, theirs)]
        encoding = common_encoding(texts)
        old, one, other = texts
        numbers: dict[bytes, int] = {}
        numbered = [
            [numbers.setdefault(line, len(numbers)) for line in text.lines] for text in texts
        ]
        budget = WorkBudget(_WORK_STEPS)
        edits = [
            _edits(side, line_changes(numbered[0], numbers_of_side, budget))
            for side, numbers_of_side in zip((one, other), numbered[1:], strict=True)
        ]
        return cls(
            encoding=encoding,
            mark=other.mark if one.mark == old.mark else one.mark,
            base=old.lines,
            end=_first_end((one, other), encoding),
            regions=list(_regions(*edits)),
        )

    def joined(
        self,
        settle: Callable[[list[bytes], list[bytes]], list[bytes]],
        *,
        is_every_edit_marked: bool = False,
    ) -> bytes:
        """The merged text; ``settle`` gives the lines for a place that both sides changed."""
        result = [self.mark]
        position = 0
        for region in self.regions:
            result += self.base[position : region.start]
            ours, theirs = self._side(region, region.ours), self._side(region, region.theirs)
            lines = None
            if not is_every_edit_marked:
                lines = region.merged(self.base[region.start : region.end], ours, theirs)
            result += settle(ours, theirs) if lines is None else lines
            position = region.end
        return b"".join([*result, *self.base[position:]])

    def _side(self, region: _Region, edits: Iterable[_Edit]) -> list[bytes]:
        """The lines that one side has for a region of the base."""
        lines: list[bytes] = []
        position = region.start
        for edit in edits:
            lines += self.base[position : edit.start]
            lines += edit.lines
            position = edit.end
        return lines + self.base[position : region.end]

    def mark_line(self, text: str) -> bytes:
        """A line of our own."""
        shown = "".join(character if character.isprintable() else "_" for character in text)
        return encode(shown, self.encoding) + self.end

    def closed(self, lines: list[bytes]) -> list[bytes]:
        """The lines, the last one with an end, so that a line can follow."""
        if not lines or line_end(lines[-1], self.encoding):
            return lines
        return [*lines[:-1], lines[-1] + self.end]


def _first_end(texts: Iterable[Text], encoding: Encoding) -> bytes:
    """The line end that the texts use, by their first line."""
    for text in texts:
        if text.lines and (end := line_end(text.lines[0], encoding)):
            return end
    return encode("\n", encoding)


def _edits(text: Text, changes: Iterable[Change]) -> list[_Edit]:
    return [
        _Edit(
            change.start,
            change.end,
            text.lines[change.new_start : change.new_end],
            text.is_open and change.new_start < change.new_end == len(text.lines),
        )
        for change in changes
    ]


def _overlap(one: _Edit, other: _Edit) -> bool:
    if max(one.start, other.start) < min(one.end, other.end):
        return True
    if one.start < other.start < one.end or other.start < one.start < other.end:
        return True  # an insertion inside what the other changed
    if one.end != other.start and other.end != one.start:
        return False
    is_apart = one.is_line_for_line or other.is_line_for_line
    return not is_apart and bool(one.lines or other.lines)


def _regions(ours: list[_Edit], theirs: list[_Edit]) -> Iterator[_Region]:
    """Groups of edits, ascending: those that overlap, directly or through others, are in one."""
    ours, theirs = ours[::-1], theirs[::-1]
    while ours or theirs:
        region = _Region(0, 0, [], [])
        while True:
            is_ours = _is_next(ours, theirs)
            waiting, own, others = (
                (ours, region.ours, region.theirs)
                if is_ours
                else (theirs, region.theirs, region.ours)
            )
            if (own or others) and not (others and _overlap(others[-1], waiting[-1])):
                break
            own.append(waiting.pop())
            if not (ours or theirs):
                break
        edits = [*region.ours, *region.theirs]
        yield _Region(
            min(edit.start for edit in edits),
            max(edit.end for edit in edits),
            region.ours,
            region.theirs,
        )


def _is_next(ours: list[_Edit], theirs: list[_Edit]) -> bool:
    """Whether ours is the earlier one of the edits that wait; an insertion is before its line."""
    if not ours or not theirs:
        return bool(ours)
    return (ours[-1].start, ours[-1].end) <= (theirs[-1].start, theirs[-1].end)
