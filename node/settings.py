"""What one run of the node is told: where its state lies, where it mounts, and its bounds.

Owns the defaults, the reading of directories from the environment and of what the user chose in
``settings.toml``. Refuses to change while the node runs. Made by `node.cli` (and by tests), read by
`node.main`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from node.errors import SettingsError

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE
SETTINGS_FILE = "settings.toml"


class ConflictPlace(StrEnum):
    """Where conflict versions are shown."""

    FOLDER = "folder"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The settings of one run.

    Attributes:
        home: the device's state directory.
        mountpoint: where the drive appears.
        is_lan_enabled: whether nodes on the same network are looked for.
        lan_addresses: addresses of this machine to be found at; empty for all of them.
        allow_other: whether other users of this machine may enter the mount (as the kernel's
            option of the same name; needs ``user_allow_other`` in ``/etc/fuse.conf`` or root).
        cache_limit_bytes: sealed blocks kept beyond those that exist only here or are pinned.
        read_deadline_s: longest wait of a read for bytes that are not here; then it fails.
        settle_s: how long removals and moves-away wait for what may follow them in a save.
        quiet_publish_s: a file that stays open is published after so long without a write.
        upload_parallelism: blocks on their way to the server at once; it syncs each to its disk,
            which takes longer than sending it.
        download_parallelism: blocks on their way here at once.
        stop_deadline_s: longest wait at the end for open files and what is still to be sent.
        conflicts: in ``.atoll/conflicts`` only, or also as read-only files beside the shown one.
        deletion_guard_share: what deletes more than this share of all items within ten minutes waits
            for an approval; 1 lets everything through.
        deletion_guard_minimum: fewer deletions than this never wait.
        history_days: for so long replaced contents can be merged with and looked at.
        tombstone_days: for so long deletions are remembered; a device that was away for longer keeps
            what others deleted aside.
    """

    home: Path
    mountpoint: Path
    is_lan_enabled: bool = True
    lan_addresses: tuple[str, ...] = ()
    allow_other: bool = False
    cache_limit_bytes: int = 10 * GIBIBYTE
    read_deadline_s: float = 30.0
    settle_s: float = 0.2
    quiet_publish_s: float = 5.0
    upload_parallelism: int = 8
    download_parallelism: int = 8
    stop_deadline_s: float = 10.0
    conflicts: ConflictPlace = ConflictPlace.FOLDER
    history_days: float = 30.0
    tombstone_days: float = 180.0
    deletion_guard_share: float = 0.5
    deletion_guard_minimum: int = 200

    def __post_init__(self) -> None:
        if not (self.home.is_absolute() and self.mountpoint.is_absolute()):
            raise AssertionError("paths are absolute: the node changes its directory")
        for one, other in ((self.home, self.mountpoint), (self.mountpoint, self.home)):
            if one == other or one in other.parents:
                raise SettingsError(
                    f"the state in {self.home} and the drive at {self.mountpoint} must not lie "
                    "within each other; choose another mountpoint or --home"
                )


@dataclass(frozen=True, slots=True)
class _Number:
    """A setting that is a number within bounds."""

    least: float
    most: float
    is_whole: bool = False

    @property
    def allowed(self) -> str:
        return f"a {'whole ' * self.is_whole}number from {self.least:g} to {self.most:g}"

    def read(self, value: Any) -> float | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not self.least <= value <= self.most:
            return None
        if self.is_whole:
            return int(value) if value == int(value) else None
        return float(value)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A setting that is one of a few words."""

    words: type[StrEnum]

    @property
    def allowed(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)

    def read(self, value: Any) -> StrEnum | None:
        return next((word for word in self.words if value == word.value), None)


_CHOSEN: Mapping[str, _Number | _Choice] = {
    "conflicts": _Choice(ConflictPlace),
    "deletion_guard_minimum": _Number(1, 10**9, is_whole=True),
    "deletion_guard_share": _Number(0.01, 1),
    "history_days": _Number(1, 3650),
    "tombstone_days": _Number(30, 3650),
}
"""What may stand in the file; each is the field of `NodeSettings` with that name."""


def read_settings_file(home: Path) -> dict[str, Any]:
    """What the user chose in ``settings.toml`` of the state directory, by field of `NodeSettings`.

    Returns:
        Nothing when there is no such file.

    Raises:
        SettingsError: it can not be read, is not TOML, or holds a key or a value that is not known.
    """
    file = home / SETTINGS_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 text") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    return {key: _chosen(file, key, value) for key, value in found.items()}


def _chosen(file: Path, key: str, value: Any) -> Any:
    setting = _CHOSEN.get(key)
    if setting is None:
        raise SettingsError(
            f"{file} holds the unknown setting '{key}'; known are {', '.join(sorted(_CHOSEN))}"
        )
    read = setting.read(value)
    if read is None:
        raise SettingsError(f"'{key}' in {file} is {setting.allowed}, not {value!r}")
    return read


def default_home(environment: Mapping[str, str]) -> Path:
    """``ATOLL_HOME``, else ``atoll`` in the user's state directory (XDG Base Directory 0.8).

    Raises:
        SettingsError: no home directory is known.
    """
    if chosen := environment.get("ATOLL_HOME"):
        return Path(chosen).expanduser().absolute()
    state = environment.get("XDG_STATE_HOME", "")
    # The specification says to ignore relative paths.
    base = Path(state) if state.startswith("/") else _user_home() / ".local" / "state"
    return base / "atoll"


def default_mountpoint() -> Path:
    """``~/Atoll``.

    Raises:
        SettingsError: no home directory is known.
    """
    return _user_home() / "Atoll"


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise SettingsError(
            "no home directory is known for this user; set HOME, or ATOLL_HOME and a mountpoint"
        ) from error
