"""The checks of `atoll doctor`: each looks at one thing and says what to do about it.

Owns what is looked at and the sentences. Changes nothing. Refuses to print.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.output import size
from node.errors import NodeError
from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from node.storage.keystore import Keystore

FUSE_DEVICE = Path("/dev/fuse")
MOUNT_TABLE = Path("/proc/self/mountinfo")
FILE_SYSTEM_TYPE = "fuse.atoll"

_LOW_SPACE_BYTES = 1_000_000_000
"""Room for what is written while the server is away, and for the index to be rewritten."""

_CLOCK_TOLERANCE_S = 120.0
"""Saves are ordered by their times; beyond this, people notice which version won."""

_MAX_CLOCK_DIFFERENCE_S = 24 * 3600.0
"""Beyond this, other devices do not let our times move their clocks."""

_LOOK_TIMEOUT_S = 3.0
"""A look at a mount whose node hangs never returns."""


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        finding: what is so.
        advice: what to do; empty when all is well.
    """

    name: str
    state: State
    finding: str
    advice: str = ""


def all_checks(home: Path) -> Iterator[Check]:
    """Every check, one after the other, each as soon as it is done."""
    yield check_fuse_device(FUSE_DEVICE)
    yield check_fuse_helper()
    state = check_state_directory(home)
    yield state
    if state.state is State.FAILED or not home.is_dir():
        return
    yield check_space(home)
    keys, keystore = check_keys(home)
    yield keys
    yield check_node(home)
    yield from check_mounts(MOUNT_TABLE)
    if keystore is not None:
        yield from check_server(keystore)


def check_fuse_device(device: Path) -> Check:
    """Whether the kernel's side of FUSE can be opened."""
    check = partial(Check, "fuse device")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return check(
            State.FAILED,
            f"{device} does not exist",
            "load the kernel's module with `modprobe fuse`; start a container with "
            "`--device /dev/fuse --cap-add SYS_ADMIN`",
        )
    except PermissionError:
        return check(
            State.FAILED,
            f"this user may not open {device}",
            f"let every user open it: `chmod 666 {device}` as root",
        )
    except OSError as error:
        return check(
            State.FAILED,
            f"{device} cannot be opened: {error.strerror}",
            "ask whoever runs this machine or container to allow FUSE",
        )
    return check(State.OK, f"{device} can be opened")


def check_fuse_helper() -> Check:
    """Whether the program that mounts and unmounts for users is there."""
    found = shutil.which("fusermount3")
    if found is None:
        return Check(
            "fusermount3",
            State.FAILED,
            "fusermount3 is not installed",
            "install it: `apt-get install fuse3`",
        )
    return Check("fusermount3", State.OK, found)


def check_state_directory(home: Path) -> Check:
    """Whether the state directory is there and private."""
    check = partial(Check, "state directory")
    try:
        found = home.stat()
    except FileNotFoundError:
        return check(
            State.WARNING,
            f"{home} does not exist yet",
            "enrol this device: `atoll account create` or `atoll login`",
        )
    except OSError as error:
        return check(
            State.FAILED, f"{home}: {error.strerror}", "choose another one with --home DIR"
        )
    if not stat.S_ISDIR(found.st_mode):
        return check(State.FAILED, f"{home} is no folder", "choose another one with --home DIR")
    if found.st_uid != os.geteuid():
        return check(
            State.FAILED,
            f"{home} belongs to another user",
            f"run as that user, or hand it over: `chown -R {os.geteuid()} {home}`",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        return check(
            State.FAILED, f"other users may look into {home}", f"close it: `chmod 700 {home}`"
        )
    if not os.access(home, os.W_OK | os.X_OK):
        return check(State.FAILED, f"{home} cannot be written", f"`chmod 700 {home}`")
    return check(State.OK, str(home))


def check_space(home: Path) -> Check:
    """Whether there is room for what will be written."""
    found = os.statvfs(home)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < _LOW_SPACE_BYTES:
        return Check(
            "disk space",
            State.WARNING,
            f"{size(free_bytes)} are free where {home} lies",
            "free some space: without room, programs that write to the drive get an error",
        )
    if found.f_files and not found.f_favail:
        return Check(
            "disk space",
            State.FAILED,
            f"no file can be added where {home} lies (no free inodes)",
            "delete files there",
        )
    return Check("disk space", State.OK, f"{size(free_bytes)} are free")


def check_keys(home: Path) -> tuple[Check, Keystore | None]:
    """Whether this device is enrolled, and with which account."""
    from node.storage.keystore import Keystore

    check = partial(Check, "keys")
    if not Keystore.exists(home):
        return check(
            State.WARNING,
            "this device is not enrolled",
            "enrol it: `atoll account create` or `atoll login`",
        ), None
    try:
        keystore = Keystore.load(home)
    except (NodeError, ProtocolError) as error:
        return check(
            State.FAILED,
            str(error),
            "if the file is damaged, set the state directory aside and `atoll login` again",
        ), None
    return check(State.OK, f"{keystore.device_name}, enrolled with {keystore.email}"), keystore


def check_node(home: Path) -> Check:
    """Whether a node runs on this state directory and answers."""
    from node.control.client import ControlClient

    check = partial(Check, "node")
    try:
        with ControlClient(home) as client:
            report = client.call("status", timeout_s=10)
    except NodeError as error:
        if getattr(error, "code", "") == "not_running":
            return check(State.WARNING, "no node is running", "start it: `atoll run`")
        return check(
            State.FAILED, error.message, "end the node, by force if it must be, and `atoll run`"
        )
    if alarms := report.get("alarms"):
        return check(
            State.WARNING, f"it runs, and has {len(alarms)} alarms", "read them: `atoll status`"
        )
    return check(State.OK, f"it runs, with the drive at {report.get('mountpoint')}")


def check_mounts(table: Path) -> Iterator[Check]:
    """Whether a mount of ours was left behind by a node that ended by force."""
    for mountpoint in _mounts(table):
        check = partial(Check, "mount")
        take_away = f"take it away: `fusermount3 -u -z {mountpoint}`"
        match _look(mountpoint):
            case None:
                yield check(State.FAILED, f"{mountpoint} does not answer", take_away)
            case OSError() as error:
                yield check(
                    State.FAILED,
                    f"{mountpoint} was left by a node that has ended ({error.strerror})",
                    f"{take_away}, or `atoll run {mountpoint}`, which does it as well",
                )
            case _:
                yield check(State.OK, f"{mountpoint} answers")


def check_server(keystore: Keystore) -> Iterator[Check]:
    """Whether the server answers, is the one that was chosen, and agrees about the time."""
    import trio

    from node.net.server_address import ServerAddress
    from node.net.server_client import ServerClient

    async def ask() -> float | None:
        async with ServerClient(ServerAddress.parse(keystore.server)) as client:
            return (await client.health()).clock_ahead_s

    check = partial(Check, "server")
    try:
        ahead_s = trio.run(ask)
    except NodeError as error:
        advice = "check that it runs and that the network lets you reach it"
        if getattr(error, "code", "") == "wrong_pin":
            advice = "do not go on before whoever runs the server has confirmed its new URL"
        yield check(State.FAILED, error.message, advice)
        return
    yield check(State.OK, f"{keystore.server} answers")
    if ahead_s is not None:
        yield judge_clock(ahead_s)


def judge_clock(ahead_s: float) -> Check:
    """What a difference between the server's clock and ours means."""
    check = partial(Check, "clock")
    if abs(ahead_s) <= _CLOCK_TOLERANCE_S:
        return check(State.OK, "agrees with the server's")
    finding = f"it is {abs(ahead_s):,.0f} s {'behind' if ahead_s > 0 else 'ahead of'} the server's"
    is_grave = abs(ahead_s) > _MAX_CLOCK_DIFFERENCE_S
    return check(
        State.FAILED if is_grave else State.WARNING,
        finding,
        "set the clock, for instance with `timedatectl set-ntp true`",
    )


def _mounts(table: Path) -> list[str]:
    found = []
    for line in table.read_text(errors="surrogateescape").splitlines():
        # proc_pid_mountinfo(5): the fields before " - " vary in number, the type follows it.
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == FILE_SYSTEM_TYPE:
            octal = before.split(" ")[4]
            found.append(
                octal.replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\012", "\n")
                .replace("\\134", "\\")
            )
    return found


def _look(mountpoint: str) -> os.stat_result | OSError | None:
    """What `stat` says; None when it says nothing in time."""
    seen: list[os.stat_result | OSError] = []

    def look() -> None:
        try:
            seen.append(Path(mountpoint).stat())
        except OSError as error:
            seen.append(error)

    # A thread of its own, left behind when it hangs: nothing can interrupt it.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_LOOK_TIMEOUT_S)
    return seen[0] if seen else None
