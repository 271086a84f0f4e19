"""The file ``keys`` of a state directory: who this device is, and the secrets that make it so.

Owns the file, its layout and its mode. Refuses to know what the keys open. Written by
`node.enrolment`, read by `node.main`.

The file is canonical msgpack, 0600, replaced atomically and synced: a crash leaves the former one.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from node.errors import SettingsError, StorageError
from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.ids import AccountId, NamespaceId

FILE_NAME = "keys"
_VERSION = 1
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Keystore:
    """What a device holds besides its files; printing it shows no secret.

    Attributes:
        signing_seed: seed of the device's Ed25519 key, 32 bytes, as are the other secrets.
        box_private: the device's X25519 key.
        index_key: encrypts the index.
        staging_key: what the keys of staging files are derived from.
        account: None until the server accepted the enrolment.
        namespace: the account's private namespace; None as long as the account is.
        server: the server's URL, with its pin.
    """

    signing_seed: bytes = field(repr=False)
    box_private: bytes = field(repr=False)
    index_key: bytes = field(repr=False)
    staging_key: bytes = field(repr=False)
    server: str
    email: str
    device_name: str
    account: AccountId | None = None
    namespace: NamespaceId | None = None

    @classmethod
    def exists(cls, home: Path) -> bool:
        """Whether a device was ever enrolled, or begun to be, in this state directory."""
        return (home / FILE_NAME).exists()

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read the keys of a state directory.

        Raises:
            SettingsError: there are none, others may read them, or the file is damaged or of a
                newer release; the message says what to do.
            StorageError: the disk failed.
        """
        path = home / FILE_NAME
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise SettingsError(
                f"no device is enrolled in {home}; run 'atoll account create' or 'atoll login' first"
            ) from error
        except OSError as error:
            raise StorageError.from_os_error(error, f"open {path}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid():
                raise SettingsError(
                    f"{path} can be read by others; make sure that it is yours, "
                    f"then run: chmod 600 {path}"
                )
            data = file.read(_MAX_BYTES + 1)
        try:
            return cls._parse(data)
        except RemoteProtocolError as error:
            raise SettingsError(
                f"{path} is damaged ({error}); restore it from a backup, "
                "or move the state directory away and log in again"
            ) from error

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        value = codec.decode(data, _MAX_BYTES)
        if type(value) is not list or not value or value[0] != _VERSION:
            raise RemoteProtocolError("it is not of this release's version")
        _, signing, box, index, staging, server, email, name, account, namespace = codec.as_tuple(
            value, "keys", 10
        )
        for secret in (signing, box, index, staging):
            codec.as_bytes(secret, "key", 32, 32)
        return cls(
            signing,
            box,
            index,
            staging,
            codec.as_str(server, "server", 2048),
            codec.as_str(email, "email", 2048),
            codec.as_str(name, "device name", 2048),
            None if account is None else AccountId(codec.as_bytes(account, "account", 32, 32)),
            None
            if namespace is None
            else NamespaceId(codec.as_bytes(namespace, "namespace", 32, 32)),
        )

    def save(self, home: Path) -> None:
        """Replace the file; it survives the loss of power when this returns.

        Raises:
            StorageError: the disk refused; the former file is as it was.
        """
        path = home / FILE_NAME
        temporary = home / f".{FILE_NAME}.{os.getpid()}"
        data = codec.encode(
            [
                _VERSION,
                self.signing_seed,
                self.box_private,
                self.index_key,
                self.staging_key,
                self.server,
                self.email,
                self.device_name,
                self.account,
                self.namespace,
            ]
        )
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            number = error.errno or errno.EIO
            raise StorageError(number, f"{path} can not be written: {error.strerror}") from error
