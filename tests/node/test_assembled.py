from pathlib import Path
from typing import Any

import pytest

from tests.node.assembled import running
from tests.node.enrolled import create
from tests.server.running import running_process


class Spy:
    """A client that notes commits among other things that happen."""

    def __init__(self, client: Any, happened: list[str]) -> None:
        self._client = client
        self._happened = happened

    def __getattr__(self, name: str) -> Any:
        if name == "commit":
            self._happened.append("sent")
        return getattr(self._client, name)


async def test_what_is_sent_is_known_here_also_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_process(tmp_path / "server", open_registration=True) as server:
        await create(tmp_path / "home", server.url)
        happened: list[str] = []
        async with running(tmp_path / "home") as node:
            database, publisher = node.parts.database, node.parts.publisher
            sync = database.sync

            def noted_sync() -> None:
                sync()
                happened.append("synced")

            monkeypatch.setattr(database, "sync", noted_sync)
            monkeypatch.setattr(publisher, "_client", Spy(publisher._client, happened))
            await node.write("file", b"content")
            await node.synced()
    first = happened.index("sent")
    assert first > 0
    assert happened[first - 1] == "synced"
