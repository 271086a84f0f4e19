"""The folder where the drive appears: fit to mount on, cleaned of a dead mount, and left again.

Owns the checks before a mount, each with a sentence that says what to do, and taking a mount away
from its folder. Refuses to know the drive and pyfuse3. Called by `fusefs.mount`, in a worker thread:
a file system that does not answer makes every step here wait.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import SettingsError

FUSE_DEVICE = Path("/dev/fuse")
FILE_SYSTEM_NAME = "atoll"

_MOUNTS = Path("/proc/self/mountinfo")
_FUSE_SETTINGS = Path("/etc/fuse.conf")
_STACKED_MOUNTS = 16
"""Dead mounts on one folder that are cleaned; each crash and restart can leave one."""
_HELPER_TIMEOUT_S = 10.0
_MNT_DETACH = 2

_DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
"""What a mount answers whose process is gone; the second while it is just ending."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the kernel's mount table.

    Attributes:
        device: the number of the file system, as `major:minor`.
        path: where it is mounted.
        file_system: its type, such as `fuse.atoll`.
    """

    device: str
    path: str
    file_system: str


def prepare_mountpoint(mountpoint: Path) -> Path:
    """Makes sure that `mountpoint` is an empty folder that FUSE can mount on.

    A missing folder is made when its parent exists; what a crash left mounted is taken away.

    Returns:
        The absolute path without symlinks.

    Raises:
        SettingsError: it cannot be mounted on; the message says what to do.
    """
    _require_fuse()
    # Not strict: a dead mount does not even say that it is no symlink.
    mountpoint = Path(os.path.realpath(mountpoint))
    _clear_dead_mounts(mountpoint)
    mounted = mount_at(mountpoint)
    if mounted is not None and mounted.file_system == f"fuse.{FILE_SYSTEM_NAME}":
        raise SettingsError(
            f"a drive is already mounted at {mountpoint}: "
            "end it with `atoll unmount`, or name another folder"
        )
    if mounted is not None and mounted.file_system.startswith("fuse"):
        raise SettingsError(
            f"another file system ({mounted.file_system}) is mounted at {mountpoint}: "
            "unmount it, or name another folder"
        )
    _require_empty_folder(mountpoint)
    return mountpoint


def require_allow_other() -> None:
    """Makes sure that this user may let other users into the mount.

    Raises:
        SettingsError: /etc/fuse.conf does not permit it.
    """
    if os.geteuid() == 0:
        return
    try:
        lines = _FUSE_SETTINGS.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        raise SettingsError(
            "other users can only be let in when /etc/fuse.conf has the line `user_allow_other`: "
            "ask the administrator to add it, or mount without it"
        )


def mount_at(mountpoint: Path) -> Mount | None:
    """The topmost mount on `mountpoint`, None when nothing is mounted there.

    It does not look at the folder, only at the table, so the path has to be free of symlinks.
    """
    found = None
    for line in os.fsdecode(_MOUNTS.read_bytes()).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        mount = Mount(fields[2], _unescape(fields[4]), after.split(" ")[0])
        if mount.path == os.fspath(mountpoint):
            found = mount
    return found


def detach(mountpoint: Path) -> None:
    """Takes the topmost mount away from its folder, even while programs hold files open in it.

    The folder is plain at once; the file system ends when the last open file in it is closed.

    Raises:
        SettingsError: it cannot be unmounted; the message gives the reason.
    """
    if os.geteuid() == 0 and _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH) == 0:
        return
    reason = os.strerror(ctypes.get_errno()) if os.geteuid() == 0 else "no fusermount3"
    helper = shutil.which("fusermount3")
    if helper is not None:
        try:
            done = subprocess.run(
                [helper, "-u", "-z", "--", os.fspath(mountpoint)],
                capture_output=True,
                timeout=_HELPER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = "fusermount3 did not end"
        else:
            if done.returncode == 0:
                return
            reason = os.fsdecode(done.stderr).strip() or reason
    raise SettingsError(
        f"cannot unmount {mountpoint} ({reason}): try `fusermount3 -u -z {mountpoint}`"
    )


def fuse_devices() -> set[int]:
    """This process's open descriptors of the FUSE device: one for each mount that it serves."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself is gone
            if Path("/proc/self/fd", name).readlink() == FUSE_DEVICE:
                found.add(int(name))
    return found


def _require_fuse() -> None:
    if not FUSE_DEVICE.exists():
        raise SettingsError(
            f"there is no {FUSE_DEVICE}: load the kernel module with `modprobe fuse`, "
            f"or give the container `--device {FUSE_DEVICE}`"
        )
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise SettingsError(
            f"{FUSE_DEVICE} cannot be opened by this user: `chmod 666 {FUSE_DEVICE}`, as root"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise SettingsError(
            "fusermount3 is missing, and only root mounts without it: `apt-get install fuse3`"
        )


def _clear_dead_mounts(mountpoint: Path) -> None:
    for _ in range(_STACKED_MOUNTS):
        try:
            # Not stat(2): the kernel answers that of a dead mount from its cache.
            os.statvfs(mountpoint)
        except OSError as error:
            if error.errno not in _DEAD:
                return
            detach(mountpoint)
        else:
            return


def _require_empty_folder(mountpoint: Path) -> None:
    try:
        mode = mountpoint.stat().st_mode
    except FileNotFoundError:
        _make_folder(mountpoint)
        return
    except OSError as error:
        raise _unusable(mountpoint, error) from error
    if not stat.S_ISDIR(mode):
        raise SettingsError(f"{mountpoint} is not a folder: name an empty one, or one to be made")
    try:
        with os.scandir(mountpoint) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        raise _unusable(mountpoint, error) from error
    if not is_empty:
        raise SettingsError(
            f"{mountpoint} is not empty: name an empty folder, or move what is in it elsewhere"
        )


def _make_folder(mountpoint: Path) -> None:
    try:
        mountpoint.mkdir()
    except FileNotFoundError as error:
        raise SettingsError(
            f"{mountpoint} cannot be made, its parent folder is missing: "
            f"`mkdir -p {mountpoint.parent}`"
        ) from error
    except OSError as error:
        raise _unusable(mountpoint, error) from error


def _unusable(mountpoint: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{mountpoint} cannot be used ({error.strerror}): name a folder of your own"
    )


def _unescape(field: str) -> str:
    """Undoes the octal escapes of the mount table (space, tab, newline, backslash)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
