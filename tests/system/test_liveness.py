"""Nothing hangs: bytes that can not be had give an error in time, and everything else answers meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.system.processes import eventually
from tests.system.world import Device, World, is_mount

pytestmark = [pytest.mark.system, pytest.mark.fuse]

READERS = 100
FILES = 20
FILE_BYTES = 300_000  # too long to travel within a record
DEADLINE_S = 30.0  # the setting's default, until a read of absent bytes fails
ANSWER_P99_S = 0.010


@pytest.fixture
def device(world: World) -> Device:
    """A device that shows files of which it has no bytes, and whose server does not answer any more."""
    world.server.start()
    author, device = world.device("a"), world.device("b")
    author.start()
    device.start()
    for number in range(FILES):
        (author.mount / f"absent {number}").write_bytes(os.urandom(FILE_BYTES))
    (author.mount / "here").write_bytes(b"small")
    author.wait("synced", 60)
    device.wait("synced", 60)
    author.stop()
    assert world.server.process is not None
    os.kill(world.server.process.pid, signal.SIGSTOP)
    return device


def read_until_error(path: str) -> tuple[int, float]:
    """The error's number and after how long it came."""
    begun = time.monotonic()
    try:
        with open(path, "rb") as file:
            file.read()
    except OSError as error:
        return error.errno or 0, time.monotonic() - begun
    return 0, time.monotonic() - begun


@contextmanager
def many_readers(device: Device) -> Iterator[list[Future[tuple[int, float]]]]:
    with ThreadPoolExecutor(READERS) as pool:
        paths = [str(device.mount / f"absent {number % FILES}") for number in range(READERS)]
        yield [pool.submit(read_until_error, path) for path in paths]


def test_a_hundred_readers_of_absent_bytes_leave_the_rest_answering_and_fail_in_time(
    device: Device,
) -> None:
    with many_readers(device) as readers:
        time.sleep(1)
        assert not [reader.result() for reader in readers if reader.done()]
        answers: list[float] = []
        until = time.monotonic() + 10
        while time.monotonic() < until:
            begun = time.perf_counter()
            # Names that nobody asked for yet, so that the kernel has to ask the node.
            with pytest.raises(FileNotFoundError):
                os.stat(device.mount / f"not there {len(answers)}")
            answers.append(time.perf_counter() - begun)
            os.listdir(device.mount)
            os.statvfs(device.mount)
            time.sleep(0.005)
        assert (device.mount / "here").read_bytes() == b"small"
        (device.mount / "new").write_bytes(b"written meanwhile")
        outcomes = [reader.result(timeout=DEADLINE_S + 15) for reader in readers]
    assert {number for number, _ in outcomes} == {errno.EIO}
    assert max(after_s for _, after_s in outcomes) < DEADLINE_S + 10
    answers.sort()
    assert answers[len(answers) * 99 // 100] < ANSWER_P99_S, answers[-20:]


def test_a_reader_of_absent_bytes_is_interrupted_at_once(device: Device) -> None:
    reader = subprocess.Popen(["cat", device.mount / "absent 0"], stdout=subprocess.DEVNULL)
    time.sleep(1.5)
    assert reader.poll() is None
    begun = time.monotonic()
    reader.send_signal(signal.SIGINT)
    reader.wait(timeout=5)
    assert time.monotonic() - begun < 1
    assert os.listdir(device.mount)


def test_listing_and_asking_never_wait_for_the_network(device: Device) -> None:
    begun = time.monotonic()
    subprocess.run(["ls", "-lR", device.mount], check=True, capture_output=True, timeout=5)
    subprocess.run(["df", device.mount], check=True, capture_output=True, timeout=5)
    subprocess.run(["du", "-s", device.mount], check=True, capture_output=True, timeout=5)
    subprocess.run(
        ["find", device.mount, "-size", "+1k"], check=True, capture_output=True, timeout=5
    )
    assert time.monotonic() - begun < 2


def test_a_node_ends_in_time_while_programs_have_files_open_and_read_absent_bytes(
    device: Device,
) -> None:
    process = device.process
    assert process is not None
    file = os.open(device.mount / "open", os.O_CREAT | os.O_WRONLY)
    os.write(file, b"written, and not yet closed")
    with many_readers(device) as readers:
        time.sleep(1)
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: not process.is_running, "the node ends", 15)
        assert time.monotonic() - begun < 10
        for reader in readers:
            assert reader.result(timeout=5)[0] != 0
    assert not is_mount(device.mount)
    with suppress(OSError):
        os.close(file)
    device.start("--no-lan")
    assert (device.mount / "open").read_bytes() == b"written, and not yet closed"
