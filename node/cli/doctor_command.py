"""``atoll doctor``: runs the checks and shows them.

Owns the two forms of the report. The checks themselves are `health_checks`.
"""

from __future__ import annotations

import typer

from node.cli.options import HomeOption, JsonOption, home_of
from node.cli.output import EXIT_FAILED, print_json, print_lines


def doctor(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Check this machine, and say what to do.

    Looks at FUSE, state directory, disk space, keys, node, mounts, server and clock. Changes nothing.
    Ends with exit code 1 when something failed.
    """
    from node.cli.health_checks import State, all_checks

    checks = list(all_checks(home_of(home)))
    is_healthy = all(check.state is not State.FAILED for check in checks)
    if as_json:
        print_json(
            {
                "ok": is_healthy,
                "checks": [
                    {
                        "name": check.name,
                        "state": check.state.value,
                        "finding": check.finding,
                        "advice": check.advice,
                    }
                    for check in checks
                ],
            }
        )
    else:
        for check in checks:
            lines = [f"{check.state.value:8} {check.name}: {check.finding}"]
            if check.advice:
                lines.append(f"{'':8} -> {check.advice}")
            print_lines(lines)
    if not is_healthy:
        raise typer.Exit(EXIT_FAILED)
