"""Whatever programs do and whenever: the drive shows what any file system would show.

Which item a name keeps must never be seen in names, bytes, modes, links or open handles. The same
system calls go to a drive and to a folder of this machine's own file system.
"""

import os
import random
from collections import Counter

import pytest

from node.errors import DriveError
from node.filesystem.saves import Saves
from protocol.values import Kind
from tests.node.filesystem.machines import Machine
from tests.node.storage.indexes import DatabasePool, Index, repeatable_ids

NAMES = ["f", "f~", "f.tmp", "g", "d/f", "d/f~"]
SEEDS = 12
CALLS = 40

happened: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """How often a name kept its item, and in which way."""
    for way in ("_take_over", "_swap", "_hand_on", "_leave_behind", "_place"):
        plain = getattr(Saves, way)

        def counting(*arguments, way=way, plain=plain):
            happened[way] += 1
            return plain(*arguments)

        monkeypatch.setattr(Saves, way, counting)


@pytest.fixture(autouse=True)
def ordinary_umask():
    """A node takes everything from others; a test of one leaves that behind in this process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class Folder:
    """The same calls on a real folder."""

    def __init__(self, root):
        self.root = root
        (root / "d").mkdir()

    def create(self, path):
        return os.open(self.root / path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)

    def open(self, path, truncate):
        return os.open(self.root / path, os.O_RDWR | (os.O_TRUNC if truncate else 0))

    def write(self, handle, data):
        os.pwrite(handle, data, 0)

    def read_handle(self, handle):
        return os.pread(handle, 1 << 16, 0)

    def close(self, handle):
        os.close(handle)

    def rename(self, source, target):
        os.rename(self.root / source, self.root / target)

    def exchange(self, first, second):
        if os.path.samefile(self.root / first, self.root / second):
            return
        os.rename(self.root / first, self.root / "exchanged")
        os.rename(self.root / second, self.root / first)
        os.rename(self.root / "exchanged", self.root / second)

    def unlink(self, path):
        os.unlink(self.root / path)

    def link(self, source, target):
        os.link(self.root / source, self.root / target)

    def chmod(self, path, mode):
        os.chmod(self.root / path, mode)

    def shown(self):
        names = {}
        for name in NAMES:
            path = self.root / name
            if path.exists():
                found = path.stat()
                names[name] = (path.read_bytes(), found.st_mode & 0o777, found.st_nlink)
        return names, self._links()

    def _links(self):
        numbers = {name: (self.root / name).stat().st_ino for name in NAMES if self._has(name)}
        return _partition(numbers)

    def _has(self, name):
        return (self.root / name).exists()


class OnDrive:
    """The calls on a drive."""

    def __init__(self, machine):
        self.machine = machine
        machine.mkdir("d")

    def create(self, path):
        return self.machine.create(path)

    def open(self, path, truncate):
        return self.machine.open(path, writable=True, truncate=truncate)

    def write(self, handle, data):
        self.machine.write(handle, data)

    def read_handle(self, handle):
        return self.machine.pread(handle)

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def shown(self):
        names, numbers = {}, {}
        for name in NAMES:
            if self.machine.exists(name):
                found = self.machine.stat(name)
                assert found.kind is Kind.FILE
                names[name] = (self.machine.read(name), found.mode, found.nlink)
                numbers[name] = found.inode
        return names, _partition(numbers)


def _partition(numbers):
    groups: dict[int, set[str]] = {}
    for name, number in numbers.items():
        groups.setdefault(number, set()).add(name)
    return sorted(map(sorted, groups.values()))


def _both(sides, call):
    """Run a call on both sides; the results, or one errno for both."""
    results, numbers = [], []
    for side in sides:
        try:
            results.append(call(side))
        except (OSError, DriveError) as error:
            numbers.append(error.errno)
    assert not numbers or (len(numbers) == 2 and numbers[0] == numbers[1]), numbers
    return None if numbers else results


# Beginnings of ways to save "a" with the help of "b" and "c".
WAYS = [
    [("rename", "a", "b"), ("put", "a", "a"), ("unlink", "b", "b")],
    [("put", "c", "c"), ("link", "a", "b"), ("rename", "c", "a")],
    [("put", "c", "c"), ("rename", "a", "b"), ("rename", "c", "a")],
    [("put", "c", "c"), ("rename", "a", "b"), ("create", "a", "a"), ("rename", "c", "b")],
    [("unlink", "a", "a"), ("put", "a", "a")],
    [("put", "c", "c"), ("exchange", "c", "a"), ("unlink", "c", "c")],
    [("put", "c", "c"), ("rename", "c", "a")],
]
ANY = ["create", "put", "put", "open", "write", "close", "rename", "unlink", "link", "chmod"]


def _calls(draw, count):
    """System calls: ways to save, cut off anywhere, and anything between them."""
    calls: list[tuple[str, str, str]] = []
    while len(calls) < count:
        if draw.random() < 0.6:
            names = dict(zip("abc", draw.sample(NAMES, 3), strict=True))
            if draw.random() < 0.6:
                names = {"a": "f", "b": "f~", "c": draw.choice(["f.tmp", "g"])}
            way = draw.choice(WAYS)[: draw.randint(1, 4)]
            for call, one, other in way:
                calls.append((call, names[one], names[other]))
                if draw.random() < 0.15:
                    calls.append((draw.choice(ANY), draw.choice(NAMES), draw.choice(NAMES)))
        else:
            calls.append((draw.choice(ANY), draw.choice(NAMES), draw.choice(NAMES)))
    return calls


def _step(draw, sides, handles, number, call, one, other):
    data = f"{number}".encode() * draw.randint(1, 4)
    done = None
    if call in ("create", "open", "put"):
        truncate = draw.random() < 0.5
        done = _both(
            sides, lambda side: side.open(one, truncate) if call == "open" else side.create(one)
        )
        if done is not None and call == "put":
            for side, handle in zip(sides, done, strict=True):
                side.write(handle, data)
                side.close(handle)
        elif done is not None:
            handles.append(done)
    elif call in ("write", "close") and handles:
        pair = draw.choice(handles)
        for side, handle in zip(sides, pair, strict=True):
            if call == "write":
                side.write(handle, data)
            else:
                side.close(handle)
        if call == "close":
            handles.remove(pair)
    elif call in ("rename", "exchange", "link"):
        _both(sides, lambda side: getattr(side, call)(one, other))
    elif call == "unlink":
        _both(sides, lambda side: side.unlink(one))
    elif call == "chmod":
        mode = draw.choice([0o600, 0o640, 0o755])
        _both(sides, lambda side: side.chmod(one, mode))


@pytest.fixture(scope="module")
def databases():
    pool = DatabasePool()
    yield pool
    pool.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_drive_shows_what_a_folder_shows(databases, tmp_path, seed):
    draw = random.Random(seed)
    (tmp_path / "folder").mkdir()
    with databases.borrow(1) as (database,), repeatable_ids(b"law%d" % seed):
        machine = Machine(Index(database, 0), tmp_path / "home")
        drive = OnDrive(machine)
        sides = (Folder(tmp_path / "folder"), drive)
        handles: list[list[int]] = []
        for number, (call, one, other) in enumerate(_calls(draw, CALLS)):
            machine.wait(draw.choice([0.001, 0.001, 0.05, 0.05, 1.0, 20.0]))
            _step(draw, sides, handles, number, call, one, other)
            if draw.random() < 0.3:
                machine.index.seal()
            folder, shown = sides[0].shown(), drive.shown()
            assert shown == folder, f"after call {number}"
            for one, other in handles:
                assert drive.read_handle(other) == sides[0].read_handle(one)
            machine.check_names()
        for pair in handles:
            os.close(pair[0])


def test_it_was_about_something():
    """Runs after the others."""
    for way in ("_take_over", "_swap", "_hand_on", "_leave_behind", "_place"):
        assert happened[way] > 2, happened
