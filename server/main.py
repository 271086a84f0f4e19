"""The server process: command line, and the composition of everything it runs.

Owns the only place where stores, services and sockets are put together. Called as
``python -m server`` and by ``atoll server``.
"""

import argparse
import asyncio
import base64
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import structlog
import uvloop

from protocol.crypto.certificates import pin_of_certificate_pem
from protocol.errors import RemoteProtocolError
from server.app import build_app
from server.blobs.disk import DiskBlockStore
from server.data_directory import locked, make_private, own_certificate
from server.errors import ServerError, SettingsError
from server.memory import reuse_large_buffers
from server.services.accounts import invitation_digest
from server.services.all_services import Services
from server.services.block_locks import BlockLocks
from server.services.collector import Collector
from server.services.ports import Surroundings
from server.settings import DEFAULT_LISTEN, Settings, parse_listen, parse_location
from server.stores.sqlite_store import SqliteStore
from server.web_server import WebServer, listen, make_config

Result = TypeVar("Result")

INVITATION_LIFETIME_S: Final = 7 * 24 * 3600

_AFTER_FAILURE_S: Final = 600

_log = structlog.get_logger(__name__)

WORKERS: Final = 4
"""Threads that check signatures; the batches of more commits wait."""


class ThreadWorker:
    """`Worker` on threads."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(WORKERS)

    async def run(self, work: Callable[[], Result]) -> Result:
        """As the port. The work runs to its end also when the caller is cancelled."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the server.

    Args:
        argv: the arguments without the program's name; those of the process when None.

    Returns:
        The exit code: 0 done, 1 failed with a sentence on stderr. Wrong usage exits with 2.
    """
    arguments = _parser().parse_args(argv)
    _set_up_logging()
    # Whatever the server writes, the database included, is for its user alone.
    os.umask(0o077)
    try:
        match arguments.command:
            case "run":
                _run_loop(_serve(_settings(arguments)))
            case "collect":
                _run_loop(_collect(_settings(arguments)))
            case "invite":
                _run_loop(_invite(_settings(arguments)))
            case _:
                _run_loop(_new_journal_epoch(_settings(arguments)))
    except ServerError as error:
        sys.stderr.write(f"atoll server: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atoll server",
        description="Stores, orders and announces what nodes seal.",
        epilog="example: atoll server run --data /srv/atoll --listen 0.0.0.0:8420",
    )
    parser.add_argument(
        "command",
        nargs="?",
        default="run",
        choices=("run", "collect", "invite", "new-journal-epoch"),
        help="run (default); give up blocks that nothing needs, while the server is stopped; print an invitation for a new account; or, after a backup was"
        " restored, have all nodes compare and push again what it lacks",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("atoll-server"), help="directory of the server"
    )
    parser.add_argument("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT")
    parser.add_argument("--database", metavar="URL", help="sqlite:///PATH; in --data if absent")
    parser.add_argument("--blobs", metavar="URL", help="file:///PATH; in --data if absent")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="own one if absent")
    parser.add_argument("--key", type=Path, metavar="PEM", help="of --certificate")
    parser.add_argument(
        "--open-registration", action="store_true", help="new accounts need no invitation"
    )
    parser.add_argument("--token-lifetime-s", type=int, default=600, metavar="N")
    parser.add_argument(
        "--reserve-bytes",
        type=int,
        default=64 * 1024 * 1024,
        metavar="N",
        help="free space below which no more blocks are taken",
    )
    parser.add_argument("--requests-per-second", type=float, default=20, metavar="N")
    parser.add_argument("--request-burst", type=int, default=200, metavar="N")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    if (arguments.certificate is None) != (arguments.key is None):
        raise SettingsError("--certificate and --key go together")
    if arguments.token_lifetime_s < 1 or arguments.reserve_bytes < 0:
        raise SettingsError("--token-lifetime-s is at least 1 and --reserve-bytes at least 0")
    if arguments.requests_per_second <= 0 or arguments.request_burst < 1:
        raise SettingsError("--requests-per-second and --request-burst are above 0")
    data = arguments.data.absolute()
    host, port = parse_listen(arguments.listen)
    return Settings(
        data=data,
        host=host,
        port=port,
        database=parse_location(arguments.database, "sqlite", data / "server.db"),
        blobs=parse_location(arguments.blobs, "file", data / "blobs"),
        certificate=arguments.certificate,
        key=arguments.key,
        open_registration=arguments.open_registration,
        token_lifetime_s=arguments.token_lifetime_s,
        reserve_bytes=arguments.reserve_bytes,
        requests_per_second=arguments.requests_per_second,
        request_burst=arguments.request_burst,
    )


def _run_loop(program: Coroutine[Any, Any, None]) -> None:
    reuse_large_buffers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)


async def _serve(settings: Settings) -> None:
    with locked(settings.data):
        certificate, key = _certificate(settings)
        server_id = _pin(certificate)
        store = await SqliteStore.open(settings.database)
        try:
            services = await Services.over(
                store,
                DiskBlockStore(settings.blobs, settings.reserve_bytes),
                _surroundings(),
                server_id=server_id,
                token_lifetime_s=settings.token_lifetime_s,
                needs_invitation=not settings.open_registration,
            )
            has_tls = settings.certificate is not None or not settings.is_loopback
            config = make_config(
                build_app(services, settings),
                certificate if has_tls else None,
                key if has_tls else None,
            )
            listener = listen(settings.host, settings.port)
            url = _url(settings, listener.getsockname()[1], server_id if has_tls else None)

            def announce() -> None:
                sys.stdout.write(f"atoll server listening on {url}\n")
                sys.stdout.flush()

            server = WebServer(config, announce, services.notifier.close)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_collect_forever, services.collector)
                await server.serve(sockets=[listener])
                tasks.cancel_scope.cancel()
        finally:
            await store.close()


async def _collect_forever(collector: Collector) -> None:
    """Collect; a failing disk shows in the log, and the next round goes on."""
    while True:
        try:
            await collector.run()
        except ServerError as error:
            _log.warning("blocks can not be collected", error=str(error))
        await anyio.sleep(_AFTER_FAILURE_S)


async def _collect(settings: Settings) -> None:
    """One round now, and what crashes left; nobody asks or uploads meanwhile."""
    with locked(settings.data):
        store = await SqliteStore.open(settings.database)
        try:
            collector = Collector(
                store,
                DiskBlockStore(settings.blobs, settings.reserve_bytes),
                BlockLocks(),
                _surroundings(),
                grace_s=-1,
            )
            collected = await collector.collect()
            strays = await collector.remove_strays()
        finally:
            await store.close()
    sys.stdout.write(
        f"gave up {collected.blocks} blocks, {collected.size_bytes} bytes;"
        f" removed {strays} files that no namespace holds\n"
    )


def _surroundings() -> Surroundings:
    return Surroundings(lambda: int(time.time()), secrets.token_bytes, ThreadWorker())


async def _invite(settings: Settings) -> None:
    make_private(settings.data)
    store = await SqliteStore.open(settings.database)
    try:
        invitation = base64.b32encode(secrets.token_bytes(15)).decode().lower()
        expires_s = int(time.time()) + INVITATION_LIFETIME_S
        await store.add_invitation(invitation_digest(invitation), expires_s)
    finally:
        await store.close()
    sys.stdout.write(f"{invitation}\n")


async def _new_journal_epoch(settings: Settings) -> None:
    with locked(settings.data):
        store = await SqliteStore.open(settings.database)
        try:
            epoch = await store.replace_journal_epoch()
        finally:
            await store.close()
    sys.stdout.write(f"the journal's epoch is now {epoch}\n")


def _certificate(settings: Settings) -> tuple[Path, Path]:
    if settings.certificate is not None and settings.key is not None:
        return settings.certificate, settings.key
    names = {socket.gethostname(), "localhost", "127.0.0.1"}
    if settings.host not in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        names.add(settings.host)
    return own_certificate(settings.data, sorted(names))


def _pin(certificate: Path) -> bytes:
    try:
        return pin_of_certificate_pem(certificate.read_bytes())
    except (OSError, RemoteProtocolError) as error:
        raise SettingsError(f"the certificate {certificate} can not be read: {error}") from error


def _url(settings: Settings, port: int, pin: bytes | None) -> str:
    host = settings.host
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = _outward_address()
    if ":" in host:
        host = f"[{host}]"
    if pin is None:
        return f"http://{host}:{port}"
    return f"https://{host}:{port}#sha256={pin.hex()}"


def _outward_address() -> str:
    """The address that others on the network are likely to reach this machine by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # A datagram socket's connect sends nothing; it only picks a route. TEST-NET-1, RFC 5737.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def _set_up_logging() -> None:
    """Everything goes to stderr: stdout is for what scripts read."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
