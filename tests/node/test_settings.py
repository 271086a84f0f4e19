"""Where a node's state and drive lie when nobody says so, and what may not lie where."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import SettingsError
from node.settings import NodeSettings, default_home, default_mountpoint


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
