"""`atoll doctor`: each check finds what it is about and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from node.cli import health_checks
from node.cli.health_checks import State
from node.control.messages import ControlError
from node.storage.keystore import Keystore
from protocol.ids import AccountId, NamespaceId
from tests.node.cli.command_line import node_on
from tests.server.running import running_process, running_server


def enrol(home: Path, server: str = "http://127.0.0.1:1") -> Path:
    home.mkdir(mode=0o700, exist_ok=True)
    Keystore(
        b"s" * 32,
        b"b" * 32,
        b"i" * 32,
        b"t" * 32,
        server,
        "ada@example.org",
        "laptop",
        AccountId(b"a" * 32),
        NamespaceId(b"n" * 32),
    ).save(home)
    return home


def test_a_missing_fuse_device_names_the_way_to_get_it(tmp_path):
    check = health_checks.check_fuse_device(tmp_path / "fuse")
    assert check.state is State.FAILED
    assert "modprobe fuse" in check.advice
    (tmp_path / "fuse").touch()
    assert health_checks.check_fuse_device(tmp_path / "fuse").state is State.OK


def test_a_missing_helper_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    check = health_checks.check_fuse_helper()
    assert check.state is State.FAILED
    assert "apt-get install fuse3" in check.advice


def test_the_state_directory_has_to_be_a_private_folder(tmp_path):
    home = tmp_path / "home"
    assert health_checks.check_state_directory(home).state is State.WARNING
    home.mkdir(mode=0o700)
    assert health_checks.check_state_directory(home).state is State.OK
    home.chmod(0o750)
    check = health_checks.check_state_directory(home)
    assert (check.state, check.advice) == (State.FAILED, f"close it: `chmod 700 {home}`")
    file = tmp_path / "file"
    file.touch()
    assert health_checks.check_state_directory(file).state is State.FAILED


def test_another_users_state_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "another user" in health_checks.check_state_directory(tmp_path).finding


def statvfs(free_bytes, free_files):
    found = list(os.statvfs("/"))
    found[1], found[4], found[5], found[7] = 4096, free_bytes // 4096, 1000, free_files
    return os.statvfs_result(found)


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "state"),
    [(5_000_000_000, 10, State.OK), (1_000_000, 10, State.WARNING), (10**10, 0, State.FAILED)],
)
def test_little_space_is_a_warning(tmp_path, monkeypatch, free_bytes, free_files, state):
    found = statvfs(free_bytes, free_files)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert health_checks.check_space(tmp_path).state is state


def test_keys_have_to_be_there_whole_and_private(tmp_path):
    check, keystore = health_checks.check_keys(tmp_path)
    assert (check.state, keystore) == (State.WARNING, None)
    assert "atoll login" in check.advice
    enrol(tmp_path)
    check, keystore = health_checks.check_keys(tmp_path)
    assert check.finding == "laptop, enrolled with ada@example.org"
    assert keystore is not None
    (tmp_path / "keys").chmod(0o644)
    check, keystore = health_checks.check_keys(tmp_path)
    assert (check.state, keystore) == (State.FAILED, None)
    (tmp_path / "keys").write_bytes(b"garbage")
    (tmp_path / "keys").chmod(0o600)
    assert health_checks.check_keys(tmp_path)[0].state is State.FAILED


def test_a_node_is_looked_for_and_asked(tmp_path):
    assert health_checks.check_node(tmp_path).state is State.WARNING
    with node_on(tmp_path, status=lambda _: {"mountpoint": "/m", "alarms": []}):
        check = health_checks.check_node(tmp_path)
    assert (check.state, check.finding) == (State.OK, "it runs, with the drive at /m")
    with node_on(tmp_path, status=lambda _: {"mountpoint": "/m", "alarms": ["fork"]}):
        assert health_checks.check_node(tmp_path).state is State.WARNING

    def broken(_):
        raise ControlError("failed", "stuck")

    with node_on(tmp_path, status=broken):
        assert health_checks.check_node(tmp_path).state is State.FAILED


def test_mounts_of_ours_are_looked_at_and_others_are_not(tmp_path):
    live = tmp_path / "live here"
    live.mkdir()
    table = tmp_path / "mountinfo"
    escaped = str(live).replace(" ", "\\040")
    table.write_text(
        f"29 1 0:26 / {escaped} rw,relatime shared:1 - fuse.atoll atoll rw\n"
        f"30 1 0:27 / {tmp_path}/gone rw - fuse.atoll atoll rw\n"
        "31 1 0:28 / /other rw - fuse.sshfs host rw\n"
    )
    ok, stale = health_checks.check_mounts(table)
    assert (ok.state, ok.finding) == (State.OK, f"{live} answers")
    assert stale.state is State.FAILED
    assert f"fusermount3 -u -z {tmp_path}/gone" in stale.advice


def test_a_mount_that_hangs_does_not_hang_the_doctor(tmp_path, monkeypatch):
    from threading import Event

    hanging = Event()
    real = Path.stat

    def stat(self, **named):
        if self.name == "hung":
            hanging.wait(10)
        return real(self, **named)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(health_checks, "_LOOK_TIMEOUT_S", 0.05)
    table = tmp_path / "mountinfo"
    table.write_text(f"30 1 0:27 / {tmp_path}/hung rw - fuse.atoll atoll rw\n")
    (check,) = health_checks.check_mounts(table)
    hanging.set()
    assert (check.state, check.finding) == (State.FAILED, f"{tmp_path}/hung does not answer")


@pytest.mark.parametrize(
    ("ahead_s", "state", "word"),
    [
        (0.4, State.OK, "agrees"),
        (-119, State.OK, "agrees"),
        (600, State.WARNING, "600 s behind"),
        (-600, State.WARNING, "600 s ahead"),
        (-100_000, State.FAILED, "100,000 s ahead"),
    ],
)
def test_clocks_are_compared(ahead_s, state, word):
    check = health_checks.judge_clock(ahead_s)
    assert check.state is state
    assert word in check.finding


def test_the_server_is_asked_and_its_pin_compared(tmp_path):
    with running_server(tmp_path, listen="0.0.0.0:0") as url:
        home = enrol(tmp_path / "home", url)
        answers, clock = health_checks.check_server(Keystore.load(home))
        assert (answers.state, clock.state) == (State.OK, State.OK)
        other = url.rpartition("=")[0] + "=" + "ab" * 32
        (check,) = health_checks.check_server(Keystore.load(enrol(home, other)))
        assert check.state is State.FAILED
        assert "another key" in check.finding
        assert "confirmed" in check.advice


def test_the_whole_report_ends_with_1_when_something_failed(atoll, monkeypatch, tmp_path):
    monkeypatch.setattr(health_checks, "FUSE_DEVICE", tmp_path / "no-fuse")
    monkeypatch.setattr(health_checks, "MOUNT_TABLE", tmp_path / "empty")
    (tmp_path / "empty").touch()
    enrol(atoll.home)
    outcome = atoll("doctor")
    assert (outcome.code, outcome.err) == (1, "")
    assert "failed   fuse device" in outcome.out
    assert "-> load the kernel's module" in outcome.out
    report = json.loads(atoll("doctor", "--json").out)
    assert report["ok"] is False
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert states["keys"] == "ok"
    assert states["node"] == "warning"
    assert states["server"] == "failed"


def test_the_whole_report_is_fine_when_everything_is(atoll, monkeypatch, tmp_path):
    (tmp_path / "fuse").touch()
    (tmp_path / "empty").touch()
    monkeypatch.setattr(health_checks, "FUSE_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(health_checks, "MOUNT_TABLE", tmp_path / "empty")
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/fusermount3")
    with running_process(tmp_path / "server") as server:
        enrol(atoll.home, server.url)
        with node_on(atoll.home, status=lambda _: {"mountpoint": "/m"}):
            outcome = atoll("doctor", "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 0
    assert report["ok"] is True
    assert {check["state"] for check in report["checks"]} == {"ok"}


def test_before_anything_was_set_up_it_says_where_to_begin(atoll):
    started = time.monotonic()
    outcome = atoll("doctor")
    assert "atoll account create" in outcome.out
    assert time.monotonic() - started < 10
