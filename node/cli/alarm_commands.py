"""``atoll alarms`` and ``approve``: what went wrong and what proves it, and what waits for a decision.

Owns how the answers are shown; the node fills them in.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.cli.options import HomeOption, JsonOption, home_of
from node.cli.output import count, print_json, print_lines, print_text
from node.cli.report_commands import ask, shown_text, shown_time

_DECISION_S = 600.0
"""A hundred thousand items may have to be put back."""


def alarms(
    clear: Annotated[
        int | None,
        typer.Option("--clear", metavar="ID", help="Forget the alarm of that number first."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List what you must know of, with what proves it.

    Evidence is one or two signed records or events, which --json shows as base64: the first was
    known here, the second contradicts it.
    """
    found = ask(home_of(home), "alarms", {} if clear is None else {"clear": clear})
    if as_json:
        print_json(found)
    elif not found:
        print_text("No alarms.")
    else:
        print_lines(_line(each) for each in found)
        print_text("Forget one with: atoll alarms --clear ID")


def approve(
    is_rejected: Annotated[
        bool, typer.Option("--reject", help="Put everything back, on all devices.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Let deletions through that were held because they are so many.

    `atoll status` says what waits. Each device asks by itself, unless one rejects.
    """
    answer = ask(home_of(home), "approve", {"reject": is_rejected}, _DECISION_S)
    if as_json:
        print_json(answer)
        return
    decided = count(answer.get("here", 0) + answer.get("elsewhere", 0), "deletion")
    print_text(f"Put back: {decided}." if is_rejected else f"Approved: {decided}.")


def _line(alarm: dict[str, Any]) -> str:
    evidence = alarm.get("evidence") or []
    proof = f" ({count(len(evidence), 'piece')} of evidence; see --json)" if evidence else ""
    time = f"{shown_time(alarm['time'])}  " if alarm.get("time") else ""
    return f"{alarm.get('id')}  {time}{shown_text(alarm.get('message'))}{proof}"
