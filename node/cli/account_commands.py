"""``atoll account`` and ``atoll login``: enrol this device.

Owns prompts and what is printed. Refuses to know keys and logs: `node.enrolment` does it.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from node.cli.options import (
    DeviceNameOption,
    HomeOption,
    PasswordFileOption,
    ServerOption,
    device_name_of,
    home_of,
    read_password,
)
from node.cli.output import print_text

app = typer.Typer(help="Create an account.", no_args_is_help=True, rich_markup_mode=None)

EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL", help="The account's email address.")]


@app.callback()
def account() -> None:
    """Create an account."""


@app.command(epilog="Example: atoll account create me@example.org --server http://127.0.0.1:8420")
def create(
    email: EmailArgument,
    server: ServerOption,
    device_name: DeviceNameOption = None,
    invitation: Annotated[
        str | None,
        typer.Option(
            "--invitation",
            metavar="TEXT",
            help="From `atoll server invite`; the first account on a server needs none.",
        ),
    ] = None,
    password_file: PasswordFileOption = None,
    home: HomeOption = None,
) -> None:
    """Register an account, enrol this device in it, and print the recovery phrase."""
    import trio

    from node.enrolment import Enrolment, create_account

    enrolment = Enrolment(home_of(home), server, email, device_name_of(device_name)).check()
    password = read_password(password_file, is_new=True)
    phrase = trio.run(create_account, enrolment, password, invitation)
    if sys.stdout.isatty():
        print_text(
            "The account is ready. Write down its recovery phrase: it is shown once, nobody else "
            "has it, and without password and phrase nobody can read the files.\n"
        )
    print_text(phrase)


def login(
    email: EmailArgument,
    server: ServerOption,
    device_name: DeviceNameOption = None,
    password_file: PasswordFileOption = None,
    home: HomeOption = None,
) -> None:
    """Enrol this device in an account that exists."""
    import trio

    from node.enrolment import Enrolment, log_in

    enrolment = Enrolment(home_of(home), server, email, device_name_of(device_name)).check()
    trio.run(log_in, enrolment, read_password(password_file, is_new=False))
    if sys.stdout.isatty():
        print_text("This device is enrolled. Mount the drive with: atoll run")
