"""The first events of an account and of its namespaces, and the event that enrols a device.

Owns which events are made and who signs them. Pure: secrets and time are handed in. Refuses to send
anything. Called by `node.enrolment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.core.account_keys import (
    DeviceKeyPair,
    GenerationKeys,
    RootKeys,
    seal_device_name,
    seal_generation,
)
from protocol.crypto.contexts import epoch_to_account_context, generation_to_root_context
from protocol.crypto.keys import commitment
from protocol.crypto.labels import SealedKind
from protocol.crypto.sealing import seal_to
from protocol.logs import (
    AccountLog,
    EventType,
    NamespaceLog,
    SignedEvent,
    account_genesis,
    namespace_genesis,
)


@dataclass(frozen=True, slots=True)
class FoundingSecrets:
    """The randomness of a new account; printing it shows none.

    Attributes:
        root: the root key, 32 bytes, as are the other secrets.
        account_salt: 16 bytes, as is the other salt.
    """

    root: bytes = field(repr=False)
    generation: bytes = field(repr=False)
    epoch: bytes = field(repr=False)
    account_salt: bytes = field(repr=False)
    namespace_salt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Founding:
    """A new account with one device and one namespace, complete and verified."""

    account: AccountLog
    account_events: Sequence[SignedEvent]
    namespace: NamespaceLog
    namespace_events: Sequence[SignedEvent]


def found_account(
    secrets: FoundingSecrets, device: DeviceKeyPair, device_name: str, time_us: int
) -> Founding:
    """An account whose root enrols one device, and that device's private namespace."""
    root = RootKeys.from_secret(secrets.root)
    generation = GenerationKeys.from_secret(1, secrets.generation)
    events = [account_genesis(root.signing, root.box.public, secrets.account_salt, time_us)]
    account = AccountLog.from_events(events)

    events.append(_first_generation(account, root, generation, time_us))
    account = account.append(events[-1])
    events.append(enrol_device(account, root, device, device_name, {1: generation}, time_us))
    account = account.append(events[-1])

    namespace, namespace_events = found_namespace(
        account, device, secrets.namespace_salt, secrets.epoch, time_us
    )
    return Founding(account, tuple(events), namespace, namespace_events)


def enrol_device(
    account: AccountLog,
    root: RootKeys,
    device: DeviceKeyPair,
    device_name: str,
    generations: Mapping[int, GenerationKeys],
    time_us: int,
) -> SignedEvent:
    """The event by which the root enrols a device and hands it all key generations."""
    latest = generations[max(generations)]
    payload = [
        device.signing.public,
        device.box.public,
        seal_device_name(account.id, device.id, device_name, latest),
        [
            [number, seal_generation(account.id, generations[number], device)]
            for number in sorted(generations)
        ],
    ]
    return account.next_event(EventType.DEVICE, payload, time_us).sign(root.signing)


def found_namespace(
    account: AccountLog, device: DeviceKeyPair, salt: bytes, epoch_secret: bytes, time_us: int
) -> tuple[NamespaceLog, Sequence[SignedEvent]]:
    """A namespace that an account owns alone, with its first epoch.

    Args:
        account: of the owner, with at least one generation.
        device: of the owner, enrolled; it signs.
        salt: 16 random bytes.
        epoch_secret: 32 random bytes.
        time_us: of the events.
    """
    genesis = namespace_genesis(account, device.id, device.signing, salt, time_us)
    log = NamespaceLog.from_events([genesis], lambda _: account)
    generation = account.generations[-1]
    context = epoch_to_account_context(log.id, 1, account.id, generation.number)
    sealed = seal_to(generation.box_public, SealedKind.EPOCH_TO_ACCOUNT, context, epoch_secret)
    payload = [
        1,
        commitment(log.id, 1, epoch_secret),
        [[bytes(account.id), bytes(account.head)]],
        [[bytes(account.id), generation.number, sealed]],
    ]
    event = log.next_event(EventType.EPOCH, payload, time_us, account, device.id)
    epoch = event.sign(device.signing)
    return log.append(epoch, lambda _: account), (genesis, epoch)


def _first_generation(
    account: AccountLog, root: RootKeys, keys: GenerationKeys, time_us: int
) -> SignedEvent:
    context = generation_to_root_context(account.id, keys.number)
    sealed = seal_to(root.box.public, SealedKind.GENERATION_TO_ROOT, context, keys.secret)
    # No device is enrolled yet; the first one gets the secret with its own event.
    payload = [keys.number, keys.box.public, sealed, []]
    return account.next_event(EventType.GENERATION, payload, time_us).sign(root.signing)
