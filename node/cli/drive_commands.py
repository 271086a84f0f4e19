"""``atoll run`` and ``atoll unmount``: the node, from its start to its end.

Owns the reading of their options and the wait for the end. Refuses to know how a node runs:
`node.main` does.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from node.cli.options import HomeOption, home_of, usage_error
from node.cli.output import fail

_STOP_DEADLINE_S = 60.0
"""A node gives open files and unsent changes some ten seconds, then stops with what it has."""


def run(
    mountpoint: Annotated[
        Path | None, typer.Argument(metavar="MOUNTPOINT", help="[default: ~/Atoll]")
    ] = None,
    no_lan: Annotated[
        bool, typer.Option("--no-lan", help="Do not look for nodes on the local network.")
    ] = False,
    lan_address: Annotated[
        list[str] | None,
        typer.Option(
            "--lan-address",
            metavar="ADDR",
            help="Address of this machine to be found at; may be repeated [default: all].",
        ),
    ] = None,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users of this machine in.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Mount the drive and keep it in sync.

    Stays in the foreground until SIGTERM, Ctrl-C or `atoll unmount`; then writes out what is open,
    unmounts and ends.
    """
    from node.main import run as run_node
    from node.settings import NodeSettings, default_mountpoint, read_settings_file

    chosen = mountpoint.expanduser().absolute() if mountpoint else default_mountpoint()
    chosen_home = home_of(home)
    settings = NodeSettings(
        home=chosen_home,
        mountpoint=chosen,
        is_lan_enabled=not no_lan,
        lan_addresses=_addresses(lan_address or []),
        allow_other=allow_other,
        **read_settings_file(chosen_home),
    )
    raise SystemExit(run_node(settings))


def unmount(home: HomeOption = None) -> None:
    """Stop the running node.

    Returns when it has written out what was open, unmounted and ended.
    """
    from node.control.client import ControlClient

    with ControlClient(home_of(home)) as client:
        client.call("unmount", timeout_s=_STOP_DEADLINE_S)
        if not client.wait_for_end(_STOP_DEADLINE_S):
            fail("the node is still ending; what was written is safe, and `atoll doctor` says more")


def _addresses(texts: list[str]) -> tuple[str, ...]:
    for text in texts:
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise usage_error(f"--lan-address takes an IP address, not {text!r}") from error
    return tuple(texts)
