"""An account with its devices, made once per process from fixed secrets and copied into each world.

Enrolment has tests of its own; here it would cost more than all the rest of a small world. Homes are
copies of a folder with an index in which nothing is but the schema.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import nacl.bindings

from node.core.account_keys import DeviceKeyPair, GenerationKeys, RootKeys
from node.core.founding import Founding, FoundingSecrets, enrol_device, found_account
from node.net.access_tokens import DeviceCredentials
from node.storage.database import Database
from node.storage.keystore import Keystore
from protocol.crypto import sealing
from protocol.crypto.keys import derive
from protocol.crypto.labels import Label
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.http_api import RegisterRequest
from protocol.ids import DeviceId
from protocol.logs import SignedEvent

MAX_DEVICES = 5
SERVER = "http://127.0.0.1:1"
_START_US = 1_700_000_000_000_000


@dataclass(frozen=True)
class SimulatedAccount:
    """What every world of this process begins with."""

    founding: Founding
    enrolments: tuple[SignedEvent, ...]
    keystores: tuple[Keystore, ...]

    def registration(self) -> RegisterRequest:
        """How the account is made at a server."""
        login = SigningKey.from_seed(_secret("login", 0))
        return RegisterRequest(
            email="ada@example.org",
            invitation=None,
            login_public=login.public,
            recovery_login_public=login.public,
            salt=bytes(16),
            passes=1,
            memory_kib=8,
            wrapped_root=bytes(64),
            wrapped_root_recovery=bytes(64),
            account_events=tuple(
                event.to_wire() for event in (*self.founding.account_events, *self.enrolments)
            ),
            namespace_events=tuple(event.to_wire() for event in self.founding.namespace_events),
        )

    def credentials(self, number: int) -> DeviceCredentials:
        """How a device proves who it is."""
        device = _device(number)
        return DeviceCredentials(device.id, device.signing)

    def device_id(self, number: int) -> DeviceId:
        """The id of a device."""
        return _device(number).id


@functools.cache
def the_account() -> SimulatedAccount:
    """The same for every call."""
    secrets = FoundingSecrets(
        root=_secret("root", 0),
        generation=_secret("generation", 0),
        epoch=_secret("epoch", 0),
        account_salt=_secret("account", 0)[:16],
        namespace_salt=_secret("namespace", 0)[:16],
    )
    log_of_devices = []
    with _repeatable_seals():
        founding = found_account(secrets, _device(0), "device0", _START_US)
        log = founding.account
        generations = {1: GenerationKeys.from_secret(1, secrets.generation)}
        root = RootKeys.from_secret(secrets.root)
        for number in range(1, MAX_DEVICES):
            name = f"device{number}"
            event = enrol_device(log, root, _device(number), name, generations, _START_US)
            log = log.append(event)
            log_of_devices.append(event)
    keystores = tuple(_keystore(number, founding) for number in range(MAX_DEVICES))
    return SimulatedAccount(founding, tuple(log_of_devices), keystores)


def make_home(place: Path, number: int) -> None:
    """The state directory of a device that was enrolled and has never run."""
    shutil.copytree(_template(), place)
    the_account().keystores[number].save(place)


@functools.cache
def _template() -> Path:
    home = scratch_folder("atoll-template-")
    for name in ("staging", "blocks"):
        (home / name).mkdir(mode=0o700)
    Database(home / "index.db", derive(_secret("index", 0), Label.INDEX_DATABASE)).close()
    return home


def scratch_folder(prefix: str) -> Path:
    """A new folder, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=memory))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix))


def _secret(what: str, number: int) -> bytes:
    return hashlib.sha256(f"simulated {what} {number}".encode()).digest()


@functools.cache
def _device(number: int) -> DeviceKeyPair:
    return DeviceKeyPair(
        SigningKey.from_seed(_secret("signing", number)),
        BoxKey.from_private(_secret("box", number)),
    )


def _keystore(number: int, founding: Founding) -> Keystore:
    return Keystore(
        signing_seed=_secret("signing", number),
        box_private=_secret("box", number),
        index_key=_secret("index", 0),
        staging_key=_secret("staging", number),
        server=SERVER,
        email="ada@example.org",
        device_name=f"device{number}",
        account=founding.account.id,
        namespace=founding.namespace.id,
    )


@contextmanager
def _repeatable_seals() -> Iterator[None]:
    """What is sealed is the same in every process, so that ids in a trace are."""

    def box_seal(message: bytes, public: bytes) -> bytes:
        secret = hashlib.sha256(b"ephemeral" + message + public).digest()
        ephemeral = nacl.bindings.crypto_scalarmult_base(secret)
        nonce = hashlib.blake2b(ephemeral + public, digest_size=24).digest()
        return ephemeral + bytes(nacl.bindings.crypto_box(message, nonce, public, secret))

    former = sealing._seal.__defaults__, sealing.seal_value.__defaults__
    sealing._seal.__defaults__ = sealing.seal_value.__defaults__ = (bytes,)
    try:
        with patch("nacl.bindings.crypto_box_seal", box_seal):
            yield
    finally:
        sealing._seal.__defaults__, sealing.seal_value.__defaults__ = former
