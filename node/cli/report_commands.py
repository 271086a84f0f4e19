"""``atoll status``, ``wait``, ``conflicts`` and ``resolve``: what a running node says and is told.

Owns how the answers are shown. Refuses to know how they come about: the node fills them in, in the
shape of the published interface, and a field that is missing is not shown.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.options import HomeOption, JsonOption, home_of, usage_error
from node.cli.output import count, fail, print_json, print_lines, print_text, size, table

_ANSWER_SLACK_S = 15.0
"""What a node may take beyond the wait that it was asked for."""

_ROUND_S = 300.0
"""A wait without an end is asked for in rounds, so that a node that hangs is noticed."""


_RESOLVE_S = 120.0
"""Versions to be merged may have to come from the server first."""


class Durability(StrEnum):
    """What `atoll wait` waits for."""

    LOCAL = "local"
    PEER = "peer"
    SERVER = "server"
    SYNCED = "synced"


def status(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show what is synced, what is pending and what needs you."""
    report = ask(home_of(home), "status")
    if as_json:
        print_json(report)
    else:
        print_lines(_status_lines(report))


def wait(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A file or folder; without it, everything."),
    ] = None,
    durability: Annotated[
        Durability | None,
        typer.Option(
            "--for",
            help="local: safe on this disk; peer, server: also there; synced: nothing is pending "
            "either way [default: synced, with a PATH server].",
            show_default=False,
        ),
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="Give up after S seconds [default: never]."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Wait until changes are safe.

    Ends with exit code 1, and says what is still pending, when that takes longer than --timeout.
    """
    if timeout_s is not None and not 0 <= timeout_s <= 1e9:
        raise usage_error("--timeout takes a number of seconds")
    # Bytes, because a path need not be text; not resolved, because the node knows its own links.
    place = None if path is None else os.fsencode(path.absolute())
    target = durability or (Durability.SYNCED if place is None else Durability.SERVER)
    while True:
        round_s = _ROUND_S if timeout_s is None else timeout_s
        arguments = {"path": place, "for": target.value, "timeout_s": round_s}
        answer = ask(home_of(home), "wait", arguments, round_s + _ANSWER_SLACK_S)
        is_stuck = isinstance(pending := answer.get("pending"), dict) and pending.get("approval")
        if answer.get("done") or timeout_s is not None or is_stuck:
            break
    if as_json:
        print_json(answer)
    if not answer.get("done"):
        waited = "" if timeout_s is None or is_stuck else f" after {timeout_s:g} s"
        fail(f"still pending{waited}: {_pending(answer.get('pending'))}")


def conflicts(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List versions that could not be merged.

    Nothing is lost: one version has the name, and every other one can be opened where this says.
    """
    found = ask(home_of(home), "conflicts")
    if as_json:
        print_json(found)
    elif not found:
        print_text("No conflicts.")
    else:
        print_lines(_conflict_lines(found))
        print_text("Settle one with: atoll resolve PATH --keep mine|theirs|both|merge|VERSION")


def resolve(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file with conflict versions.")],
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="mine|theirs|both|merge|VERSION",
            help="mine: this device's version; theirs: the other device's; both: the other versions "
            "become files beside it; merge: both texts in one file, between marks where they "
            "overlap; VERSION: one that `atoll conflicts` lists.",
        ),
    ],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Settle a conflict.

    Returns when the result is safe on this disk; it then travels to the other devices. The versions
    that are not kept stay in the file's history for a while.
    """
    # Not resolved, because the node knows its own links.
    arguments = {"path": os.fsencode(path.absolute()), "keep": keep}
    answer = ask(home_of(home), "resolve", arguments, _RESOLVE_S)
    if as_json:
        print_json(answer)
        return
    kept = shown_text(answer.get("kept"))
    print_text("Merged." if kept == "merge" else f"Kept {kept}.")
    print_lines(f"Beside it: {shown_text(beside)}" for beside in answer.get("beside", []))


def ask(
    home: Path, command: str, arguments: Mapping[str, Any] | None = None, timeout_s: float = 30.0
) -> Any:
    """What the running node answers to a command."""
    from node.control.client import ControlClient

    with ControlClient(home) as client:
        return client.call(command, arguments, timeout_s=timeout_s)


def _status_lines(report: Mapping[str, Any]) -> Iterator[str]:
    device = report.get("device", {})
    is_synced = "everything is synced" if report.get("synced") else "not everything is synced yet"
    yield f"{device.get('name', 'This device')} at {shown_text(report.get('mountpoint'))}: {is_synced}"
    rows = list(_status_rows(report))
    if rows:
        yield from table(rows)
    for alarm in report.get("alarms", []):
        yield f"ALARM: {alarm if isinstance(alarm, str) else _sentence(alarm)}"


def _status_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if server := report.get("server"):
        yield "server", f"{server.get('state')}, {server.get('url')}"
    if "pending" in report:
        yield "pending", _pending(report["pending"])
    for peer in report.get("peers", []):
        yield "peer", f"{peer.get('name')}, {peer.get('state')}, {peer.get('address')}"
    for namespace in report.get("namespaces", []):
        items = count(namespace.get("items", 0), "item")
        yield (
            "folder",
            f"{shown_text(namespace.get('path'))}, {items}, {size(namespace.get('bytes', 0))}",
        )
    if cache := report.get("cache"):
        used, limit, pinned = (size(cache.get(name, 0)) for name in ("bytes", "limit", "pinned"))
        yield "cache", f"{used} of {limit}, {pinned} pinned"
    if report.get("conflicts"):
        yield "conflicts", f"{report['conflicts']}; see them with: atoll conflicts"


def _pending(pending: Any) -> str:
    match pending:
        case {"records": int(records), "blocks": int(blocks), "bytes": int(size_bytes)}:
            if not (records or blocks or size_bytes):
                return "nothing here"
            return f"{count(records, 'record')}, {count(blocks, 'block')}, {size(size_bytes)}"
        case None | "" | [] | ():
            return "the node does not say what"
        case [*things]:
            return ", ".join(shown_text(thing) for thing in things)
        case dict():
            return _sentence(pending)
        case _:
            return shown_text(pending)


def _conflict_lines(found: list[Mapping[str, Any]]) -> list[str]:
    rows = [("PATH", "VERSION", "DEVICE", "TIME", "SIZE", "READABLE AT")]
    rows += [
        (
            shown_text(each.get("path")),
            shown_text(each.get("version")),
            shown_text(each.get("device")),
            shown_time(each.get("time")),
            size(each.get("size") or 0),
            shown_text(each.get("readable_at")),
        )
        for each in found
    ]
    return table(rows)


def shown_time(value: Any) -> str:
    """A time of a record: seconds since 1970, or text as the node wrote it."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return shown_text(value)


def _sentence(value: Mapping[str, Any]) -> str:
    if isinstance(message := value.get("message"), str):
        return message
    return ", ".join(f"{key} {shown_text(each)}" for key, each in value.items())


def shown_text(value: Any) -> str:
    """A value on one line; names come from other devices and must not steer the terminal."""
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    return "".join(c if unicodedata.category(c) != "Cc" else f"\\x{ord(c):02x}" for c in text)
