"""One node per state directory, and nobody else looks into it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.errors import SettingsError, StorageError
from node.storage.state_directory import StateDirectory

REPOSITORY = Path(__file__).parents[3]


def run_python(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_everything_in_it_is_private_whatever_the_umask(tmp_path: Path):
    former = os.umask(0)
    try:
        with StateDirectory.open(tmp_path / "deep" / "home") as state:
            assert state.home.stat().st_mode & 0o777 == 0o700
            for path in (state.staging, state.blocks):
                assert path.is_dir()
                assert path.stat().st_mode & 0o777 == 0o700
            assert (state.home / "lock").stat().st_mode & 0o777 == 0o600
            assert state.index.parent == state.home
    finally:
        os.umask(former)


def test_a_directory_that_was_open_to_others_is_closed_to_them(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    with StateDirectory.open(home):
        assert home.stat().st_mode & 0o777 == 0o700


def test_a_second_node_is_told_who_holds_it_and_what_to_do(tmp_path: Path):
    sentence = f"process {os.getpid()}.*atoll unmount.*--home"
    with StateDirectory.open(tmp_path), pytest.raises(SettingsError, match=sentence):
        StateDirectory.open(tmp_path)
    with StateDirectory.open(tmp_path):
        pass


HOLDER = """
import sys, signal
from pathlib import Path
from node.storage.state_directory import StateDirectory
state = StateDirectory.open(Path(sys.argv[1]))
print("held", flush=True)
signal.pause()
"""


def test_the_lock_of_a_killed_node_is_free(tmp_path: Path):
    with run_python(HOLDER, str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(SettingsError, match=f"process {process.pid}"):
            StateDirectory.open(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with StateDirectory.open(tmp_path):
            pass


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_home_that_is_no_folder_is_a_sentence(tmp_path: Path, name: str):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="is not a folder"):
        StateDirectory.open(tmp_path / name)


@pytest.mark.root
def test_a_home_of_another_user_is_refused(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        StateDirectory.open(home)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="No space left"):
        StateDirectory.open(tmp_path / "home")


UNDUMPABLE = """
import ctypes, resource
from node.storage.state_directory import disable_core_dumps
disable_core_dumps()
PR_GET_DUMPABLE = 3
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
"""


def test_no_core_can_be_dumped():
    with run_python(UNDUMPABLE) as process:
        output, _ = process.communicate()
    assert output == "(0, 0) 0\n"
