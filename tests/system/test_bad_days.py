"""Bad days of the whole system: crashes, a server that goes away, disks that are full."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.processes import eventually
from tests.system.trees import differences, digest, snapshot
from tests.system.world import Device, World, is_mount

pytestmark = [pytest.mark.system, pytest.mark.fuse]

MEBIBYTE = 1024 * 1024


def both_synced(*devices: Device) -> None:
    for device in devices:
        device.wait("synced", 60)


def until_offline(device: Device) -> None:
    eventually(lambda: device.server_state() == "offline", f"{device.name} says it is offline")


def assert_same(first: Device, second: Device) -> None:
    found = differences(snapshot(first.mount), snapshot(second.mount))
    assert not found, "\n".join(found)


def started(world: World) -> tuple[Device, Device]:
    """Server and both devices run."""
    world.server.start()
    a, b = world.device("a"), world.device("b")
    a.start()
    b.start()
    return a, b


# The server goes away


def test_without_a_server_at_the_start_the_mount_works_and_the_changes_arrive_later(
    world: World,
) -> None:
    a, b = world.device("a"), world.device("b")
    a.start()
    folder = a.mount / "folder"
    folder.mkdir()
    (folder / "small").write_text("written without a server")
    (folder / "large").write_bytes(os.urandom(3 * MEBIBYTE))
    assert (folder / "small").read_text() == "written without a server"

    until_offline(a)
    report = a.status()
    assert report["pending"]["records"] > 0
    assert report["synced"] is False
    refused = a.atoll("wait", "--for", "synced", "--timeout", "0.3")
    assert refused.returncode == 1
    assert "still pending" in refused.stderr

    world.server.start()
    b.start()
    both_synced(a, b)
    assert a.server_state() == "online"
    assert_same(a, b)


def test_when_the_server_goes_away_work_is_queued_and_arrives_when_it_is_back(
    world: World,
) -> None:
    a, b = started(world)
    (a.mount / "before").write_text("before")
    both_synced(a, b)

    world.server.kill()
    (a.mount / "during").write_bytes(os.urandom(MEBIBYTE))
    (a.mount / "before").rename(a.mount / "after")
    (b.mount / "from b").write_text("b")
    assert (b.mount / "before").read_text() == "before"
    for device in (a, b):
        until_offline(device)
        assert device.status()["pending"]["records"] > 0
        assert sorted(os.listdir(device.mount)), "the mount answers"

    world.server.start()
    both_synced(a, b, a)
    assert_same(a, b)
    assert sorted(os.listdir(a.mount)) == ["after", "during", "from b"]


def test_a_file_that_is_not_here_gives_an_error_in_time_while_the_server_is_away(
    world: World,
) -> None:
    a, b = started(world)
    (a.mount / "large").write_bytes(b"l" * 2 * MEBIBYTE)
    both_synced(a, b)
    world.server.stop()
    assert (b.mount / "large").stat().st_size == 2 * MEBIBYTE
    # Its bytes never came to B: the read fails by its deadline and does not hang.
    done = subprocess.run(["cat", b.mount / "large"], capture_output=True, timeout=45, check=False)
    assert done.returncode != 0
    assert b"large" in done.stderr
    world.server.start()
    both_synced(b)
    assert (b.mount / "large").read_bytes() == b"l" * 2 * MEBIBYTE


def test_without_a_server_at_the_end_the_node_ends_in_order_and_sends_at_the_next_run(
    world: World,
) -> None:
    a, b = started(world)
    both_synced(a, b)
    world.server.stop()
    (a.mount / "last words").write_text("written at the end")
    (a.mount / "large").write_bytes(os.urandom(5 * MEBIBYTE))
    before = snapshot(a.mount)
    a.stop()

    a.start()
    assert differences(before, snapshot(a.mount)) == []
    world.server.start()
    both_synced(a, b)
    assert_same(a, b)


# Crashes


def test_what_was_closed_when_the_node_was_killed_is_there_and_arrives(world: World) -> None:
    a, b = started(world)
    old = a.mount / "old"
    old.write_bytes(b"0" * 3 * MEBIBYTE)
    (a.mount / "to be moved").write_text("moved")
    (a.mount / "to be removed").write_text("removed")
    both_synced(a, b)

    tiny, large = secrets.token_bytes(100), secrets.token_bytes(5 * MEBIBYTE + 3)
    (a.mount / "to be moved").rename(a.mount / "moved")
    (a.mount / "to be removed").unlink()
    (a.mount / "folder").mkdir()
    (a.mount / "link").symlink_to("tiny")
    (a.mount / "large").write_bytes(large)
    with old.open("r+b") as file:
        file.seek(MEBIBYTE + 17)
        file.write(b"in the middle")
        file.truncate(2 * MEBIBYTE + 1)
    (a.mount / "tiny").write_bytes(tiny)
    a.kill()

    with pytest.raises(OSError, match="not connected"):
        os.listdir(a.mount)
    assert is_mount(a.mount), "the crash left a stale mountpoint, which is what comes next"
    a.start()
    assert sorted(os.listdir(a.mount)) == ["folder", "large", "link", "moved", "old", "tiny"]
    assert (a.mount / "tiny").read_bytes() == tiny
    assert (a.mount / "large").read_bytes() == large
    expected = bytearray(b"0" * (2 * MEBIBYTE + 1))
    expected[MEBIBYTE + 17 : MEBIBYTE + 30] = b"in the middle"
    assert old.read_bytes() == expected
    both_synced(a, b)
    assert_same(a, b)
    assert (b.mount / "tiny").read_bytes() == tiny
    assert a.status()["conflicts"] == 0


def test_what_was_synced_of_an_open_file_is_there_after_a_kill(world: World) -> None:
    world.server.start()
    a = world.device("a")
    a.start()
    descriptor = os.open(a.mount / "open", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, b"synced")
        os.fsync(descriptor)
        a.kill()
    finally:
        # The file system is gone, and says so.
        with pytest.raises(OSError, match=r"."):
            os.close(descriptor)
    a.start()
    assert (a.mount / "open").read_bytes() == b"synced"


def test_an_upload_that_a_kill_cut_off_goes_on_where_it_was(world: World) -> None:
    a, b = started(world)
    size = 192 * MEBIBYTE
    with (a.mount / "big").open("wb") as file:
        for _ in range(size // MEBIBYTE):
            file.write(os.urandom(MEBIBYTE))
    want = digest(a.mount / "big")

    def has_sent_some() -> bool:
        return bool(a.status()["counters"]["bytes_to_server"] > 16 * MEBIBYTE)

    eventually(has_sent_some, "some of the file is at the server", 30)
    a.kill()
    stored = sum(file.stat().st_size for file in world.server.data.rglob("*") if file.is_file())
    assert stored < size, "the kill came too late to cut anything off"

    a.start()
    assert digest(a.mount / "big") == want
    both_synced(a, b)
    assert a.status()["counters"]["bytes_to_server"] < size - 8 * MEBIBYTE
    assert digest(b.mount / "big") == want


def test_a_server_that_is_killed_during_an_upload_loses_nothing(world: World) -> None:
    a, b = started(world)
    for number in range(8):
        (a.mount / f"file {number}").write_bytes(os.urandom(8 * MEBIBYTE))
        if number in (2, 5):
            world.server.kill()
            world.server.start()
    both_synced(a, b)
    assert_same(a, b)


def test_a_token_that_expires_during_a_transfer_is_renewed(world: World) -> None:
    world.server.start("--token-lifetime-s", "1")
    a, b = world.device("a"), world.device("b")
    a.start()
    b.start()
    # Several of the tokens' lives, with a transfer always on its way.
    began_s, number = time.monotonic(), 0
    while time.monotonic() < began_s + 5:
        (a.mount / f"file {number % 12}").write_bytes(os.urandom(8 * MEBIBYTE))
        number += 1
    both_synced(a, b)
    assert_same(a, b)
    assert a.status()["alarms"] == b.status()["alarms"] == []


# Refusals


def test_a_second_node_on_one_home_is_refused(world: World) -> None:
    world.server.start()
    a = world.device("a")
    a.start()
    done = a.atoll("run", world.root / "mounts" / "second")
    assert done.returncode == 1
    assert_sentence(done.stderr, "another", str(a.home))
    assert os.listdir(a.mount) == []
    a.stop()


@pytest.mark.parametrize(
    ("prepare", "word"), [("missing", "mkdir"), ("not empty", "not empty"), ("file", "folder")]
)
def test_a_mountpoint_that_will_not_do_is_refused(world: World, prepare: str, word: str) -> None:
    world.server.start()
    a = world.device("a")
    place = world.root / "chosen" / "place"
    if prepare == "not empty":
        (place / "something").mkdir(parents=True)
    elif prepare == "file":
        place.parent.mkdir()
        place.write_text("a file")
    done = a.atoll("run", place)
    assert done.returncode == 1
    assert_sentence(done.stderr, str(place), word)


@pytest.mark.root
def test_without_fuse_the_node_says_what_is_missing(world: World) -> None:
    world.server.start()
    a = world.device("a")
    a.mount.mkdir(parents=True)
    # In a mount namespace of its own, /dev is empty.
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"]
    done = world.command("run", a.mount, "--home", a.home, prefix=hide)
    assert done.returncode == 1
    assert_sentence(done.stderr, "/dev/fuse", "modprobe fuse")


def test_a_wrong_password_and_an_unknown_account_get_the_same_answer(world: World) -> None:
    world.server.start()
    wrong = world.root / "wrong"
    wrong.write_text("not the password\n")
    answers: list[str] = []
    for email, file in (("someone@example.org", wrong), ("nobody@example.org", wrong)):
        device = world.device(f"new-{len(answers)}")
        done = device.atoll("login", email, "--server", world.server.url, "--password-file", file)
        assert done.returncode == 1
        assert_sentence(done.stderr, "password")
        answers.append(done.stderr.replace(email, "EMAIL"))
        assert not (device.home / "keys").exists()
    assert answers[0] == answers[1]


def test_enrolment_without_a_server_says_so_and_works_later(world: World) -> None:
    device = world.device("c")
    done = device.atoll(
        "login",
        "someone@example.org",
        "--server",
        world.server.url,
        "--password-file",
        world.password_file,
    )
    assert done.returncode == 1
    assert_sentence(done.stderr, world.server.url)
    world.server.start()
    device.enrol("login")
    device.start()
    both_synced(device)


def test_a_certificate_that_is_not_the_pinned_one_is_refused(world: World) -> None:
    url = world.server.start("--open-registration", listen=f"0.0.0.0:{world.server.port}")
    address, _, pin = url.partition("#sha256=")
    assert address.startswith("https://")
    assert pin
    wrong = f"{address}#sha256={'0' * len(pin)}"
    device = world.device("c")
    done = device.atoll(
        "login", "someone@example.org", "--server", wrong, "--password-file", world.password_file
    )
    assert done.returncode == 1
    assert_sentence(done.stderr, "another key")
    device.enrol("login", server=url)
    device.start()
    (device.mount / "over TLS").write_bytes(os.urandom(2 * MEBIBYTE))
    both_synced(device)
    assert device.status()["server"]["url"].startswith("https://")


def assert_sentence(said: str, *words: str) -> None:
    """One line that says what happened, with what must be in it."""
    lines = [line for line in said.splitlines() if line.startswith("atoll")]
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0], said


# Names and conflicts


def test_two_devices_edit_one_file_apart_and_nothing_is_lost(world: World) -> None:
    a, b = started(world)
    (a.mount / "folder").mkdir()
    (a.mount / "folder" / "file").write_bytes(b"\0base")
    both_synced(a, b)
    world.server.stop()
    for device in (a, b):
        until_offline(device)
    (a.mount / "folder" / "file").write_bytes(b"\0from a, " + b"a" * 100_000)
    (b.mount / "folder" / "file").write_bytes(b"\0from b, which is another length")
    written = {
        (a.mount / "folder" / "file").read_bytes(),
        (b.mount / "folder" / "file").read_bytes(),
    }
    world.server.start()
    both_synced(a, b, a)

    assert_same(a, b)
    shown = (a.mount / "folder" / "file").read_bytes()
    assert (b.mount / "folder" / "file").read_bytes() == shown
    for device in (a, b):
        (conflict,) = device.conflicts()
        assert conflict["path"] == os.fspath(device.mount / "folder" / "file")
        assert device.status()["conflicts"] == 1
        place = Path(conflict["readable_at"])
        assert place.parent == device.mount / ".atoll" / "conflicts" / "folder" / "file"
        assert {shown, place.read_bytes()} == written
        assert os.listdir(place.parent) == [place.name]
        assert sorted(os.listdir(device.mount)) == ["folder"]
        assert os.listdir(device.mount / "folder") == ["file"]
        with pytest.raises(OSError, match=r"."):
            place.write_bytes(b"read-only")


def test_names_of_any_bytes_and_of_255_bytes_travel(world: World) -> None:
    a, b = started(world)
    root = os.fsencode(a.mount)
    names = [
        b"\xff\xfe not UTF-8",
        b"n" * 255,
        "ü".encode() * 127,
        b"line\nbreak",
        b"\x01",
        b" ",
        b"...",
    ]
    names += ["é".encode(), "e\u0301".encode(), b"A", b"a"]
    for name in names:
        with open(root + b"/" + name, "wb") as file:
            file.write(name)
    deep = root + b"/" + b"/".join([b"d" * 255] * 6)
    os.makedirs(deep)
    for bad, number in ((b"n" * 256, errno.ENAMETOOLONG), (b"x" * 300, errno.ENAMETOOLONG)):
        with pytest.raises(OSError, match=r".") as caught:
            os.mkdir(root + b"/" + bad)
        assert caught.value.errno == number
    both_synced(a, b)
    there = os.fsencode(b.mount)
    assert sorted(os.listdir(there)) == sorted([*names, b"d" * 255])
    for name in names:
        with open(there + b"/" + name, "rb") as file:
            assert file.read() == name
    assert_same(a, b)


# Full disks


@contextmanager
def small_disk(place: Path, size_mib: int) -> Iterator[None]:
    """A file system of a few MiB with what the folder holds."""
    aside = place.with_name(place.name + ".aside")
    place.rename(aside)
    place.mkdir(mode=0o700)
    options = f"size={size_mib}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", os.fspath(place)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", place], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def grow(place: Path, size_mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_mib}m", place], check=True)


@pytest.mark.root
def test_a_full_disk_under_the_node_is_told_to_the_writer_and_harms_nothing(world: World) -> None:
    a, b = world.device("a"), world.device("b")
    world.server.start()
    with small_disk(a.home, 40):
        a.start()
        b.start()
        (a.mount / "early").write_bytes(b"early" * 1000)
        both_synced(a, b)
        with pytest.raises(OSError, match=r".") as caught:
            fill(a.mount / "too large", 80 * MEBIBYTE)
        assert caught.value.errno == errno.ENOSPC
        assert (a.mount / "early").read_bytes() == b"early" * 1000
        assert os.listdir(a.mount), "the mount answers"
        assert a.status()["device"]["name"] == "device-a"
        (a.mount / "too large").unlink()
        grow(a.home, 400)
        (a.mount / "late").write_bytes(b"late" * 500_000)
        both_synced(a, b)
        assert (b.mount / "late").read_bytes() == b"late" * 500_000
        assert_same(a, b)
        a.stop()
        a.start()
        assert_same(a, b)
        a.stop()


@pytest.mark.root
def test_a_full_disk_under_the_server_queues_and_goes_on_when_there_is_room(world: World) -> None:
    a, b = world.device("a"), world.device("b")
    with small_disk(world.server.data, 24):
        world.server.start("--reserve-bytes", str(4 * MEBIBYTE))
        a.start()
        b.start()
        (a.mount / "early").write_bytes(os.urandom(MEBIBYTE))
        both_synced(a, b)
        fill(a.mount / "large", 40 * MEBIBYTE)
        refused = a.atoll("wait", "--for", "server", "--timeout", "3")
        assert refused.returncode == 1
        report = a.status()
        assert report["pending"]["records"] > 0
        assert any("space" in str(alarm) or "full" in str(alarm) for alarm in report["alarms"])
        (a.mount / "small").write_text("what is small waits behind nothing")
        assert (b.mount / "early").read_bytes() == (a.mount / "early").read_bytes()
        grow(world.server.data, 400)
        both_synced(a, b)
        assert_same(a, b)
        assert a.status()["alarms"] == []
        a.stop()
        b.stop()
        world.server.stop()


def fill(path: Path, size_bytes: int) -> None:
    """Write a file of noise; the error of a full disk may come with a write or with the close."""
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // MEBIBYTE):
            file.write(os.urandom(MEBIBYTE))
