"""Real programs save a file on a real mount, and the file stays the same item with its history.

The programs are those that `apt-get` gives; a machine without one says loudly that it left it out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.system.processes import eventually
from tests.system.world import Device, World

pytestmark = [pytest.mark.system, pytest.mark.fuse]

PROGRAM_S = 30


def run(folder: Path, *command: str, stdin: str | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
        env=os.environ | {"HOME": str(folder.parent.parent), "TERM": "xterm", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def vim(folder: Path, old: str, new: str, *settings: str) -> None:
    set_all = [part for setting in settings for part in ("-c", f"set {setting}")]
    change = ["-c", f"%s/{old}/{new}/", "-c", "wq"]
    run(folder, "vim", "-N", "-u", "NONE", "-n", "-e", "-s", *set_all, *change, "f.txt")


def vim_with(setting: str, folder: Path, old: str, new: str) -> None:
    vim(folder, old, new, setting)


def emacs(folder: Path, old: str, new: str, *forms: str) -> None:
    change = f'(progn {" ".join(forms)} (find-file "f.txt") (replace-string "{old}" "{new}") (save-buffer))'
    run(folder, "emacs", "-Q", "--batch", "--eval", change)


def sed(folder: Path, old: str, new: str) -> None:
    run(folder, "sed", "-i", f"s/{old}/{new}/", "f.txt")


def perl(folder: Path, old: str, new: str) -> None:
    run(folder, "perl", "-pi", "-e", f"s/{old}/{new}/", "f.txt")


def rsync(folder: Path, old: str, new: str, *options: str) -> None:
    source = folder.parent.parent / "rsync-source"
    source.mkdir(exist_ok=True)
    (source / "f.txt").write_text((folder / "f.txt").read_text().replace(old, new))
    run(folder, "rsync", "-a", "--checksum", *options, f"{source}/f.txt", "./")


def git(folder: Path, old: str, new: str) -> None:
    """Two commits, and a checkout that goes from one to the other."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]
    run(folder, *command, "init", "-q")
    run(folder, *command, "add", "f.txt")
    run(folder, *command, "commit", "-q", "--allow-empty", "-m", "old")
    (folder / "f.txt").write_text((folder / "f.txt").read_text().replace(old, new))
    run(folder, *command, "commit", "-qam", "new")
    run(folder, *command, "checkout", "-q", "HEAD~1")
    assert old in (folder / "f.txt").read_text()
    run(folder, *command, "checkout", "-q", "-")


def python(folder: Path, old: str, new: str) -> None:
    """The recipe for atomic writing."""
    program = """
import os, sys, tempfile
old, new = sys.argv[1:]
text = open("f.txt").read().replace(old, new)
with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
os.replace(file.name, "f.txt")
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
"""
    run(folder, sys.executable, "-c", program, old, new)


def exchange(folder: Path, old: str, new: str) -> None:
    """renameat2 with RENAME_EXCHANGE, then the old one is removed."""
    program = """
import ctypes, os, sys
old, new = sys.argv[1:]
open("f.txt.new", "w").write(open("f.txt").read().replace(old, new))
libc = ctypes.CDLL(None, use_errno=True)
outcome = libc.renameat2(-100, b"f.txt.new", -100, b"f.txt", 2)
assert outcome == 0, os.strerror(ctypes.get_errno())
os.unlink("f.txt.new")
"""
    run(folder, sys.executable, "-c", program, old, new)


Save = Callable[[Path, str, str], None]


def using(program: str, name: str, save: Save) -> object:
    return pytest.param(save, id=name, marks=pytest.mark.program(program))


PROGRAMS = [
    using("vim", "vim", vim),
    using("vim", "vim-backupcopy-no", partial(vim_with, "backupcopy=no")),
    using("vim", "vim-backupcopy-yes", partial(vim_with, "backupcopy=yes")),
    using("vim", "vim-backup", lambda f, o, n: vim(f, o, n, "backup", "backupcopy=no")),
    using("emacs", "emacs", emacs),
    using(
        "emacs",
        "emacs-backup-by-copying",
        lambda f, o, n: emacs(f, o, n, "(setq backup-by-copying t)"),
    ),
    using(
        "emacs",
        "emacs-precious",
        lambda f, o, n: emacs(f, o, n, "(setq file-precious-flag t)"),
    ),
    using("sed", "sed", sed),
    using("perl", "perl", perl),
    using("rsync", "rsync", rsync),
    using("rsync", "rsync-inplace", lambda f, o, n: rsync(f, o, n, "--inplace")),
    using("rsync", "rsync-backup", lambda f, o, n: rsync(f, o, n, "--backup")),
    using("git", "git-checkout", git),
    using("python3", "python", python),
    using("python3", "exchange", exchange),
]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with World(tmp_path_factory.mktemp("programs") / "world") as world:
        world.server.start()
        (device,) = world.enrolled("a")
        device.start()
        yield device
        device.stop()


def item_of(file: Path) -> bytes:
    return os.getxattr(file, "user.atoll.item")


@pytest.mark.parametrize("save", PROGRAMS)
def test_a_file_stays_the_same_item(
    device: Device, save: Save, request: pytest.FixtureRequest
) -> None:
    folder = device.mount / request.node.callspec.id
    folder.mkdir()
    file = folder / "f.txt"
    file.write_text("the old text\n")
    device.wait()
    item = item_of(file)
    save(folder, "old", "new")
    assert "new" in file.read_text()
    assert item_of(file) == item
    save(folder, "new", "newer")
    assert "newer" in file.read_text()
    assert item_of(file) == item
    device.wait()
    assert item_of(file) == item
    left = {name for name in os.listdir(folder) if name not in ("f.txt", "f.txt~", ".git")}
    assert left == set()


LINES = [f"line {number:02}\n" for number in range(30)]


@pytest.mark.parametrize(
    "save",
    [
        using("vim", "vim", partial(vim_with, "backupcopy=no")),
        using("emacs", "emacs", emacs),
        using("sed", "sed", sed),
    ],
)
def test_what_two_devices_save_apart_is_merged(world: World, save: Save) -> None:
    world.server.start()
    a, b = world.device("a"), world.device("b")
    for one in (a, b):
        one.start()
    (a.mount / "f.txt").write_text("".join(LINES))
    a.wait()
    b.wait()
    world.server.stop()
    save(a.mount, "line 03", "line 03 by A")
    save(b.mount, "line 27", "line 27 by B")
    world.server.start()
    both = "".join(LINES).replace("03\n", "03 by A\n").replace("27\n", "27 by B\n")
    for one in (a, b):
        eventually(partial(_reads, one.mount / "f.txt", both), "both edits are there", 30)
        one.wait()
        assert one.conflicts() == []
        names = set(os.listdir(one.mount)) - {"f.txt~"}
        assert names == {"f.txt"}


def _reads(file: Path, text: str) -> bool:
    return file.read_text() == text
