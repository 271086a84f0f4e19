"""uvicorn as this server runs it: its options, its readiness and its end.

Owns the sockets and the signals. Knows the application as a callable only. Only importer of
uvicorn; called by ``server.main``.
"""

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from server.errors import SettingsError

GRACE_S: Final = 3
"""How long requests may take to end after SIGTERM; commits and blocks take less."""

MAX_CONNECTIONS: Final = 8192
"""Above it uvicorn answers 503: each costs some 20 KiB."""

BACKLOG: Final = 1024


class WebServer(uvicorn.Server):
    """uvicorn that says when it is ready, and lets long answers end before it ends.

    Args:
        config: of uvicorn.
        on_ready: called once, when connections are accepted.
        on_end: called once, when the server shall end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_end = on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as the wish to end; unlike uvicorn's, the process exits with 0."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._end)
        try:
            yield
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)

    def _end(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_end()


def make_config(app: ASGIApp, certificate: Path | None, key: Path | None) -> uvicorn.Config:
    """The options. With a certificate TLS 1.3 is spoken and nothing else.

    Raises:
        SettingsError: the certificate and the key do not load.
    """
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="wsproto",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Clients only ever send pongs and closes.
        ws_max_size=64 * 1024,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        ws_per_message_deflate=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        # Longer than the pause between two syncs of an idle node's long poll.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"the certificate {certificate} and the key {key} can not be loaded: {error}"
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the address is not this machine's, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(f"can not listen on {host}:{port}: {error.strerror}") from error
    return listener
