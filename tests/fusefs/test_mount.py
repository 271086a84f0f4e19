"""What a mount does besides answering programs: failing well, following remote changes, ending."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3
import pytest
import structlog
import trio

from fusefs import mount as mount_module
from fusefs import mountpoint as mountpoint_module
from fusefs.attributes import CacheTimeouts
from fusefs.mount import MountSettings, serve_mount
from fusefs.mountpoint import mount_at
from node.drive import StaleEntry, StaleInode
from node.errors import DriveError, ServerError, SettingsError
from tests.fusefs.memory_drive import ROOT_INODE, MemoryDrive
from tests.fusefs.mount_thread import ANSWER_DEADLINE_S, MountThread
from tests.fusefs.posix_suite import refused
from tests.fusefs.stuck_drive import StuckDrive

pytestmark = pytest.mark.fuse

Mounted = MountThread[MemoryDrive]


def eventually(holds: object) -> None:
    """Asks the kernel until it agrees; an invalidation reaches it on another thread."""
    assert callable(holds)
    finished = threading.Event()
    for _ in range(2_000):
        if holds():
            return
        finished.wait(0.005)
    raise AssertionError("the kernel still answers the old")


def notifiers_of(parent: int) -> list[int]:
    """The processes that invalidate for a mount."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            command = status.with_name("cmdline").read_bytes()
            if int(fields[1]) == parent and b"notifier_process.py" in command:
                found.append(int(status.parent.name))
    return found


def states_of_notifiers(parent: int) -> list[str]:
    """The state of each of their threads; D is waiting in the kernel, beyond any signal."""
    states = []
    for process in notifiers_of(parent):
        for status in Path(f"/proc/{process}/task").glob("*/stat"):
            with suppress(OSError):
                states.append(status.read_text().rpartition(")")[2].split()[0])
    return states


@contextmanager
def serving(mountpoint: Path, drive: str = "MemoryDrive") -> Iterator[subprocess.Popen[str]]:
    """A mount in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fusefs.mount_server", os.fspath(mountpoint), drive],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        while (line := server.stdout.readline()) != "mounted\n":
            assert line, "the mount did not start"
        yield server
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
        while mount_at(mountpoint) is not None:
            mountpoint_module.detach(mountpoint)


class TestFailures:
    def test_an_unexpected_error_is_answered_eio_and_the_mount_goes_on(
        self, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("a secret name")

        with structlog.testing.capture_logs() as logs:
            for method in ("lookup", "make_folder", "create_file", "rename", "statistics"):
                monkeypatch.setattr(mounted.drive, method, broken)
            with refused(errno.EIO):
                (mounted.mountpoint / "a").stat()
            with refused(errno.EIO):
                os.statvfs(mounted.mountpoint)
            monkeypatch.undo()
        assert not (mounted.mountpoint / "a").exists()
        (mounted.mountpoint / "a").write_bytes(b"works")
        assert (mounted.mountpoint / "a").read_bytes() == b"works"
        failures = [log for log in logs if log["log_level"] == "error"]
        assert [log["operation"] for log in failures] == ["lookup", "statfs"]
        assert failures[0]["subject"] == ROOT_INODE
        assert failures[0]["error"] == "KeyError"
        assert "test_mount.py" in failures[0]["trace"]
        assert "secret" not in repr(logs)

    def test_an_error_in_every_handler_leaves_the_mount_whole(
        self, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = mounted.mountpoint
        (root / "file").write_bytes(b"data")
        (root / "folder").mkdir()
        (root / "link").symlink_to("file")
        descriptor = os.open(root / "file", os.O_RDWR)
        folder = os.open(root / "folder", os.O_RDONLY | os.O_DIRECTORY)
        requests = {
            "create_file": lambda: (root / "new").touch(),
            "make_folder": lambda: (root / "new").mkdir(),
            "make_node": lambda: os.mkfifo(root / "new"),
            "make_symlink": lambda: (root / "new").symlink_to("x"),
            "make_link": lambda: os.link(root / "file", root / "new"),
            "read_symlink": lambda: (root / "link").readlink(),
            "rename": lambda: (root / "file").rename(root / "new"),
            "unlink": lambda: (root / "file").unlink(),
            "remove_folder": lambda: (root / "folder").rmdir(),
            "set_attributes": lambda: (root / "file").chmod(0o600),
            "open_folder": lambda: os.listdir(root),
            "read_folder": lambda: os.listdir(root),
            "open_file": lambda: (root / "file").read_bytes(),
            "write": lambda: os.write(descriptor, b"x"),
            "fsync": lambda: os.fsync(descriptor),
            "fsync_folder": lambda: os.fsync(folder),
            "get_xattr": lambda: os.getxattr(root / "file", "user.x"),
            "set_xattr": lambda: os.setxattr(root / "file", "user.x", b""),
            "list_xattrs": lambda: os.listxattr(root / "file"),
            "remove_xattr": lambda: os.removexattr(root / "file", "user.x"),
            "statistics": lambda: os.statvfs(root),
        }

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        for method, request in requests.items():
            with monkeypatch.context() as patch:
                patch.setattr(mounted.drive, method, broken)
                with refused(errno.EIO):
                    request()
        os.close(descriptor)
        os.close(folder)
        assert (root / "file").read_bytes() == b"data"
        assert sorted(os.listdir(root)) == ["file", "folder", "link"]

    @pytest.mark.parametrize(
        ("error", "number"),
        [
            (DriveError(errno.ENOSPC), errno.ENOSPC),
            (ServerError("unreachable", "no answer", is_transient=True), errno.EIO),
            (ExceptionGroup("nursery", [DriveError(errno.EDQUOT)]), errno.EDQUOT),
            (DriveError(0), errno.EIO),
        ],
    )
    def test_an_error_of_the_drive_has_its_own_number(
        self, mounted: Mounted, monkeypatch: pytest.MonkeyPatch, error: Exception, number: int
    ) -> None:
        async def full(handle: int, offset: int, data: bytes) -> int:
            raise error

        monkeypatch.setattr(mounted.drive, "write", full)
        descriptor = os.open(mounted.mountpoint / "a", os.O_CREAT | os.O_WRONLY)
        with refused(number):
            os.write(descriptor, b"x")
        os.close(descriptor)

    def test_creating_over_a_name_that_just_arrived_opens_it(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        assert not path.exists()  # the kernel remembers that

        def arrives_silently() -> None:
            mounted.drive.remote_create(ROOT_INODE, b"a", b"theirs", is_announced=False)

        mounted.call(arrives_silently)
        with path.open("ab") as file:
            file.write(b" and mine")
        assert path.read_bytes() == b"theirs and mine"


class TestRemoteChanges:
    def test_new_contents_are_read(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.write_bytes(b"old contents")
        assert path.read_bytes() == b"old contents"
        inode = path.stat().st_ino
        mounted.call(mounted.drive.remote_write, inode, b"NEW")
        eventually(lambda: path.stat().st_size == 3)
        assert path.read_bytes() == b"NEW"

    def test_new_contents_of_the_same_size_are_read_through_an_open_file(
        self, mounted: Mounted
    ) -> None:
        path = mounted.mountpoint / "a"
        path.write_bytes(b"old")
        with path.open("rb", buffering=0) as file:
            assert file.read() == b"old"
            mounted.call(mounted.drive.remote_write, path.stat().st_ino, b"NEW")
            eventually(lambda: os.pread(file.fileno(), 3, 0) == b"NEW")

    def test_new_contents_with_the_old_time_and_size_are_read(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.write_bytes(b"old")
        assert path.read_bytes() == b"old"
        inode, before = path.stat().st_ino, path.stat().st_mtime_ns

        def replace_silently() -> None:
            node = mounted.drive._nodes[inode]
            node.data[:] = b"NEW"
            assert node.mtime_ns == before
            mounted.drive._announce.send_nowait(StaleInode(inode, data=True))

        mounted.call(replace_silently)
        eventually(lambda: path.read_bytes() == b"NEW")

    def test_a_new_mode_is_seen(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.touch(0o644)
        inode = path.stat().st_ino
        mounted.call(mounted.drive.remote_chmod, inode, 0o600)
        eventually(lambda: path.stat().st_mode & 0o777 == 0o600)

    def test_a_new_name_appears_where_none_was(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "arrives"
        assert not path.exists()
        mounted.call(mounted.drive.remote_create, ROOT_INODE, b"arrives", b"hello")
        eventually(path.exists)
        assert path.read_bytes() == b"hello"

    def test_a_deleted_name_disappears(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.touch()
        assert path.exists()
        mounted.call(mounted.drive.remote_unlink, ROOT_INODE, b"a")
        eventually(lambda: not path.exists())

    def test_without_an_announcement_the_kernel_is_believed_to_remember(
        self, mounted: Mounted
    ) -> None:
        """The tests above would pass with a kernel that caches nothing; this one would not."""
        asked: list[bytes] = []
        lookup = mounted.drive.lookup

        def counting(parent: int, name: bytes) -> object:
            asked.append(name)
            return lookup(parent, name)

        mounted.drive.lookup = counting  # type: ignore[assignment,method-assign]
        (mounted.mountpoint / "there").touch()
        asked.clear()
        for _ in range(5):
            assert (mounted.mountpoint / "there").exists()
            assert not (mounted.mountpoint / "absent").exists()
        assert asked == [b"absent"]

    def test_what_the_kernel_does_not_know_is_no_error(self, mounted: Mounted) -> None:
        with structlog.testing.capture_logs() as logs:
            send = mounted.drive._announce.send_nowait
            mounted.call(send, StaleInode(987_654, data=True))
            mounted.call(send, StaleEntry(987_654, b"x"))
            mounted.call(send, StaleEntry(ROOT_INODE, b"never seen"))
            mounted.call(mounted.drive.remote_create, ROOT_INODE, b"last", b"")
            eventually((mounted.mountpoint / "last").exists)
        assert logs == []

    def test_a_thousand_changes_reach_the_kernel(self, mounted: Mounted) -> None:
        names = [f"{number}" for number in range(1_000)]
        for name in names:
            assert not (mounted.mountpoint / name).exists()

        def all_arrive() -> None:
            for name in names:
                mounted.drive.remote_create(ROOT_INODE, name.encode(), b"x")

        mounted.call(all_arrive)
        eventually(lambda: all((mounted.mountpoint / name).exists() for name in names))

    def test_an_invalidation_that_waits_for_a_read_holds_up_no_request(
        self, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = mounted.mountpoint / "slow"
        path.write_bytes(b"x" * 200_000)
        inode = path.stat().st_ino
        read = mounted.drive.read
        asked, answer = threading.Event(), trio.Event()

        async def slow(handle: int, offset: int, size: int) -> bytes:
            asked.set()
            await answer.wait()
            return await read(handle, offset, size)

        mounted.call(mounted.drive.remote_write, inode, b"y" * 200_000)
        eventually(lambda: path.read_bytes()[:1] == b"y")
        mounted.call(mounted.drive.remote_write, inode, b"z" * 200_000)
        monkeypatch.setattr(mounted.drive, "read", slow)
        results: list[bytes] = []
        reader = threading.Thread(target=lambda: results.append(path.read_bytes()))
        reader.start()
        if not asked.wait(ANSWER_DEADLINE_S):  # the old pages may have answered it
            raise AssertionError("the read never came")
        # The page that the reader waits for is locked, so this invalidation has to wait as well.
        mounted.call(mounted.drive._announce.send_nowait, StaleInode(inode, data=True))
        for number in range(200):
            other = mounted.mountpoint / f"other-{number}"
            other.write_bytes(b"meanwhile")
            other.rename(mounted.mountpoint / f"renamed-{number}")
        mounted.call(answer.set)
        reader.join(ANSWER_DEADLINE_S)
        assert not reader.is_alive()
        assert results == [b"z" * 200_000]

    def test_entries_are_invalidated_while_the_folder_is_busy(self, mounted: Mounted) -> None:
        folder = mounted.mountpoint / "busy"
        folder.mkdir()
        inode = folder.stat().st_ino
        done = threading.Event()

        def churn(worker: int) -> None:
            number = 0
            while not done.is_set():
                number += 1
                path = folder / f"{worker}-{number % 7}"
                path.write_bytes(b"x")
                path.rename(folder / f"{worker}-moved")
                (folder / f"{worker}-moved").unlink()

        workers = [threading.Thread(target=churn, args=(worker,)) for worker in range(3)]
        for worker in workers:
            worker.start()
        for number in range(300):
            mounted.call(
                mounted.drive._announce.send_nowait, StaleEntry(inode, f"{number % 3}-0".encode())
            )
            mounted.call(mounted.drive.remote_create, inode, f"from-far-{number}".encode(), b"")
            mounted.call(mounted.drive._announce.send_nowait, StaleInode(inode, data=True))
        eventually((folder / "from-far-299").exists)
        done.set()
        for worker in workers:
            worker.join(ANSWER_DEADLINE_S)
            assert not worker.is_alive()
        assert len(os.listdir(folder)) == 300


class TestLifetime:
    def test_a_deleted_file_is_forgotten(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.write_bytes(b"x")
        os.listdir(mounted.mountpoint)
        inode = path.stat().st_ino
        assert inode in mounted.call(lambda: mounted.drive.inodes)
        path.unlink()
        eventually(lambda: inode not in mounted.call(lambda: mounted.drive.inodes))

    def test_closing_leaves_no_handle(self, mounted: Mounted) -> None:
        for number in range(50):
            (mounted.mountpoint / f"{number}").write_bytes(b"x")
        os.listdir(mounted.mountpoint)
        eventually(lambda: mounted.call(lambda: mounted.drive.open_handles) == 0)

    def test_only_what_may_have_been_written_is_flushed(self, mounted: Mounted) -> None:
        path = mounted.mountpoint / "a"
        path.write_bytes(b"x")
        flushes = mounted.call(lambda: mounted.drive.flushes)
        assert flushes >= 1
        path.read_bytes()
        assert mounted.call(lambda: mounted.drive.flushes) == flushes
        with path.open("r+b", buffering=0) as file:
            file.write(b"y")
        assert mounted.call(lambda: mounted.drive.flushes) == flushes + 1

    def test_syncing_a_folder_reaches_the_drive(self, mounted: Mounted) -> None:
        folder = mounted.mountpoint / "folder"
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
        assert mounted.call(lambda: mounted.drive.synced_folders) == [folder.stat().st_ino]

    def test_the_mount_says_what_it_is(self, mounted: Mounted) -> None:
        mount = mount_at(mounted.mountpoint)
        assert mount is not None
        assert mount.file_system == "fuse.atoll"

    def test_ending_leaves_a_plain_folder(self, mounted: Mounted) -> None:
        (mounted.mountpoint / "a").touch()
        mounted.stop()
        assert mount_at(mounted.mountpoint) is None
        assert os.listdir(mounted.mountpoint) == []

    def test_ending_waits_for_a_program_that_closes_its_file(self, tmp_path: Path) -> None:
        settings = MountSettings(unmount_deadline_s=60)
        with MountThread(MemoryDrive, tmp_path / "mount", settings) as mount:
            file = (mount.mountpoint / "a").open("wb", buffering=0)
            ending = threading.Thread(target=mount.stop)
            ending.start()
            eventually(lambda: mount_at(mount.mountpoint) is None)
            file.write(b"after the folder was given back")
            assert ending.is_alive()
            file.close()
            ending.join(ANSWER_DEADLINE_S)
            assert not ending.is_alive()
            node = mount.drive._nodes[mount.drive.inode_of(b"a")]
            assert bytes(node.data) == b"after the folder was given back"
            assert mount.drive.open_handles == 0

    def test_ending_cuts_off_a_program_that_keeps_its_file(self, tmp_path: Path) -> None:
        settings = MountSettings(unmount_deadline_s=0.2)
        with MountThread(MemoryDrive, tmp_path / "mount", settings) as mount:
            file = (mount.mountpoint / "a").open("wb", buffering=0)
            folder = os.open(mount.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
            file.write(b"kept")
            mount.stop()
            assert mount_at(mount.mountpoint) is None
            with refused(errno.ENOTCONN):
                file.write(b"too late")
            with refused(errno.ENOTCONN):
                file.close()
            os.close(folder)
            assert bytes(mount.drive._nodes[mount.drive.inode_of(b"a")].data) == b"kept"
            assert mount.drive.open_handles == 0

    def test_ending_answers_a_read_that_waits_for_the_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = threading.Event()

        async def never(handle: int, offset: int, size: int) -> bytes:
            asked.set()
            await trio.sleep_forever()
            raise AssertionError

        settings = MountSettings(unmount_deadline_s=0.2)
        with MountThread(MemoryDrive, tmp_path / "mount", settings) as mount:
            monkeypatch.setattr(mount.drive, "read", never)
            mount.call(mount.drive.remote_create, ROOT_INODE, b"a", b"x" * 10)
            numbers: list[int | None] = []

            def read() -> None:
                try:
                    (mount.mountpoint / "a").read_bytes()
                except OSError as error:
                    numbers.append(error.errno)

            reader = threading.Thread(target=read)
            reader.start()
            assert asked.wait(ANSWER_DEADLINE_S)
            # Waits for the page that the reader has locked, until the reader is answered.
            inode = mount.drive.inode_of(b"a")
            mount.call(mount.drive._announce.send_nowait, StaleInode(inode, data=True))
            mount.stop()
            reader.join(ANSWER_DEADLINE_S)
            assert not reader.is_alive()
        # The kernel reads a page again that could not be read ahead; that is refused, or cut.
        assert numbers in ([errno.EIO], [errno.ENOTCONN], [errno.ECONNABORTED])

    def test_ending_frees_an_invalidation_that_waits_in_the_kernel(self, tmp_path: Path) -> None:
        settings = MountSettings(unmount_deadline_s=0.2)
        with MountThread(StuckDrive, tmp_path / "mount", settings) as mount:
            readers = [
                subprocess.Popen(["cat", mount.mountpoint / "stuck"], stderr=subprocess.DEVNULL)
                for _ in range(4)
            ]
            eventually(lambda: "D" in states_of_notifiers(os.getpid()))
            mount.stop()
            assert all(reader.wait(ANSWER_DEADLINE_S) == 1 for reader in readers)
        assert states_of_notifiers(os.getpid()) == []

    def test_a_killed_process_ends_although_an_invalidation_waits_in_the_kernel(
        self, tmp_path: Path
    ) -> None:
        mountpoint = tmp_path / "mount"
        with serving(mountpoint, "StuckDrive") as server:
            reader = subprocess.Popen(["cat", mountpoint / "stuck"], stderr=subprocess.DEVNULL)
            eventually(lambda: "D" in states_of_notifiers(server.pid))
            (notifier,) = notifiers_of(server.pid)
            server.kill()
            assert server.wait(ANSWER_DEADLINE_S) == -signal.SIGKILL
            assert reader.wait(ANSWER_DEADLINE_S) == 1
            eventually(lambda: not Path(f"/proc/{notifier}").exists())
            with refused(errno.ENOTCONN):
                os.statvfs(mountpoint)

    async def test_cancelling_while_it_starts_leaves_nothing_mounted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starting = threading.Event()

        async def slow_start(program: str, *arguments: str | Path) -> None:
            if program == "stat":
                starting.set()
                await trio.sleep_forever()

        monkeypatch.setattr(mount_module, "_run_outside", slow_start)
        mountpoint = tmp_path / "mount"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_mount, MemoryDrive(), mountpoint, MountSettings())
            assert await trio.to_thread.run_sync(starting.wait, ANSWER_DEADLINE_S)
            assert mount_at(mountpoint) is not None
            nursery.cancel_scope.cancel()
        assert mount_at(mountpoint) is None
        assert os.listdir(mountpoint) == []

    def test_an_unmount_by_hand_ends_it(self, mounted: Mounted) -> None:
        helper = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*helper, os.fspath(mounted.mountpoint)], check=True)
        mounted.wait()

    def test_a_process_can_mount_again_after_it_ended(self, tmp_path: Path) -> None:
        for number in range(3):
            with MountThread(MemoryDrive, tmp_path / "mount", MountSettings()) as mount:
                (mount.mountpoint / f"{number}").touch()
                assert os.listdir(mount.mountpoint) == [f"{number}"]

    def test_nothing_is_remembered_with_timeouts_of_zero(self, tmp_path: Path) -> None:
        settings = MountSettings(timeouts=CacheTimeouts(0, 0, 0))
        with MountThread(MemoryDrive, tmp_path / "mount", settings) as mount:
            path = mount.mountpoint / "a"
            assert not path.exists()

            def arrives_silently() -> None:
                mount.drive.remote_create(ROOT_INODE, b"a", b"x", is_announced=False)

            mount.call(arrives_silently)
            assert path.exists()


class TestMountpoint:
    def refusal(self, mountpoint: Path, settings: MountSettings | None = None) -> str:
        with (
            pytest.raises(SettingsError) as refusal,
            MountThread(MemoryDrive, mountpoint, settings or MountSettings()),
        ):
            pass
        return refusal.value.message

    def test_a_missing_folder_is_made(self, mounted: Mounted, tmp_path: Path) -> None:
        assert mounted.mountpoint == tmp_path / "mount"
        assert mounted.mountpoint.is_dir()

    def test_a_missing_parent_is_named(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path / "no" / "mount")
        assert f"mkdir -p {tmp_path / 'no'}" in message

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mount").touch()
        assert "is not a folder" in self.refusal(tmp_path / "mount")

    def test_a_folder_with_something_in_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mount").mkdir()
        (tmp_path / "mount" / "precious").touch()
        assert "is not empty" in self.refusal(tmp_path / "mount")
        assert (tmp_path / "mount" / "precious").exists()

    def test_a_second_mount_is_refused(self, tmp_path: Path) -> None:
        with serving(tmp_path / "mount"):
            (tmp_path / "mount" / "a").write_bytes(b"x")
            assert "already mounted" in self.refusal(tmp_path / "mount")
            assert (tmp_path / "mount" / "a").read_bytes() == b"x"

    def test_a_mount_that_a_crash_left_is_cleaned(self, tmp_path: Path) -> None:
        mountpoint = tmp_path / "a mount"
        with serving(mountpoint) as server:
            (mountpoint / "a").write_bytes(b"x")
            mountpoint.stat()
            server.send_signal(signal.SIGKILL)
            server.wait()
            mounted = mount_at(mountpoint)
            assert mounted is not None
            assert mounted.file_system == "fuse.atoll"
            assert mountpoint.stat().st_ino == ROOT_INODE, "the kernel shows the dead folder"
            with MountThread(MemoryDrive, mountpoint, MountSettings()) as mount:
                (mountpoint / "new").write_bytes(b"works")
                assert os.listdir(mountpoint) == ["new"]
                mount.stop()
            assert mount_at(mountpoint) is None

    def test_a_terminated_process_leaves_nothing_mounted(self, tmp_path: Path) -> None:
        with serving(tmp_path / "mount") as server:
            file = (tmp_path / "mount" / "a").open("wb", buffering=0)
            server.terminate()
            assert server.wait(ANSWER_DEADLINE_S) == 0
            assert server.stdout is not None
            assert server.stdout.read().endswith("ended\n")
            with refused(errno.ENOTCONN):
                file.write(b"x")
            with refused(errno.ENOTCONN):
                file.close()
        assert mount_at(tmp_path / "mount") is None
        assert os.listdir(tmp_path / "mount") == []

    def test_a_machine_without_fuse_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mountpoint_module, "FUSE_DEVICE", tmp_path / "no-fuse")
        assert "modprobe fuse" in self.refusal(tmp_path / "mount")

    def test_a_user_without_the_helper_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(shutil, "which", lambda _: None)
        assert "apt-get install fuse3" in self.refusal(tmp_path / "mount")

    def test_a_refused_mount_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise RuntimeError("fuse_session_mount failed")

        monkeypatch.setattr(pyfuse3, "init", refuse)
        assert f"cannot mount at {tmp_path / 'mount'}" in self.refusal(tmp_path / "mount")

    def test_a_machine_without_room_for_a_process_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", os.fspath(tmp_path / "missing"))
        assert "cannot start" in self.refusal(tmp_path / "mount")
        assert mount_at(tmp_path / "mount") is None

    def test_a_folder_that_does_not_answer_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()
        monkeypatch.setattr(mount_module, "_CHECKS_DEADLINE_S", 0.01)
        monkeypatch.setattr(
            mount_module, "prepare_mountpoint", lambda _: go_on.wait(ANSWER_DEADLINE_S)
        )
        assert "does not answer" in self.refusal(tmp_path / "mount")
        go_on.set()

    def test_letting_others_in_needs_permission(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings_file = tmp_path / "fuse.conf"
        settings_file.write_text("# user_allow_other\n")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(mountpoint_module, "_FUSE_SETTINGS", settings_file)
        message = self.refusal(tmp_path / "mount", MountSettings(allow_other=True))
        assert "user_allow_other" in message
        settings_file.write_text("  user_allow_other \n")
        mountpoint_module.require_allow_other()

    @pytest.mark.root
    def test_others_are_let_in_when_asked_for(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        probe = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "stat", "-c", "%i"]
        with MountThread(MemoryDrive, tmp_path / "m", MountSettings(allow_other=True)) as mount:
            mount.call(mount.drive.remote_create, ROOT_INODE, b"secret", b"x")
            mount.call(mount.drive.remote_chmod, mount.drive.inode_of(b"secret"), 0o600)
            (parent := tmp_path.parent).chmod(parent.stat().st_mode | 0o011)
            (parent := parent.parent).chmod(parent.stat().st_mode | 0o011)
            (parent := parent.parent).chmod(parent.stat().st_mode | 0o011)
            done = subprocess.run([*probe, mount.mountpoint], capture_output=True, check=False)
            assert done.stdout == b"1\n", done.stderr
            cat = subprocess.run(
                [*probe[:4], "cat", mount.mountpoint / "secret"], capture_output=True, check=False
            )
            assert b"Permission denied" in cat.stderr
