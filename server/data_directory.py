"""The server's data directory: private, and owned by one server process at a time.

Owns its mode, its lock and the certificate in it. Layout: ``lock``, ``server.db``, ``blobs/``,
``certificate.pem`` and ``key.pem``. Called by ``server.main``.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protocol.crypto.certificates import make_self_signed
from server.errors import SettingsError


def make_private(directory: Path) -> None:
    """Make the directory if it is absent, for its owner only.

    Raises:
        SettingsError: it can not be made, or is no directory.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"the data directory {directory} can not be used: {error.strerror}"
        ) from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Own the directory until the context ends.

    Raises:
        SettingsError: another process owns it, or it can not be written.
    """
    make_private(directory)
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"the data directory {directory} can not be written: {error.strerror}"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"another server uses {directory}: stop it first, or choose another --data"
            ) from error
        yield
    finally:
        os.close(descriptor)


def own_certificate(directory: Path, host_names: Sequence[str]) -> tuple[Path, Path]:
    """The certificate that the server made for itself, and its key; made now if absent.

    Raises:
        SettingsError: they can not be written, or one of the two is missing.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if certificate.exists() and key.exists():
        return certificate, key
    if certificate.exists():
        raise SettingsError(
            f"{key} is missing: restore it, or remove {certificate} and give every node the new pin"
        )
    certificate_pem, key_pem = make_self_signed(host_names)
    try:
        # The certificate comes last: while it is absent, both are made again.
        _write_private(key, key_pem)
        _write_private(certificate, certificate_pem)
    except OSError as error:
        raise SettingsError(
            f"the certificate can not be written to {directory}: {error.strerror}"
        ) from error
    return certificate, key


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
