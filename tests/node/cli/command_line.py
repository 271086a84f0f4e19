"""Runs the `atoll` command in this process, and a stand-in for the node on a real control socket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio

from node.cli.main import main
from node.control.server import ControlServer


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class CommandLine:
    """`atoll ARGUMENTS`, with what it printed and its exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfdbinary, home: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capfdbinary
        self.home = home

    def __call__(self, *arguments: str) -> Outcome:
        self._monkeypatch.setenv("ATOLL_HOME", str(self.home))
        self._monkeypatch.setattr(sys, "argv", ["atoll", *arguments])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self._capture.readouterr()
        code = end.value.code
        return Outcome(
            0 if code is None else int(code),
            out.decode(errors="surrogateescape"),
            err.decode(errors="surrogateescape"),
        )


@contextmanager
def node_on(home: Path, **handlers: Callable[[Any], Any]) -> Iterator[None]:
    """A control server on `home`; every handler is a plain function of the arguments."""

    def asynchronous(function):
        async def handle(arguments):
            await trio.lowlevel.checkpoint()
            return function(arguments)

        return handle

    home.mkdir(parents=True, exist_ok=True)
    serving = trio.CancelScope()
    state: dict[str, Any] = {}

    async def serve() -> None:
        server = ControlServer(home, {name: asynchronous(each) for name, each in handlers.items()})
        with serving:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve)
                state["token"] = trio.lowlevel.current_trio_token()
                state["ready"].set()

    from threading import Event

    state["ready"] = Event()
    thread = Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert state["ready"].wait(10)
    try:
        yield
    finally:
        state["token"].run_sync_soon(serving.cancel)
        thread.join(10)
