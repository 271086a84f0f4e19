"""A small world for system tests and for the bench: one server, several devices, all in one folder.

Everything goes through the real command line. A device has a state directory and a mountpoint; a
server has a data directory and a port that it keeps over restarts. Every wait has a deadline, and a
watchdog ends the nodes when a test hangs in the mount: a system call there returns as soon as its
node is gone. Mounts that were left behind are taken away at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.system.processes import LoggedProcess, eventually

CHECKOUT = Path(__file__).parents[2]
ATOLL = Path(sys.executable).parent / "atoll"
EMAIL = "someone@example.org"
PASSWORD = "correct horse battery staple"

START_S = 30.0
STOP_S = 30.0
COMMAND_S = 60.0


class Server:
    """The server's process, on one loopback port for as long as the world stands."""

    def __init__(self, world: World, data: Path, port: int) -> None:
        self.world = world
        self.data = data
        self.port = port
        self.process: LoggedProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str, listen: str | None = None) -> str:
        """Start it and wait until it listens; the URL that it prints.

        Args:
            options: of `python -m server`, which has some that `atoll server` does not offer.
        """
        assert self.process is None or not self.process.is_running
        self.process = process = self.world.spawn(
            "server.log",
            [sys.executable, "-m", "server"] if options else [ATOLL, "server"],
            "run",
            "--data",
            self.data,
            "--listen",
            listen or f"127.0.0.1:{self.port}",
            *options,
        )

        def url() -> str:
            if not process.is_running:
                raise AssertionError(f"the server did not start: {process.said()}")
            _, _, after = process.said().partition("listening on ")
            return after.split("\n")[0].strip() if "\n" in after else ""

        return eventually(url, "the server listens", START_S)

    def stop(self) -> None:
        """End it in order."""
        assert self.process is not None
        assert self.process.terminate(STOP_S) == 0, self.process.said()

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()


class Device:
    """One device: its state directory, its mountpoint, and its node while it runs."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.home = world.root / "homes" / name
        self.mount = world.root / "mounts" / name
        self.process: LoggedProcess | None = None

    # The command line

    def atoll(
        self, *arguments: str | Path, timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command for this device until it ends."""
        return self.world.command(*arguments, "--home", self.home, timeout_s=timeout_s)

    def enrol(self, *command: str, server: str | None = None) -> str:
        """`atoll account create` or `atoll login`; what it printed."""
        done = self.atoll(
            *command,
            EMAIL,
            "--server",
            server or self.world.server.url,
            "--device-name",
            f"device-{self.name}",
            "--password-file",
            self.world.password_file,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """The report of `atoll status --json`."""
        done = self.atoll("status", "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert isinstance(report, dict)
        return report

    def server_state(self) -> str:
        return str(self.status()["server"]["state"])

    def conflicts(self) -> list[dict[str, Any]]:
        """The report of `atoll conflicts --json`."""
        done = self.atoll("conflicts", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, list)
        return found

    def wait(self, target: str = "synced", within_s: float = 60) -> None:
        """`atoll wait --for`; fails when the time runs out."""
        done = self.atoll(
            "wait", "--for", target, "--timeout", f"{within_s:g}", timeout_s=within_s + 30
        )
        assert done.returncode == 0, f"{self.name}: {done.stderr}\n{self.log()}"

    # The node

    def start(self, *options: str) -> None:
        """Start the node and wait until it is mounted."""
        process = self.launch(*options)

        def is_mounted() -> bool:
            if not process.is_running:
                raise AssertionError(f"the node did not start: {process.said()}")
            return "mounted at" in process.said()

        eventually(is_mounted, f"{self.name} is mounted", START_S)

    def launch(self, *options: str) -> LoggedProcess:
        """Start the node without waiting for anything."""
        assert self.process is None or not self.process.is_running
        self.mount.parent.mkdir(parents=True, exist_ok=True)
        self.process = self.world.spawn(
            f"{self.name}.log", [ATOLL], "run", self.mount, "--home", self.home, *options
        )
        return self.process

    def stop(self) -> None:
        """SIGTERM: the node writes out, unmounts, and exits with 0."""
        assert self.process is not None
        assert self.process.terminate(STOP_S) == 0, self.process.said()
        assert not is_mount(self.mount), "a node that ended in order left its mount"

    def unmount(self) -> None:
        """`atoll unmount`: the same from another shell."""
        assert self.process is not None
        done = self.atoll("unmount")
        assert done.returncode == 0, done.stderr
        assert self.process.wait(STOP_S) == 0, self.process.said()
        assert not is_mount(self.mount), "a node that ended in order left its mount"

    def kill(self) -> None:
        """SIGKILL: as a crash of the process."""
        assert self.process is not None
        self.process.kill()

    def log(self, last_characters: int = 4000) -> str:
        return "" if self.process is None else self.process.said()[-last_characters:]


class World:
    """A folder with a server, devices, their logs; a context that leaves no process and no mount."""

    def __init__(self, root: Path, port: int | None = None, deadline_s: float = 300) -> None:
        self.root = root
        self.logs = root / "logs"
        self.logs.mkdir(parents=True)
        (root / "homes").mkdir()
        self.password_file = root / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.server = Server(self, root / "server", port or free_port())
        self.devices: dict[str, Device] = {}
        self._processes: list[LoggedProcess] = []
        self._watchdog = threading.Timer(deadline_s, self._end_processes)
        self._watchdog.daemon = True

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watchdog.cancel()
        self._end_processes()
        for device in self.devices.values():
            detach(device.mount)

    def device(self, name: str) -> Device:
        """The device of that name; the same at every call."""
        if name not in self.devices:
            self.devices[name] = Device(self, name)
        return self.devices[name]

    def enrolled(self, *names: str) -> list[Device]:
        """Devices of one account: the first creates it, the others log in. The server must run."""
        devices = [self.device(name) for name in names]
        for device in devices:
            if device is devices[0]:
                device.enrol("account", "create")
            else:
                device.enrol("login")
        return devices

    def spawn(
        self, log: str, program: Sequence[str | Path], *arguments: str | Path
    ) -> LoggedProcess:
        """Start a program with arguments."""
        process = LoggedProcess([*program, *arguments], self.logs / log, self.environment())
        self._processes.append(process)
        return process

    def command(
        self,
        *arguments: str | Path,
        timeout_s: float = COMMAND_S,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `atoll` with arguments until it ends; no traceback may reach the user."""
        done = subprocess.run(
            [*prefix, ATOLL, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            env=self.environment(),
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "a mistake in Atoll" not in done.stderr, done.stderr + self.last_mistake()
        return done

    def environment(self) -> dict[str, str]:
        """What processes of this world see: nothing of the person who runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
        return kept | {
            "HOME": os.fspath(self.root),
            "XDG_STATE_HOME": os.fspath(self.root / "state"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }

    def last_mistake(self) -> str:
        found = self.root / "state" / "atoll-mistakes" / "last.txt"
        return found.read_text() if found.exists() else ""

    def all_logs(self, last_characters: int = 6000) -> str:
        """The ends of all logs, for the report of a failed test."""
        said = "\n".join(
            f"== {log.name}\n{log.read_text(errors='replace')[-last_characters:]}"
            for log in sorted(self.logs.iterdir())
        )
        return said + self.last_mistake()

    def _end_processes(self) -> None:
        for process in reversed(self._processes):
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def is_mount(place: Path) -> bool:
    """Whether anything is mounted there, from the mount table: a dead mount can not be looked at."""
    path = os.fsencode(place.parent.resolve() / place.name)
    escaped = path.replace(b"\\", b"\\134").replace(b" ", b"\\040")
    return any(
        line.split(b" ")[4] == escaped
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    )


def detach(place: Path) -> None:
    """Take away whatever is mounted there, dead or alive."""
    for _ in range(4):
        if not is_mount(place):
            return
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        subprocess.run([*command, os.fspath(place)], capture_output=True, timeout=10, check=False)


def copy_world(template: Path, root: Path) -> None:
    """Copy the state of a world that is at rest: its server's data and its devices' homes."""
    for part in ("server", "homes"):
        shutil.copytree(template / part, root / part, symlinks=True, dirs_exist_ok=True)
