"""``atoll server``: starts the server's own process in place of this one.

Owns the options as people type them. Refuses to know the server: node and server never import each
other, and the server reads and checks the same options again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="Run a server, invite people to it, and tidy it up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Where the server keeps everything [default: ./atoll-server]."
    ),
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
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate", metavar="PEM", help="With --key; off loopback it makes one if absent."
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", help="The key of --certificate.")
    ] = None,
    open_registration: Annotated[
        bool, typer.Option("--open-registration", help="New accounts need no invitation.")
    ] = False,
) -> None:
    """Run a server in the foreground, until SIGTERM or Ctrl-C."""
    options = {
        "--data": data,
        "--listen": listen,
        "--database": database,
        "--blobs": blobs,
        "--certificate": certificate,
        "--key": key,
    }
    _become_server("run", options, ["--open-registration"] if open_registration else [])


@app.command(epilog="Example: atoll server invite --data ~/atoll-server")
def invite(data: DataOption = None, database: DatabaseOption = None) -> None:
    """Print an invitation: every account after the first one needs one to register."""
    _become_server("invite", {"--data": data, "--database": database})


@app.command(epilog="Example: atoll server collect --data ~/atoll-server")
def collect(
    data: DataOption = None,
    database: DatabaseOption = None,
    blobs: Annotated[
        str | None,
        typer.Option("--blobs", metavar="URL", help="The block store [default: under --data]."),
    ] = None,
) -> None:
    """Give up blocks that nothing has needed for 30 days, while the server is stopped.

    A running server does this by itself every six hours.
    """
    _become_server("collect", {"--data": data, "--database": database, "--blobs": blobs})


def _become_server(
    command: str, options: Mapping[str, Path | str | None], flags: Sequence[str] = ()
) -> NoReturn:
    # -P: a file server.py in the present directory is not what is meant.
    arguments = [sys.executable, "-P", "-m", "server", command, *flags]
    for name, value in options.items():
        if value is not None:
            arguments += [name, str(value)]
    sys.stdout.flush()
    # The same process, so that whoever started it stops the server by its id.
    os.execv(sys.executable, arguments)  # noqa: S606 - a fixed program, and no shell
