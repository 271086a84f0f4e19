"""The ``atoll`` command: which commands there are, and how every one of them ends.

Owns the assembly and the last resort: exit code 0 done, 1 failed with one sentence, 2 typed wrongly,
and never a traceback. Commands import what they need when they run, so that ``--help`` and tab
completion answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from node.cli import (
    account_commands,
    alarm_commands,
    drive_commands,
    report_commands,
    server_commands,
)
from node.cli.doctor_command import doctor
from node.cli.output import EXIT_FAILED, print_error, report_mistake
from node.errors import NodeError
from protocol.errors import ProtocolError

app = typer.Typer(
    name="atoll",
    help="A mounted, end-to-end encrypted cloud drive whose bytes come from the nearest device.",
    epilog="Example: atoll run ~/Atoll",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: quick, and the same in a terminal and in a file.
    rich_markup_mode=None,
)
app.add_typer(server_commands.app, name="server")
app.add_typer(account_commands.app, name="account")
app.command(epilog="Example: atoll login me@example.org --server http://127.0.0.1:8420")(
    account_commands.login
)
app.command(epilog="Example: atoll run ~/Atoll")(drive_commands.run)
app.command(epilog="Example: atoll unmount")(drive_commands.unmount)
app.command(epilog="Example: atoll status --json")(report_commands.status)
app.command(epilog="Example: atoll wait ~/Atoll/report.odt --for server --timeout 60")(
    report_commands.wait
)
app.command(epilog="Example: atoll alarms --clear 3")(alarm_commands.alarms)
app.command(epilog="Example: atoll approve --reject")(alarm_commands.approve)
app.command(epilog="Example: atoll conflicts")(report_commands.conflicts)
app.command(epilog="Example: atoll resolve ~/Atoll/notes.txt --keep mine")(report_commands.resolve)
app.command(epilog="Example: atoll doctor --json")(doctor)


@app.callback()
def choose_home(
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="The node's state directory, for any command."),
    ] = None,
) -> None:
    """A mounted, end-to-end encrypted cloud drive whose bytes come from the nearest device."""
    if home is not None:
        os.environ["ATOLL_HOME"] = str(home.expanduser().absolute())


def main() -> None:
    """Runs the command that was typed and ends the process."""
    try:
        app()
    except (NodeError, ProtocolError) as error:
        print_error(str(error))
    except KeyboardInterrupt:
        print_error("interrupted")
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        print_error(report_mistake(error))
    raise SystemExit(EXIT_FAILED)


if __name__ == "__main__":
    main()
