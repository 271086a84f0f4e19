"""The caller's end of the control socket, for tools that wait for each answer.

Owns the connection and its deadlines. Blocking: made for a command line, not for trio. Refuses to
know any command. Called by `node.cli`.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from node.control.messages import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    PEER,
    Answer,
    ControlError,
    Request,
    socket_path,
)
from protocol.errors import RemoteProtocolError
from protocol.framing import FrameDecoder, encode_frame

_RECEIVE_BYTES = 256 * 1024


class ControlClient:
    """A connection to the node that runs on a state directory. Use as a context manager."""

    def __init__(self, home: Path, connect_timeout_s: float = 5.0) -> None:
        """Connects.

        Raises:
            ControlError: `not_running` when no node listens there; `failed` otherwise.
        """
        self._home = home
        self._decoder = FrameDecoder(MAX_ANSWER_BYTES)
        self._requests = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(connect_timeout_s)
        self._node: int | None = None
        try:
            self._connect()
            self._node = _process_behind(self._socket)
        except BaseException:
            self._close()
            raise

    def _connect(self) -> None:
        try:
            directory = os.open(self._home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._socket.connect(socket_path(directory))
            finally:
                os.close(directory)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise ControlError(
                "not_running", f"no node is running for {self._home}; start it with: atoll run"
            ) from error
        except OSError as error:
            raise ControlError(
                "failed", f"cannot talk to the node of {self._home}: {error.strerror or error}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def call(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0
    ) -> Any:
        """Has the node carry out a command and returns the result.

        Args:
            timeout_s: how long the answer may take; a command's own times are among its arguments.

        Raises:
            ControlError: the node's own, or `timeout` and `failed` when no answer came.
        """
        self._requests += 1
        request = Request(self._requests, command, dict(arguments or {}))
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(encode_frame(request.to_wire(), MAX_REQUEST_BYTES))
            while True:
                for payload in self._receive(deadline):
                    answer = Answer.from_wire(payload)
                    if answer.id == request.id:
                        if answer.error is not None:
                            raise answer.error
                        return answer.result
        except TimeoutError as error:
            raise ControlError(
                "timeout", f"the node of {self._home} did not answer within {timeout_s:g} s"
            ) from error
        except OSError as error:
            raise self._hung_up() from error
        except RemoteProtocolError as error:
            raise ControlError(
                "failed", "the node answered with something else; is it of another version?"
            ) from error

    def wait_for_end(self, timeout_s: float) -> bool:
        """Waits until the node's process has ended; False when it did not in time."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self._receive(deadline)
        except TimeoutError:
            return False
        except (ControlError, OSError):
            return self._node is None or _has_ended(self._node, deadline)

    def _receive(self, deadline: float) -> list[bytes]:
        # Zero would mean not to block at all, which is another error.
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise self._hung_up()
        return self._decoder.feed(data)

    def _close(self) -> None:
        self._socket.close()
        if self._node is not None:
            os.close(self._node)
            self._node = None

    def _hung_up(self) -> ControlError:
        return ControlError("failed", f"the node of {self._home} ended before it answered")


def _process_behind(connected: socket.socket) -> int | None:
    """A descriptor of the process that listens, by which its end is noticed.

    None when there is nothing to wait for: it is this very process, or it has ended already.
    """
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    process: int = PEER.unpack(credentials)[0]
    if process == os.getpid():
        return None
    try:
        return os.pidfd_open(process)
    except OSError:
        return None


def _has_ended(process: int, deadline: float) -> bool:
    # A descriptor of a process is readable once it has ended (pidfd_open(2)).
    wait_s = max(deadline - time.monotonic(), 0)
    return bool(select.select([process], [], [], wait_s)[0])
