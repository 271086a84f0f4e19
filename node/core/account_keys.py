"""What the keys of an account and of one of its devices open in verified logs.

Owns the way from a root key to the account's keys, from a device's key to the key generations, and
from these to the epochs of a namespace. Every opened key is compared with what the log says about it.
Refuses to know where logs and keys come from. Called by `node.enrolment` and by the node's start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol.crypto.contexts import (
    device_name_context,
    epoch_to_account_context,
    generation_to_device_context,
    generation_to_root_context,
)
from protocol.crypto.keys import EpochKeys, check_commitment, derive
from protocol.crypto.labels import Label, SealedKind
from protocol.crypto.sealing import BoxKey, open_value, seal_to, seal_value
from protocol.crypto.signing import SigningKey
from protocol.errors import RemoteProtocolError
from protocol.ids import AccountId, DeviceId, device_id
from protocol.logs import AccountLog, Generation, NamespaceLog

MAX_DEVICE_NAME_BYTES = 255
"""As a file's name: it ends up in the names of conflict versions."""


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The two keys that an account's root key yields. Dropped after use, never stored."""

    signing: SigningKey
    box: BoxKey

    @classmethod
    def from_secret(cls, root: bytes) -> RootKeys:
        """From the 32 bytes that password and recovery phrase wrap."""
        return cls(
            SigningKey.from_seed(derive(root, Label.ROOT_SIGNING)),
            BoxKey.from_private(derive(root, Label.ROOT_BOX)),
        )


@dataclass(frozen=True, slots=True)
class GenerationKeys:
    """The keys of one generation of an account; printing it shows none.

    Attributes:
        names: seals the names of devices.
    """

    number: int
    secret: bytes = field(repr=False)
    box: BoxKey
    names: bytes = field(repr=False)

    @classmethod
    def from_secret(cls, number: int, secret: bytes) -> GenerationKeys:
        """From the 32 bytes that are sealed to devices and root."""
        return cls(
            number,
            secret,
            BoxKey.from_private(derive(secret, Label.GENERATION_BOX)),
            derive(secret, Label.GENERATION_NAMES),
        )


@dataclass(frozen=True, slots=True)
class DeviceKeyPair:
    """The two private keys of a device and the id that they make."""

    signing: SigningKey
    box: BoxKey

    @property
    def id(self) -> DeviceId:
        """The device's."""
        return device_id(self.signing.public, self.box.public)


def open_generations_by_root(log: AccountLog, root: RootKeys) -> dict[int, GenerationKeys]:
    """All generations of an account, opened by its root.

    Raises:
        RemoteProtocolError: the log is not of this root, or a generation does not open.
    """
    if log.root_public != root.signing.public or log.root_box_public != root.box.public:
        raise RemoteProtocolError("the account log belongs to another root key")
    opened = {}
    for generation in log.generations:
        context = generation_to_root_context(log.id, generation.number)
        secret = root.box.open(SealedKind.GENERATION_TO_ROOT, context, generation.root_wrap)
        opened[generation.number] = _matching(generation, secret)
    return opened


def open_generations(log: AccountLog, device: DeviceId, box: BoxKey) -> dict[int, GenerationKeys]:
    """All generations of an account, opened by one of its devices.

    Raises:
        RemoteProtocolError: the device is not enrolled or was revoked, a generation is not
            sealed to it, or does not open to the key that the log names.
    """
    entry = log.active_device(device)
    opened = {}
    for generation in log.generations:
        number = generation.number
        sealed = generation.wraps.get(device) or entry.wraps.get(number)
        if sealed is None:
            raise RemoteProtocolError(f"generation {number} of {log.id} is not sealed to {device}")
        context = generation_to_device_context(log.id, number, device)
        secret = box.open(SealedKind.GENERATION_TO_DEVICE, context, sealed)
        opened[number] = _matching(generation, secret)
    return opened


def open_epochs(
    log: NamespaceLog, account: AccountId, generations: Mapping[int, GenerationKeys]
) -> dict[int, EpochKeys]:
    """The epochs of a namespace that are sealed to an account, by their numbers.

    Raises:
        RemoteProtocolError: an epoch does not open, or opens to another key than the log
            committed to.
    """
    opened = {}
    for epoch in log.epochs:
        if account not in epoch.wraps:
            continue
        number, sealed = epoch.wraps[account]
        keys = generations.get(number)
        if keys is None:
            raise RemoteProtocolError(
                f"epoch {epoch.number} of {log.id} is sealed to generation {number}, which "
                f"{account} does not have"
            )
        context = epoch_to_account_context(log.id, epoch.number, account, number)
        secret = keys.box.open(SealedKind.EPOCH_TO_ACCOUNT, context, sealed)
        check_commitment(log.id, epoch.number, secret, epoch.commitment)
        opened[epoch.number] = EpochKeys.from_secret(log.id, epoch.number, secret)
    return opened


def seal_generation(account: AccountId, keys: GenerationKeys, device: DeviceKeyPair) -> bytes:
    """The secret of a generation in a box for a device."""
    context = generation_to_device_context(account, keys.number, device.id)
    return seal_to(device.box.public, SealedKind.GENERATION_TO_DEVICE, context, keys.secret)


def seal_device_name(
    account: AccountId, device: DeviceId, name: str, keys: GenerationKeys
) -> bytes:
    """The name of a device, readable by the account's devices."""
    return seal_value(keys.names, name.encode(), device_name_context(account, device))


def open_device_names(
    log: AccountLog, generations: Mapping[int, GenerationKeys]
) -> dict[DeviceId, str]:
    """The names of all devices, revoked ones too; one that does not open is shown by its id.

    A name is sealed under the generation that was the latest when its device was enrolled.
    """
    names = {}
    for device, entry in log.devices.items():
        names[device] = str(device)[:12]
        for number in sorted(generations, reverse=True):
            context = device_name_context(log.id, device)
            try:
                opened = open_value(generations[number].names, entry.sealed_name, context)
                names[device] = _printable(opened.decode())
            except (RemoteProtocolError, UnicodeDecodeError):
                continue
            break
    return names


def _printable(name: str) -> str:
    """A name from another device, fit for a terminal and for a file's name."""
    shown = "".join(c if c.isprintable() and c != "/" else "?" for c in name)
    return shown.encode()[:MAX_DEVICE_NAME_BYTES].decode(errors="ignore")


def _matching(generation: Generation, secret: bytes) -> GenerationKeys:
    if len(secret) != 32:
        raise RemoteProtocolError(
            f"the secret of generation {generation.number} has a wrong length"
        )
    keys = GenerationKeys.from_secret(generation.number, secret)
    if keys.box.public != generation.box_public:
        raise RemoteProtocolError(
            f"generation {generation.number} opens to another key than the log names"
        )
    return keys
