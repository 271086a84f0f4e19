"""The process of a node: its assembly, mounted, with a control socket; ends in order.

Called by ``atoll run``. Nothing else builds these objects.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

import structlog
import trio

from fusefs.mount import MountSettings, serve_mount
from node.assembly import Assembly, Surroundings, leaves_of
from node.control.commands import Commands, Identity
from node.control.conflict_commands import ConflictCommands
from node.control.server import ControlServer
from node.core.account_keys import DeviceKeyPair
from node.errors import NodeError
from node.memory import reuse_large_buffers, spare_long_lived_objects
from node.net.access_tokens import DeviceCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.settings import NodeSettings
from node.storage.keystore import Keystore
from node.storage.state_directory import StateDirectory, disable_core_dumps
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey

_SHARE = 0.4  # of the time to end: for open files, and for what is to be sent; the rest is to close


def run(settings: NodeSettings) -> int:
    """Run the node until SIGTERM, SIGINT or ``atoll unmount``; the process's exit code.

    Errors that the user can do something about end in one sentence on stderr and 1.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    disable_core_dumps()
    os.umask(0o077)
    reuse_large_buffers()
    try:
        with StateDirectory.open(settings.home) as state:
            keystore = Keystore.load(settings.home)
            trio.run(_Node(settings, state, keystore).run)
    except BaseExceptionGroup as group:
        sentences = _sentences(group)
        if not sentences:
            raise
        sys.stderr.write(f"atoll: {'; '.join(sentences)}\n")
        return 1
    except NodeError as error:
        sys.stderr.write(f"atoll: {error.message}\n")
        return 1
    return 0


class _Node:
    """One run of a node: its assembly, with a mount, a control socket and signals around it."""

    def __init__(self, settings: NodeSettings, state: StateDirectory, keystore: Keystore) -> None:
        self._settings = settings
        device = DeviceKeyPair(
            SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
        )
        self._client = ServerClient(
            ServerAddress.parse(keystore.server), DeviceCredentials(device.id, device.signing)
        )
        parts = self._parts = Assembly(
            settings, state, keystore, Surroundings.of_machine(), self._client
        )
        self._stopping = trio.Event()
        commands = Commands(
            identity=Identity(
                str(parts.device.id),
                keystore.device_name,
                str(keystore.account),
                str(parts.namespace),
                settings.mountpoint,
            ),
            tree=parts.tree,
            journal=parts.journal,
            held=parts.held,
            deferred=parts.deferred,
            aside=parts.aside,
            approvals=parts.approvals,
            standing=parts.standing,
            files=parts.files,
            conflicts=parts.conflicts,
            cache=parts.cache,
            fetcher=parts.fetcher,
            uploader=parts.uploader,
            publisher=parts.publisher,
            puller=parts.puller,
            merger=parts.merger,
            client=self._client,
            stop=self._stopping.set,
        )
        conflict_commands = ConflictCommands(
            mountpoint=settings.mountpoint,
            device=parts.device.id,
            tree=parts.tree,
            registers=parts.registers,
            conflicts=parts.conflicts,
            drive=parts.drive,
            merging=parts.merging,
            merger=parts.merger,
        )
        self._control = ControlServer(
            settings.home, commands.handlers() | conflict_commands.handlers()
        )
        spare_long_lived_objects()

    async def run(self) -> None:
        """Serve until told to stop, then write out, unmount and end."""
        mount_settings = MountSettings(
            allow_other=self._settings.allow_other,
            unmount_deadline_s=self._settings.stop_deadline_s * _SHARE,
        )
        try:
            async with self._client, trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signal)
                nursery.start_soon(self._parts.run_drive)
                async with trio.open_nursery() as mount_nursery:
                    await mount_nursery.start(
                        serve_mount, self._parts.drive, self._settings.mountpoint, mount_settings
                    )
                    nursery.start_soon(self._parts.run_sync)
                    await nursery.start(self._control.serve)
                    sys.stdout.write(f"atoll: mounted at {self._settings.mountpoint}\n")
                    sys.stdout.flush()
                    nursery.start_soon(self._end_with, mount_nursery.cancel_scope)
                await self._parts.wait_sent(self._settings.stop_deadline_s * _SHARE)
                nursery.cancel_scope.cancel()
        finally:
            self._parts.close()

    async def _end_with(self, mount: trio.CancelScope) -> None:
        await self._stopping.wait()
        mount.cancel()

    async def _stop_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for _ in signals:
                self._stopping.set()


def _sentences(group: BaseExceptionGroup[BaseException]) -> Sequence[str]:
    """What to tell the user of a failed run; nothing when something unforeseen is among it."""
    leaves = list(leaves_of(group))
    if not all(isinstance(leaf, NodeError) for leaf in leaves):
        return []
    return [leaf.message for leaf in leaves if isinstance(leaf, NodeError)]
