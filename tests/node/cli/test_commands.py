"""What the commands say and how they end: against a stand-in for the node, and with none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.control.messages import ControlError
from node.errors import SettingsError
from tests.node.cli.command_line import node_on

COMMANDS = {
    "account": ["create"],
    "alarms": [],
    "approve": [],
    "conflicts": [],
    "doctor": [],
    "login": [],
    "resolve": [],
    "run": [],
    "server": ["invite", "run"],
    "status": [],
    "unmount": [],
    "wait": [],
}
STATUS = {
    "device": {"id": "dev-x", "name": "laptop"},
    "account": "acct-x",
    "mountpoint": "/home/ada/Atoll",
    "synced": False,
    "server": {"url": "https://example.org:8443", "state": "offline", "cursor": 123},
    "pending": {"records": 3, "blocks": 12, "bytes": 1_234_567},
    "peers": [{"id": "dev-y", "name": "desktop", "address": "10.0.0.2:1", "state": "online"}],
    "namespaces": [{"id": "ns-x", "path": "/", "items": 10_000, "bytes": 5}],
    "cache": {"bytes": 1_500_000_000, "limit": 10_737_418_240, "pinned": 0},
    "conflicts": 2,
    "alarms": ["the server forgot records"],
    "counters": {},
}


def is_one_sentence(text: str) -> bool:
    return text.startswith("atoll: ") and text.count("\n") == 1 and "Traceback" not in text


def test_help_lists_exactly_the_commands_there_are(atoll):
    outcome = atoll("--help")
    assert outcome.code == 0
    listed = [
        line.split()[0]
        for line in outcome.out.partition("Commands:")[2].splitlines()
        if line.startswith("  ") and "Example" not in line
    ]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "command",
    [[name, *each] for name, subs in COMMANDS.items() for each in ([[s] for s in subs] or [[]])],
    ids=" ".join,
)
def test_every_help_has_an_example_that_names_the_command(atoll, command):
    outcome = atoll(*command, "--help")
    assert outcome.code == 0
    assert f"Example: atoll {' '.join(command)}" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["wait", "--for", "tomorrow"],
        ["wait", "--timeout", "soon"],
        ["wait", "--timeout", "-1"],
        ["account", "create"],
        ["login", "a@b"],
        ["run", "--lan-address", "localhost"],
        ["status", "extra"],
    ],
)
def test_wrong_usage_ends_with_2(atoll, arguments):
    outcome = atoll(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--json"], ["wait"], ["conflicts"], ["unmount"]]
)
def test_without_a_node_one_sentence_says_what_to_do(atoll, arguments):
    outcome = atoll(*arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_sentence(outcome.err)
    assert "atoll run" in outcome.err


def test_the_state_directory_is_the_option_then_the_variable(atoll, tmp_path):
    for arguments in (
        ["status", "--home", str(tmp_path / "elsewhere")],
        ["--home", str(tmp_path / "elsewhere"), "status"],
    ):
        assert str(tmp_path / "elsewhere") in atoll(*arguments).err
    assert str(atoll.home) in atoll("status").err


def test_status_shows_what_matters_and_as_json_all_of_it(atoll):
    with node_on(atoll.home, status=lambda _: STATUS):
        outcome = atoll("status")
        as_json = atoll("status", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    for shown in (
        "laptop at /home/ada/Atoll: not everything is synced yet",
        "offline, https://example.org:8443",
        "3 records, 12 blocks, 1.2 MB",
        "desktop, online, 10.0.0.2:1",
        "10,000 items",
        "1.5 GB of 10.7 GB",
        "atoll conflicts",
        "ALARM: the server forgot records",
    ):
        assert shown in outcome.out
    assert json.loads(as_json.out) == STATUS


def test_an_error_of_the_node_is_the_sentence(atoll):
    def broken(_):
        raise SettingsError("the disk is full; free some space")

    with node_on(atoll.home, status=broken):
        outcome = atoll("status")
    assert (outcome.code, outcome.err) == (1, "atoll: the disk is full; free some space\n")


def test_wait_hands_over_what_was_asked_and_ends_when_it_is_done(atoll, tmp_path, monkeypatch):
    asked = []

    def wait(arguments):
        asked.append(dict(arguments))
        return {"done": True, "pending": None}

    monkeypatch.chdir(tmp_path)
    with node_on(atoll.home, wait=wait):
        for arguments in (
            ["wait"],
            ["wait", "notes.txt", "--timeout", "2.5"],
            ["wait", "--for", "peer", os.fsdecode(b"/x/caf\xe9"), "--timeout", "0"],
        ):
            outcome = atoll(*arguments)
            assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    here = os.fsencode(tmp_path)
    assert asked == [
        {"path": None, "for": "synced", "timeout_s": 300.0},
        {"path": here + b"/notes.txt", "for": "server", "timeout_s": 2.5},
        {"path": b"/x/caf\xe9", "for": "peer", "timeout_s": 0.0},
    ]


def test_wait_without_a_timeout_asks_again_until_it_is_done(atoll):
    answers = [False, False, True]
    with node_on(atoll.home, wait=lambda _: {"done": answers.pop(0), "pending": None}):
        assert atoll("wait").code == 0
    assert answers == []


@pytest.mark.parametrize(
    ("pending", "sentence"),
    [
        ({"records": 1, "blocks": 0, "bytes": 999}, "1 record, 0 blocks, 999 B"),
        ({"message": "the server is away; 3 records wait here"}, "the server is away"),
        ([b"/a", "/b"], "/a, /b"),
        (None, "does not say what"),
    ],
)
def test_a_wait_that_takes_too_long_says_what_is_pending(atoll, pending, sentence):
    with node_on(atoll.home, wait=lambda _: {"done": False, "pending": pending}):
        outcome = atoll("wait", "--timeout", "1")
    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_sentence(outcome.err)
    assert "still pending after 1 s" in outcome.err
    assert sentence in outcome.err


def test_alarms_are_listed_with_their_evidence_and_can_be_forgotten(atoll):
    found = [
        {
            "id": 3,
            "kind": "fork",
            "message": "it was copied",
            "time": 5.0,
            "evidence": ["AA==", "AQ=="],
        },
        {"id": 4, "kind": "log", "message": "forked", "time": 0.0, "evidence": []},
    ]
    asked = []

    def answer(arguments):
        asked.append(arguments)
        return [each for each in found if each["id"] != arguments.get("clear")]

    with node_on(atoll.home, alarms=answer):
        listed = atoll("alarms")
        as_json = json.loads(atoll("alarms", "--json").out)
        cleared = atoll("alarms", "--clear", "3")
    assert as_json == found
    assert "it was copied (2 pieces of evidence; see --json)" in listed.out
    assert "4  forked\n" in listed.out
    assert "copied" not in cleared.out
    assert asked == [{}, {}, {"clear": 3}]


def test_held_deletions_are_approved_or_put_back(atoll):
    asked = []

    def answer(arguments):
        asked.append(arguments)
        return {"here": 1, "elsewhere": 299}

    with node_on(atoll.home, approve=answer):
        assert atoll("approve").out == "Approved: 300 deletions.\n"
        assert atoll("approve", "--reject").out == "Put back: 300 deletions.\n"
        assert json.loads(atoll("approve", "--json").out) == {"here": 1, "elsewhere": 299}
    assert asked == [{"reject": False}, {"reject": True}, {"reject": False}]


def test_wait_ends_when_only_a_decision_is_left_to_wait_for(atoll):
    pending = {"message": "300 deletions wait for your approval", "approval": True}
    with node_on(atoll.home, wait=lambda _: {"done": False, "pending": pending}):
        outcome = atoll("wait")
    assert outcome.code == 1
    assert "still pending: 300 deletions wait for your approval" in outcome.err


def test_conflicts_are_listed_with_where_they_can_be_read(atoll):
    found = [
        {
            "path": b"/m/r\xe9sum\x1b[2J.txt",
            "item": "item-x",
            "version": "v1",
            "device": "desktop",
            "time": 1_700_000_000.5,
            "size": 2048,
            "readable_at": "/m/.atoll/conflicts/x",
        }
    ]
    with node_on(atoll.home, conflicts=lambda _: found):
        outcome = atoll("conflicts")
        as_json = json.loads(atoll("conflicts", "--json").out)
    assert outcome.code == 0
    assert "/m/.atoll/conflicts/x" in outcome.out
    assert "desktop" in outcome.out
    assert "2.0 KB" in outcome.out
    assert "\x1b" not in outcome.out, "a file's name must not steer the terminal"
    assert os.fsencode(as_json[0]["path"]) == found[0]["path"]


def test_no_conflicts_is_said_to_people_and_an_empty_list_to_scripts(atoll):
    with node_on(atoll.home, conflicts=lambda _: []):
        assert atoll("conflicts").out == "No conflicts.\n"
        assert json.loads(atoll("conflicts", "--json").out) == []


def test_resolve_hands_over_the_path_and_the_choice_and_says_what_became(
    atoll, tmp_path, monkeypatch
):
    asked = []

    def resolve(arguments):
        asked.append(dict(arguments))
        if arguments["keep"] == "both":
            return {"path": "/m/a", "kept": "v1", "beside": ["/m/a (from desktop 2026-01-01)"]}
        return {"path": "/m/a", "kept": arguments["keep"], "beside": []}

    monkeypatch.chdir(tmp_path)
    with node_on(atoll.home, resolve=resolve):
        both = atoll("resolve", "a", "--keep", "both")
        merged = atoll("resolve", "/m/a", "--keep", "merge")
        as_json = atoll("resolve", "/m/a", "--keep", "v2", "--json")
    assert [outcome.code for outcome in (both, merged, as_json)] == [0, 0, 0]
    assert asked[0] == {"path": os.fsencode(tmp_path / "a"), "keep": "both"}
    assert both.out == "Kept v1.\nBeside it: /m/a (from desktop 2026-01-01)\n"
    assert merged.out == "Merged.\n"
    assert json.loads(as_json.out)["kept"] == "v2"


def test_a_choice_that_is_not_one_is_the_sentence_of_the_node(atoll):
    def resolve(_):
        raise ControlError("ambiguous", "/m/a has 2 versions by this device; keep v1 (shown) or v2")

    with node_on(atoll.home, resolve=resolve):
        outcome = atoll("resolve", "/m/a", "--keep", "mine")
    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_sentence(outcome.err)
    assert "keep v1 (shown) or v2" in outcome.err
    assert atoll("resolve", "/m/a").code == 2, "what to keep must be said"


def test_unmount_fails_when_the_node_does_not_end(atoll, monkeypatch):
    monkeypatch.setattr("node.cli.drive_commands._STOP_DEADLINE_S", 0.05)
    with node_on(atoll.home, unmount=lambda _: {}):
        outcome = atoll("unmount")
    assert outcome.code == 1
    assert "still ending" in outcome.err


def test_unmount_returns_when_the_process_of_the_node_has_ended(atoll, tmp_path):
    """The process lives on for a while after it has hung up, as a node that unmounts does."""
    program = tmp_path / "node_process.py"
    program.write_text(
        "import sys, time, trio\n"
        "from pathlib import Path\n"
        "from node.control.server import ControlServer\n"
        "async def main():\n"
        "    stop = trio.Event()\n"
        "    async def unmount(arguments):\n"
        "        trio.lowlevel.spawn_system_task(end)\n"
        "        return {}\n"
        "    async def end():\n"
        "        await trio.sleep(0.05)\n"
        "        stop.set()\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(ControlServer(Path(sys.argv[1]), {'unmount': unmount}).serve)\n"
        "        print('ready', flush=True)\n"
        "        await stop.wait()\n"
        "        nursery.cancel_scope.cancel()\n"
        "trio.run(main)\n"
        "time.sleep(0.3)\n"
        "Path(sys.argv[1], 'ended').touch()\n"
    )
    atoll.home.mkdir()
    with subprocess.Popen(
        [sys.executable, program, atoll.home],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        outcome = atoll("unmount")
        assert (outcome.code, outcome.err) == (0, "")
        assert (atoll.home / "ended").exists()


def test_run_hands_its_options_to_the_node(atoll, tmp_path, monkeypatch):
    import node.main

    seen = []

    def run(settings):
        seen.append(settings)
        return 3

    monkeypatch.setattr(node.main, "run", run)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert atoll("run").code == 3
    options = ["--no-lan", "--lan-address", "10.0.0.1", "--lan-address", "fe80::1", "--allow-other"]
    assert atoll("run", str(tmp_path / "drive"), *options).code == 3
    default, chosen = seen
    assert (default.home, default.mountpoint) == (atoll.home, tmp_path / "Atoll")
    assert default.is_lan_enabled
    assert not default.allow_other
    assert chosen.mountpoint == tmp_path / "drive"
    assert chosen.lan_addresses == ("10.0.0.1", "fe80::1")
    assert not chosen.is_lan_enabled
    assert chosen.allow_other


def test_a_drive_is_not_mounted_into_its_own_state(atoll):
    outcome = atoll("run", str(atoll.home / "drive"))
    assert outcome.code == 1
    assert is_one_sentence(outcome.err)


def test_a_device_that_is_not_enrolled_is_told_how_to_enrol(atoll, tmp_path):
    outcome = atoll("run", str(tmp_path / "drive"))
    assert outcome.code == 1
    assert "atoll login" in outcome.err


def test_server_commands_become_the_servers_process(atoll, monkeypatch):
    became = []

    def execv(program, arguments):
        became.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    assert atoll("server", "run", "--data", "d", "--listen", "127.0.0.1:1").code == 0
    assert (
        atoll("server", "run", "--open-registration", "--certificate", "c", "--key", "k").code == 0
    )
    assert atoll("server", "invite", "--data", "d").code == 0
    start = [sys.executable, "-P", "-m", "server"]
    assert became == [
        [*start, "run", "--data", "d", "--listen", "127.0.0.1:1"],
        [*start, "run", "--open-registration", "--certificate", "c", "--key", "k"],
        [*start, "invite", "--data", "d"],
    ]


@pytest.mark.parametrize("command", [["account", "create"], ["login"]])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a@example.org", "--server", "http://example.org"], "plain http"),
        (["a@example.org", "--server", "https://example.org"], "pin"),
        (["nobody", "--server", "http://127.0.0.1:1"], "email"),
        (["a@example.org", "--server", "http://127.0.0.1:1", "--device-name", "\n"], "device"),
        (["a@example.org", "--server", "http://127.0.0.1:1"], "--password-file"),
        (
            ["a@example.org", "--server", "http://127.0.0.1:1", "--password-file", "/missing"],
            "/missing",
        ),
    ],
)
def test_what_stops_an_enrolment_early_is_one_sentence(atoll, command, arguments, sentence):
    outcome = atoll(*command, *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_sentence(outcome.err)
    assert sentence in outcome.err
    assert not atoll.home.exists()


def test_a_server_that_is_away_is_one_sentence(atoll, monkeypatch):
    monkeypatch.setenv("ATOLL_PASSWORD", "secret")
    outcome = atoll("login", "a@example.org", "--server", "http://127.0.0.1:1")
    assert outcome.code == 1
    assert is_one_sentence(outcome.err)
    assert "http://127.0.0.1:1" in outcome.err
    assert "secret" not in outcome.err


def test_a_mistake_of_ours_is_one_sentence_and_its_traceback_is_kept(atoll, monkeypatch):
    def broken(_):
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("node.cli.report_commands.home_of", broken)
    outcome = atoll("status")
    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_sentence(outcome.err)
    place = outcome.err.split()[-1]
    assert "by design" in Path(place).read_text()
    assert Path(place).stat().st_mode & 0o077 == 0


def test_an_interrupt_is_no_traceback(atoll, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("node.cli.report_commands.home_of", interrupted)
    outcome = atoll("status")
    # 128 and the number of SIGINT, as shells expect it.
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


def test_errors_with_many_lines_become_one(atoll):
    def broken(_):
        raise ControlError("failed", "one\n  two\nthree.")

    with node_on(atoll.home, status=broken):
        assert atoll("status").err == "atoll: one two three\n"


def test_help_starts_without_the_heavy_libraries():
    """What `atoll --help` imports decides how fast it is, on any machine."""
    program = (
        "import sys, node.cli.main\n"
        "heavy = {'trio', 'httpx', 'nacl', 'cryptography', 'pyfuse3', 'rich', 'asyncio', 'apsw'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    started = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"
    # Ten times what it takes: only to notice that something was forgotten.
    assert time.monotonic() - started < 3


def test_a_reader_that_leaves_early_sees_no_traceback(atoll):
    with node_on(atoll.home, conflicts=lambda _: [{"path": "x" * 1000, "size": 1}] * 5000):
        shown = subprocess.run(
            f"{sys.executable} -m node.cli.main conflicts --json | head -c 10",
            shell=True,
            capture_output=True,
            text=True,
            env={**os.environ, "ATOLL_HOME": str(atoll.home)},
            cwd=Path(__file__).parents[3],
        )
    assert "Traceback" not in shown.stderr
    assert "BrokenPipe" not in shown.stderr
