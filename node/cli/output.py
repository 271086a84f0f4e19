"""What a command prints, and how it ends.

Owns the two forms of a report (lines for people, JSON for scripts), the one sentence of a failure, and
the way numbers are written. Refuses to know any command.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def print_lines(lines: Iterable[str]) -> None:
    """Prints a report for people."""
    for line in lines:
        print_text(line)


def print_text(text: str) -> None:
    """Prints a line; bytes of a path that are no text are printed as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def print_json(value: Any) -> None:
    """Prints a report for scripts: one JSON value, indented.

    Bytes of a path that are no text appear as lone surrogates, as Python's `os.fsencode` takes them.
    """
    print_text(json.dumps(_plain(value), indent=2, ensure_ascii=True))


def print_error(message: str) -> None:
    """Prints the one sentence of a failure to standard error."""
    text = " ".join(message.split()).rstrip(".")
    sys.stdout.flush()
    sys.stderr.buffer.write(f"atoll: {text}\n".encode(errors="surrogateescape"))
    sys.stderr.buffer.flush()


def fail(message: str) -> NoReturn:
    """Ends the command as failed."""
    print_error(message)
    raise SystemExit(EXIT_FAILED)


def report_mistake(error: BaseException) -> str:
    """Keeps the traceback of a mistake of ours in a file and gives the sentence about it."""
    name = type(error).__name__
    text = "".join(traceback.format_exception(error))
    try:
        directory = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        directory = directory / "atoll-mistakes"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = directory / "last.txt"
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.write(text)
    except (OSError, RuntimeError):
        return f"a mistake in Atoll ended this command ({name})"
    return f"a mistake in Atoll ended this command ({name}); please report it with {place}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def size(number: int) -> str:
    """A number of bytes, such as ``1.5 MB`` (decimal units)."""
    amount = float(number)
    for unit in _UNITS:
        if amount < 999.5 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{number} B" if unit == "B" else f"{amount:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """A number of things, such as ``1 record`` and ``2,000 records``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return os.fsdecode(value) if isinstance(value, bytes) else value
