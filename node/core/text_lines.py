"""Text files as lines of bytes: what is text, where its lines end, and which files can be mixed. Pure.

Nothing is decoded and encoded again: a line is its bytes with its line end, so that encodings, line
ends of every kind and a missing last one survive. Called by `text_merge`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Longer files are data that a program wrote, and take long to compare."""

MAX_TEXT_LINES = 200_000
"""Some 20 bytes a line at the bound of bytes; a second's work at most."""


class NotTextError(Exception):
    """The bytes are no text, or texts can not be mixed; the message is a clause of why."""


class Encoding(Enum):
    """How characters become bytes, as far as it can be told and matters."""

    ASCII = "ASCII"
    UTF_8 = "UTF-8"
    EIGHT_BIT = "an 8-bit encoding"
    UTF_16_LE = "UTF-16 (little-endian)"
    UTF_16_BE = "UTF-16 (big-endian)"

    @property
    def is_wide(self) -> bool:
        """Whether every character takes two bytes or four."""
        return self in (Encoding.UTF_16_LE, Encoding.UTF_16_BE)


@dataclass(frozen=True, slots=True)
class Text:
    """One text.

    Attributes:
        mark: the byte order mark that it starts with, or nothing.
        lines: with their line ends; only the last may lack one.
    """

    encoding: Encoding
    mark: bytes
    lines: list[bytes]

    @property
    def is_open(self) -> bool:
        """Whether the last line lacks its end."""
        return bool(self.lines) and line_end(self.lines[-1], self.encoding) == b""


_MARKS = (
    (b"\xef\xbb\xbf", None),
    (b"\xff\xfe", Encoding.UTF_16_LE),
    (b"\xfe\xff", Encoding.UTF_16_BE),
)

# Control characters that no text has: all but bell to carriage return, shift out and in (national
# encodings), the end mark of DOS, and escape.
_BINARY = re.compile(rb"[\x00-\x06\x10-\x19\x1c-\x1f]")

# Formats that look like text and are held together by offsets into themselves.
_OFFSETS = (b"%PDF-",)

_WIDE_LINES = {
    Encoding.UTF_16_LE: re.compile(
        rb"(?:(?!\r\0|\n\0)..)*(?:\r\0\n\0|\r\0|\n\0)|(?:(?!\r\0|\n\0)..)+", re.DOTALL
    ),
    Encoding.UTF_16_BE: re.compile(
        rb"(?:(?!\0\r|\0\n)..)*(?:\0\r\0\n|\0\r|\0\n)|(?:(?!\0\r|\0\n)..)+", re.DOTALL
    ),
}


def read_text(data: bytes) -> Text:
    """Tell the encoding and cut into lines, after LF, CR LF and CR.

    Raises:
        NotTextError: no text, or over the bounds.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise NotTextError(f"it is longer than {MAX_TEXT_BYTES // 1024 // 1024} MiB")
    mark, wide = next(
        ((mark, encoding) for mark, encoding in _MARKS if data.startswith(mark)), (b"", None)
    )
    body = data[len(mark) :]
    if wide is not None:
        text = Text(wide, mark, _wide_lines(body, wide))
    else:
        if _BINARY.search(body) or data.startswith(_OFFSETS):
            raise NotTextError("it is not text")
        text = Text(_narrow_encoding(body), mark, body.splitlines(keepends=True))
    if len(text.lines) > MAX_TEXT_LINES:
        raise NotTextError(f"it has more than {MAX_TEXT_LINES} lines")
    return text


def _wide_lines(body: bytes, encoding: Encoding) -> list[bytes]:
    codec = "utf-16-le" if encoding is Encoding.UTF_16_LE else "utf-16-be"
    try:
        is_text = "\0" not in body.decode(codec, "surrogatepass")
    except UnicodeDecodeError:  # half a character
        is_text = False
    if not is_text:
        raise NotTextError("it is not text")
    return _WIDE_LINES[encoding].findall(body)


def _narrow_encoding(body: bytes) -> Encoding:
    if body.isascii():
        return Encoding.ASCII
    try:
        body.decode()
    except UnicodeDecodeError:
        return Encoding.EIGHT_BIT
    return Encoding.UTF_8


def common_encoding(texts: Iterable[Text]) -> Encoding:
    """The encoding of texts whose lines may stand in one file.

    Raises:
        NotTextError: lines of one would be unreadable among those of another.
    """
    found = {text.encoding for text in texts}
    if len(found) > 1:
        found.discard(Encoding.ASCII)  # is part of UTF-8 and of the 8-bit ones
        if len(found) > 1 or any(text.encoding.is_wide for text in texts):
            raise NotTextError("its encoding was changed")
    return found.pop()


def line_end(line: bytes, encoding: Encoding) -> bytes:
    """The line end of a line; nothing when it has none."""
    ends = [b"\r\n", b"\n", b"\r"]
    if encoding.is_wide:
        ends = [encode(end.decode(), encoding) for end in ends]
    return next((end for end in ends if line.endswith(end)), b"")


def encode(text: str, encoding: Encoding) -> bytes:
    """A word of our own in the encoding of a text."""
    match encoding:
        case Encoding.UTF_16_LE:
            return text.encode("utf-16-le", "replace")
        case Encoding.UTF_16_BE:
            return text.encode("utf-16-be", "replace")
        case Encoding.UTF_8:
            return text.encode("utf-8", "replace")
        case Encoding.ASCII | Encoding.EIGHT_BIT:
            return text.encode("ascii", "replace")
