from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.cli.command_line import CommandLine


@pytest.fixture
def atoll(monkeypatch, capfdbinary, tmp_path: Path) -> CommandLine:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ATOLL_PASSWORD", raising=False)
    return CommandLine(monkeypatch, capfdbinary, tmp_path / "home")
