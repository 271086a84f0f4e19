"""The place of every sealed thing: what its seal is bound to, one function per kind.

Owns the order of the parts, so that whoever seals and whoever opens can not disagree. Each gives
the canonical ``[format version, kind, *parts]``, which is the associated data of a sealed value or
secret, or stands inside a sealed box. Called together with `protocol.crypto.sealing`.
"""

from protocol.crypto.labels import SealedKind
from protocol.crypto.sealing import secret_context
from protocol.ids import AccountId, DeviceId, NamespaceId


def root_by_password_context(account: AccountId) -> bytes:
    """An account's root key under the wrapping key of its password."""
    return secret_context(SealedKind.ROOT_BY_PASSWORD, account)


def root_by_recovery_context(account: AccountId) -> bytes:
    """An account's root key under the wrapping key of its recovery phrase."""
    return secret_context(SealedKind.ROOT_BY_RECOVERY, account)


def device_name_context(account: AccountId, device: DeviceId) -> bytes:
    """The name of a device under the names key of a generation."""
    return secret_context(SealedKind.DEVICE_NAME, account, device)


def generation_to_device_context(account: AccountId, generation: int, device: DeviceId) -> bytes:
    """The secret of a key generation in a box for one of the account's devices."""
    return secret_context(SealedKind.GENERATION_TO_DEVICE, account, generation, device)


def generation_to_root_context(account: AccountId, generation: int) -> bytes:
    """The secret of a key generation in a box for the account's root."""
    return secret_context(SealedKind.GENERATION_TO_ROOT, account, generation)


def epoch_to_account_context(
    namespace: NamespaceId, epoch: int, account: AccountId, generation: int
) -> bytes:
    """The secret of an epoch in a box for a member's key generation."""
    return secret_context(SealedKind.EPOCH_TO_ACCOUNT, namespace, epoch, account, generation)


def lan_to_account_context(
    namespace: NamespaceId, epoch: int, account: AccountId, generation: int
) -> bytes:
    """The LAN key of an epoch in a box for a seed's key generation."""
    return secret_context(SealedKind.LAN_TO_ACCOUNT, namespace, epoch, account, generation)
