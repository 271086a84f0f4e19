"""Where a node's state and drive lie when nobody says so, and what may not lie where."""

from __future__ import annotations

from pathlib import Path

import pytest

from node import settings
from node.errors import SettingsError
from node.settings import (
    ConflictPlace,
    NodeSettings,
    default_home,
    default_mountpoint,
    read_settings_file,
)


@pytest.fixture(autouse=True)
def user_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")


@pytest.mark.parametrize(
    ("environment", "home"),
    [
        ({}, "/home/ada/.local/state/atoll"),
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state/atoll"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/atoll"),
        ({"XDG_STATE_HOME": ""}, "/home/ada/.local/state/atoll"),
        ({"ATOLL_HOME": "/srv/node", "XDG_STATE_HOME": "/var/state"}, "/srv/node"),
        ({"ATOLL_HOME": "~/node"}, "/home/ada/node"),
        ({"ATOLL_HOME": ""}, "/home/ada/.local/state/atoll"),
    ],
)
def test_the_state_directory_follows_the_environment(environment, home):
    assert default_home(environment) == Path(home)


def test_a_relative_home_is_one_of_the_present_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_home({"ATOLL_HOME": "node"}) == tmp_path / "node"


def test_the_drive_is_a_folder_of_the_user():
    assert default_mountpoint() == Path("/home/ada/Atoll")


@pytest.mark.parametrize(("home", "mountpoint"), [("/a", "/a"), ("/a", "/a/b/c"), ("/a/b/c", "/a")])
def test_state_and_drive_do_not_lie_within_each_other(home, mountpoint):
    with pytest.raises(SettingsError, match="within each other"):
        NodeSettings(Path(home), Path(mountpoint))


def test_neighbours_are_fine():
    assert NodeSettings(Path("/a/bc"), Path("/a/b")).settle_s == 0.2


def test_without_a_file_the_defaults_hold(tmp_path):
    assert read_settings_file(tmp_path) == {}


def test_what_the_file_says_is_a_setting(tmp_path):
    (tmp_path / "settings.toml").write_text(
        'conflicts = "beside"  # easy to see\nhistory_days = 7\n'
    )
    chosen = NodeSettings(Path("/a"), Path("/b"), **read_settings_file(tmp_path))
    assert chosen.conflicts is ConflictPlace.BESIDE
    assert chosen.history_days == 7


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("conflict = 'beside'", "unknown setting 'conflict'; known are .*conflicts"),
        ("conflicts = 'away'", '\'conflicts\' in .*settings.toml is "folder" or "beside"'),
        ("history_days = 0", "'history_days' in .*settings.toml is a number from 1 to 3650"),
        ("history_days = true", "is a number from 1 to 3650, not True"),
        ("[conflicts]", 'is "folder" or "beside"'),
        ("conflicts =", "settings.toml is not TOML"),
        (b"\xff", "settings.toml is not UTF-8"),
    ],
)
def test_what_the_file_may_not_say_is_a_sentence_with_what_it_may(tmp_path, text, sentence):
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "settings.toml").write_bytes(raw)
    with pytest.raises(SettingsError, match=sentence):
        read_settings_file(tmp_path)


def test_a_file_that_can_not_be_read_is_a_sentence(tmp_path):
    (tmp_path / "settings.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot read"):
        read_settings_file(tmp_path)


def test_the_deletion_guard_takes_a_share_and_a_whole_number(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("deletion_guard_share = 0.25\ndeletion_guard_minimum = 50\n")
    assert read_settings_file(tmp_path) == {
        "deletion_guard_share": 0.25,
        "deletion_guard_minimum": 50,
    }
    file.write_text("deletion_guard_minimum = 50.5\n")
    with pytest.raises(SettingsError, match="a whole number from 1"):
        read_settings_file(tmp_path)


def test_every_setting_of_the_file_is_in_the_readme():
    text = (Path(__file__).parents[2] / "README.md").read_text()
    assert all(f"| `{key}` |" in text for key in settings._CHOSEN)
