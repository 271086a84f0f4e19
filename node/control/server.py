"""The node's end of the control socket.

Owns the socket file, the check of who is calling, and the bounds on callers. Refuses to know what a
command does: `node.main` hands over the handlers. A caller that hangs up cancels what it asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

from node.control.messages import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    PEER,
    SOCKET_NAME,
    Answer,
    ControlError,
    Request,
    socket_path,
)
from node.errors import NodeError, ServerError
from protocol.errors import ProtocolError
from protocol.framing import FrameDecoder, encode_frame

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Carries out one command: gets the arguments by name, returns a plain value (for msgpack).

A `NodeError` becomes the caller's error; a `ControlError` with the code that the handler chose.
"""

MAX_CALLERS = 32
"""Connections at once: a few shells, a TUI and a web page. One more is closed at once."""

_MAX_COMMANDS = 8
"""Commands under way on one connection; the next one waits."""

_RECEIVE_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class ControlServer:
    """Answers commands on ``control.sock`` in one state directory, whose lock the caller holds.

    Concurrency: handlers of several callers run at the same time.
    """

    def __init__(self, home: Path, handlers: Mapping[str, Handler]) -> None:
        self._home = home
        self._handlers = handlers
        self._callers = 0

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; then removes the socket. Reports as started once it listens."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bind()))
        try:
            async with listener:
                task_status.started()
                await trio.serve_listeners(self._serve_caller, [listener])
        finally:
            (self._home / SOCKET_NAME).unlink(missing_ok=True)

    def _bind(self) -> socket.socket:
        # What lies there is left from a crash: whoever listened held the lock that is ours now.
        (self._home / SOCKET_NAME).unlink(missing_ok=True)
        directory = os.open(self._home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Set before bind, which gives the file the mode of the socket's descriptor.
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(socket_path(directory))
            listening.listen(MAX_CALLERS)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        finally:
            os.close(directory)
        return listening

    async def _serve_caller(self, stream: trio.SocketStream) -> None:
        if _user_of(stream) != os.geteuid():
            _log.warning("control: refused a caller of another user", user=_user_of(stream))
            await stream.aclose()
            return
        if self._callers >= MAX_CALLERS:
            await stream.aclose()
            return
        self._callers += 1
        try:
            async with stream, trio.open_nursery() as nursery:
                await self._serve_requests(stream, nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # hung up while an answer was on its way
        except* ProtocolError as errors:
            _log.warning("control: dropped a caller", reason=str(errors.exceptions[0]))
        finally:
            self._callers -= 1

    async def _serve_requests(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        decoder = FrameDecoder(MAX_REQUEST_BYTES)
        places = trio.Semaphore(_MAX_COMMANDS)
        writing = trio.Lock()

        async def carry_out(request: Request) -> None:
            try:
                frame = _frame_of(request, await self._answer(request))
                async with writing:
                    await stream.send_all(frame)
            finally:
                places.release()

        while data := await stream.receive_some(_RECEIVE_BYTES):
            for payload in decoder.feed(bytes(data)):
                request = Request.from_wire(payload)
                await places.acquire()
                nursery.start_soon(carry_out, request)

    async def _answer(self, request: Request) -> Answer:
        handler = self._handlers.get(request.command)
        if handler is None:
            error = ControlError(
                "unknown_command", f"the running node does not know {request.command!r}"
            )
            return Answer(request.id, error=error)
        try:
            return Answer(request.id, await handler(request.arguments))
        except ControlError as error:
            return Answer(request.id, error=error)
        except ServerError as error:
            return Answer(request.id, error=ControlError(error.code, error.message))
        except NodeError as error:
            return Answer(request.id, error=ControlError("failed", error.message))
        except Exception:  # noqa: BLE001 - a broken command must not end the mount
            _log.exception("control: command failed", command=request.command)
            return Answer(request.id, error=_broken(request))


def _frame_of(request: Request, answer: Answer) -> bytes:
    try:
        return encode_frame(answer.to_wire(), MAX_ANSWER_BYTES)
    except ProtocolError:
        _log.exception("control: answer cannot be sent", command=request.command)
        return encode_frame(Answer(request.id, error=_broken(request)).to_wire())


def _broken(request: Request) -> ControlError:
    return ControlError(
        "internal", f"{request.command} failed by a mistake in Atoll; the node's log says where"
    )


def _user_of(stream: trio.SocketStream) -> int:
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    user: int = PEER.unpack(credentials)[1]
    return user
