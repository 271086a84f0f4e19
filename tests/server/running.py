"""A real server process for tests: started on a loopback port, stopped by SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 30
STOP_S = 15


@dataclass
class RunningServer:
    """A server that runs."""

    url: str
    data: Path
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def invite(self) -> str:
        """An invitation, by the command that an operator would use."""
        return run_command("invite", "--data", str(self.data)).stdout.strip()

    def stop(self) -> int:
        """SIGTERM, then wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m server`` with arguments until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


@contextmanager
def running_process(data: Path, **settings: object) -> Iterator[RunningServer]:
    """A server on a data directory, with its process at hand; see `running_server`."""
    arguments = []
    for name, value in {"listen": "127.0.0.1:0", **settings}.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            arguments += [option]
        elif value is not None and value is not False:
            arguments += [option, str(value)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "run", "--data", str(data), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield _started(process, data)
        finally:
            _end(process)
            errors.seek(0)
            said = errors.read()
            sys.stderr.write(said)
        # A request that failed for no fault of its client leaves a traceback.
        if "Traceback" in said or "ERROR" in said:
            raise AssertionError(f"the server logged errors:\n{said}")


def _started(process: subprocess.Popen[str], data: Path) -> RunningServer:
    assert process.stdout is not None
    line = process.stdout.readline()
    prefix = "atoll server listening on "
    if not line.startswith(prefix):
        raise RuntimeError(f"the server did not start: it said {line!r}")
    return RunningServer(line.removeprefix(prefix).strip(), data, process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def running_server(tmp_path: Path, **settings: object) -> Iterator[str]:
    """A server in ``tmp_path / 'server'``, started and stopped; yields its URL.

    Settings are the command line's options with underscores, such as ``open_registration=True`` or
    ``token_lifetime_s=2``.
    """
    with running_process(tmp_path / "server", **settings) as server:
        yield server.url
