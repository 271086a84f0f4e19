"""The small process that tells the kernel what to forget: ``notifier_process.py DEVICE``.

Owns writing finished messages to a FUSE device, and what happens when the node is gone. Refuses to
know what a message says. Started by `fusefs.invalidator`, by its path and with nothing but the
standard library; standard input is a socket whose other end the node holds.

Why a process: while the kernel carries out such a message it may wait, beyond the reach of any
signal, for a folder or page that a program has locked until its own request is answered. Were that a
thread of the node, a node that is killed could neither end nor answer, and would keep its state
directory locked until the machine restarts. Here only this process waits. It holds a device of its
own (FUSE_DEV_IOC_CLONE), so the death of the node ends the requests that the node had taken; those
that it had not taken are refused here, which frees whatever the message waits for. When this process
ends too, the kernel ends the mount.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import sys
import threading

MAX_MESSAGE_BYTES = 4096
"""A notification: header, parent and a name of at most 1024 bytes (FUSE_NAME_MAX)."""

_REQUEST_BYTES = 1024 * 1024 + 4096
"""The kernel refuses to be read with less room than its largest request: a write of 1 MiB."""

# struct fuse_in_header and fuse_out_header, opcodes (include/uapi/linux/fuse.h)
_IN_HEADER = struct.Struct("=IIQ")
_OUT_HEADER = struct.Struct("=IiQ")
_WITHOUT_REPLY = frozenset({2, 36, 42})  # FORGET, INTERRUPT, BATCH_FORGET

_POLL_MS = 20
"""How often it is looked whether the kernel is done, while requests are refused."""


def pass_on(channel: socket.socket, device: int, is_over: threading.Event) -> None:
    """Writes each message to the device and answers with the errno, until the channel ends."""
    with contextlib.suppress(ConnectionError):
        while (message := channel.recv(MAX_MESSAGE_BYTES)) and not is_over.is_set():
            number = 0
            try:
                os.write(device, message)
            except OSError as error:
                number = error.errno or errno.EIO
            channel.send(struct.pack("=i", number))


def refuse_requests(device: int, worker: threading.Thread) -> None:
    """Answers ENOTCONN to whoever asks, until the worker came out of the kernel."""
    os.set_blocking(device, False)
    poll = select.poll()
    poll.register(device, select.POLLIN)
    while worker.is_alive():
        if not poll.poll(_POLL_MS):
            continue
        try:
            request = os.read(device, _REQUEST_BYTES)
            if not request:
                return
            _, opcode, unique = _IN_HEADER.unpack_from(request)
            if opcode not in _WITHOUT_REPLY:
                os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size, -errno.ENOTCONN, unique))
        except OSError as error:
            if error.errno == errno.ENODEV:  # the kernel has ended the mount
                return


def main() -> None:
    """Serves until the other end of standard input is closed."""
    # The node decides when this ends, not the terminal or service manager that both belong to.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    device = int(sys.argv[1])
    channel = socket.socket(fileno=os.dup(0))
    is_over = threading.Event()
    worker = threading.Thread(target=pass_on, args=(channel, device, is_over), daemon=True)
    worker.start()
    closed = select.poll()
    closed.register(channel, select.POLLRDHUP)
    closed.poll()
    is_over.set()
    refuse_requests(device, worker)
    os._exit(0)


if __name__ == "__main__":
    main()
