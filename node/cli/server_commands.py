"""``atoll server``: starts the server's own process in place of this one.

Owns the options as people type them. Refuses to know the server: node and server never import each
other, and the server reads and checks the same options again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="Run a server, and invite people to it.", no_args_is_help=True, rich_markup_mode=None
)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where the server keeps everything."),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="The database [default: SQLite under --data]."),
]


@app.command(epilog="Example: atoll server run --data ~/atoll-server --listen 127.0.0.1:8420")
def run(
    data: DataOption = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where to listen; off loopback over TLS, and the URL with its pin is printed.",
        ),
    ] = None,
    database: DatabaseOption = None,
    blobs: Annotated[
        str | None,
        typer.Option("--blobs", metavar="URL", help="The block store [default: under --data]."),
    ] = None,
) -> None:
    """Run a server in the foreground, until SIGTERM or Ctrl-C."""
    _become_server(
        "run", {"--data": data, "--listen": listen, "--database": database, "--blobs": blobs}
    )


@app.command(epilog="Example: atoll server invite --data ~/atoll-server")
def invite(data: DataOption = None, database: DatabaseOption = None) -> None:
    """Print an invitation: every account after the first one needs one to register."""
    _become_server("invite", {"--data": data, "--database": database})


def _become_server(command: str, options: dict[str, Path | str | None]) -> NoReturn:
    arguments = [sys.executable, "-m", "server", command]
    for name, value in options.items():
        if value is not None:
            arguments += [name, str(value)]
    sys.stdout.flush()
    # The same process, so that whoever started it stops the server by its id.
    os.execv(sys.executable, arguments)  # noqa: S606 - a fixed program, and no shell
