"""The options that several commands share, and what is read from them.

Owns the names and the help of shared options, the choice of the state directory, and where a password
comes from. Refuses to act on them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import EXIT_USAGE, print_error
from node.errors import SettingsError
from node.settings import default_home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="The node's state directory [default: $ATOLL_HOME, or ~/.local/state/atoll].",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server's URL; off this machine with #sha256=PIN, as the server printed it.",
    ),
]
DeviceNameOption = Annotated[
    str | None,
    typer.Option(
        "--device-name", metavar="NAME", help="What this device is called [default: host name]."
    ),
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Read the password from the first line of FILE, not from a prompt or $ATOLL_PASSWORD.",
    ),
]

_MAX_PASSWORD_FILE_BYTES = 64 * 1024


def home_of(chosen: Path | None) -> Path:
    """The state directory: the option, else the environment, else the default."""
    return chosen.expanduser().absolute() if chosen else default_home(os.environ)


def device_name_of(chosen: str | None) -> str:
    """The device's name: the option, else the host name.

    Raises:
        SettingsError: empty, too long, or not fit to be shown.
    """
    name = (chosen if chosen is not None else os.uname().nodename).strip()
    if not name or len(name.encode(errors="replace")) > 64 or not name.isprintable():
        raise SettingsError("a device's name has 1 to 64 printable characters: use --device-name")
    return name


def read_password(file: Path | None, is_new: bool) -> str:
    """The password, from a file, ``ATOLL_PASSWORD`` or a prompt, in this order.

    Args:
        file: what the option named.
        is_new: ask twice at the prompt: a typing mistake would lock the account.

    Raises:
        SettingsError: the file can not be read, there is no terminal to ask at, or it is empty.
    """
    if file is not None:
        password = _first_line(file)
    elif "ATOLL_PASSWORD" in os.environ:
        password = os.environ["ATOLL_PASSWORD"]
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=is_new, err=True)
    else:
        raise SettingsError(
            "there is no terminal to ask for the password; "
            "use --password-file FILE or the variable ATOLL_PASSWORD"
        )
    if not password:
        raise SettingsError("the password is empty")
    return password


def usage_error(message: str) -> SystemExit:
    """The end of a command that was typed wrongly; to be raised."""
    print_error(message)
    return SystemExit(EXIT_USAGE)


def _first_line(file: Path) -> str:
    try:
        with file.expanduser().open("rb") as opened:
            content = opened.read(_MAX_PASSWORD_FILE_BYTES)
        # Only the end of the line goes: spaces may belong to the password.
        return content.partition(b"\n")[0].removesuffix(b"\r").decode()
    except OSError as error:
        raise SettingsError(f"cannot read the password from {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the password in {file} is not text") from error
