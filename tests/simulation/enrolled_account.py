"""One account with some devices, enrolled without a password, the same in every run.

The logs are made by the product's own functions; only the randomness within sealed boxes and device
names is replaced, so that ids are the same in every process. Called by the world of a simulation.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from unittest.mock import patch

import nacl.bindings
import trio

from node.core import account_keys
from node.core.account_keys import DeviceKeyPair, GenerationKeys, RootKeys
from node.core.founding import FoundingSecrets, enrol_device, found_account
from node.storage.keystore import Keystore
from protocol.crypto import sealing
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey
from protocol.http_api import RegisterRequest
from protocol.logs import SignedEvent
from server.services.all_services import Services
from tests.server.fakes.memory_blobs import MemoryBlockStore
from tests.server.fakes.memory_store import MemoryStore
from tests.simulation.simulated_server import services_over

MAX_DEVICES = 6
START_US = 1_790_000_000_000_000
SERVER_URL = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Enrolled:
    """What devices and server start with.

    Attributes:
        keystores: one for each device.
        store: a server's, with the account; to be copied.
    """

    keystores: tuple[Keystore, ...]
    store: MemoryStore

    def new_store(self) -> MemoryStore:
        """A server's store that nobody has committed to."""
        return copy.deepcopy(self.store)


@cache
def enrolled() -> Enrolled:
    """The account; made once in a process."""
    draw = random.Random("enrolment").randbytes
    with _repeatable_boxes(draw):
        pairs = [
            DeviceKeyPair(SigningKey.from_seed(draw(32)), BoxKey.from_private(draw(32)))
            for _ in range(MAX_DEVICES)
        ]
        secrets = FoundingSecrets(draw(32), draw(32), draw(32), draw(16), draw(16))
        founding = found_account(secrets, pairs[0], "device0", START_US)
        account, events = founding.account, list(founding.account_events)
        root = RootKeys.from_secret(secrets.root)
        generations = {1: GenerationKeys.from_secret(1, secrets.generation)}
        for number, pair in enumerate(pairs[1:], 1):
            event = enrol_device(account, root, pair, f"device{number}", generations, START_US)
            account = account.append(event)
            events.append(event)
    keystores = tuple(
        Keystore(
            signing_seed=pair.signing.seed,
            box_private=pair.box.private,
            index_key=bytes(32),
            staging_key=bytes([number]) * 32,
            server=SERVER_URL,
            email="ada@example.org",
            device_name=f"device{number}",
            account=account.id,
            namespace=founding.namespace.id,
        )
        for number, pair in enumerate(pairs)
    )
    store = MemoryStore(random.Random("store").randbytes)
    trio.run(_register, store, events, founding.namespace_events)
    return Enrolled(keystores, store)


async def _register(
    store: MemoryStore, events: list[SignedEvent], namespace_events: Sequence[SignedEvent]
) -> None:
    services: Services = await services_over(
        store, MemoryBlockStore(), lambda: START_US // 1_000_000, random.Random("server").randbytes
    )
    login = SigningKey.from_seed(bytes(32)).public
    await services.accounts.register(
        RegisterRequest(
            email="ada@example.org",
            invitation=None,
            login_public=login,
            recovery_login_public=login,
            salt=bytes(16),
            passes=4,
            memory_kib=262144,
            wrapped_root=b"by password",
            wrapped_root_recovery=b"by phrase",
            account_events=tuple(event.to_wire() for event in events),
            namespace_events=tuple(event.to_wire() for event in namespace_events),
        )
    )


@contextmanager
def _repeatable_boxes(draw: Callable[[int], bytes]) -> Iterator[None]:
    def crypto_box_seal(message: bytes, public: bytes) -> bytes:
        own_public, own_private = nacl.bindings.crypto_box_seed_keypair(draw(32))
        nonce = nacl.bindings.crypto_generichash_blake2b_salt_personal(
            own_public + public, digest_size=24
        )
        return own_public + nacl.bindings.crypto_box(message, nonce, public, own_private)

    with (
        patch.object(nacl.bindings, "crypto_box_seal", crypto_box_seal),
        patch.object(account_keys, "seal_value", partial(sealing.seal_value, token_bytes=draw)),
    ):
        yield
