"""Every word that separates one use of a key, seal or signature from another: one table.

Owns the words and nothing else. A word is part of the formats: it is added, never changed or given
a second use. `docs/formats.md` prints the same table, and a test compares the two. Called by
everything that derives a key, seals a value or signs bytes.
"""

from enum import StrEnum, unique


@unique
class Label(StrEnum):
    """What a derived key is for: the ``label`` of `protocol.crypto.keys.derive`."""

    EPOCH_COMMITMENT = "epoch-commitment"
    """From an epoch's secret: what the namespace log publishes, to refuse a wrong secret."""
    EPOCH_VALUES = "epoch-values"
    """From an epoch's secret: seals the values of registers."""
    EPOCH_NAMES = "epoch-names"
    """From an epoch's secret: keyed tags of names."""
    EPOCH_DEDUP = "epoch-dedup"
    """From an epoch's secret: derives block keys from the hash of what is sealed."""
    EPOCH_CHUNKER = "epoch-chunker"
    """From an epoch's secret: seeds content-defined cutting."""
    EPOCH_LAN = "epoch-lan"
    """From an epoch's secret: proves membership to peers; all that a seed is given."""
    LAN_TAG = "lan-tag"
    """From a LAN key: the tag announced on one day."""
    LAN_PROOF_CLIENT = "lan-proof-client"
    """From a LAN key: authenticates what the connecting side says first."""
    LAN_PROOF_SERVER = "lan-proof-server"
    """From a LAN key: authenticates what the listening side answers."""

    ROOT_SIGNING = "root-signing"
    """From an account's root key: seed of the Ed25519 key that signs root events."""
    ROOT_BOX = "root-box"
    """From an account's root key: its private X25519 key, to which generations are sealed."""
    GENERATION_BOX = "generation-box"
    """From the secret of a key generation: private X25519 key of the account."""
    GENERATION_NAMES = "generation-names"
    """From the secret of a key generation: seals the names of devices."""

    PASSWORD_WRAPPING = "password-wrapping"
    """From a stretched password: wraps the root key."""
    PASSWORD_LOGIN = "password-login"
    """From a stretched password: seed of the Ed25519 login key."""
    RECOVERY_WRAPPING = "recovery-wrapping"
    """From the recovery phrase: wraps the root key."""
    RECOVERY_LOGIN = "recovery-login"
    """From the recovery phrase: seed of its own Ed25519 login key."""

    STAGING_FILE = "staging-file"
    """From a node's staging key: seals one staging file. Never leaves the machine."""
    INDEX_DATABASE = "index-database"
    """From a node's index key: encrypts its database. Never leaves the machine."""


@unique
class SealedKind(StrEnum):
    """What a sealed value or secret is: part of its associated data or of the box's inside."""

    VALUE = "value"
    """The value that a record writes to a register, under the epoch's values key."""
    DEVICE_NAME = "device-name"
    """The name of a device in an account log, under a generation's names key."""
    ROOT_BY_PASSWORD = "root-by-password"
    """An account's root key, wrapped by the password."""
    ROOT_BY_RECOVERY = "root-by-recovery"
    """An account's root key, wrapped by the recovery phrase."""
    GENERATION_TO_DEVICE = "generation-to-device"
    """The secret of a key generation, sealed to a device's X25519 key."""
    GENERATION_TO_ROOT = "generation-to-root"
    """The secret of a key generation, sealed to the root's X25519 key."""
    EPOCH_TO_ACCOUNT = "epoch-to-account"
    """The secret of an epoch, sealed to a member account's X25519 key."""
    LAN_TO_ACCOUNT = "lan-to-account"
    """The LAN key of an epoch alone, sealed to a seed's X25519 key."""


@unique
class SignedType(StrEnum):
    """What a signature says: it covers ``atoll/<type>/v1``, a zero byte and the body."""

    RECORD = "record"
    """A device writes registers of a namespace."""
    ACCOUNT_EVENT = "account-event"
    """The root or a device appends to an account log."""
    NAMESPACE_EVENT = "namespace-event"
    """A device appends to a namespace log."""
    BURIAL = "burial"
    """A device names deleted items that need not be remembered any more."""
    LOGIN = "login"
    """A login key answers a challenge after the password was typed."""
    RECOVERY_LOGIN = "recovery-login"
    """The recovery phrase's login key answers a challenge."""
    REFRESH = "refresh"
    """A device key answers a challenge to renew an access token."""
    LAN_SESSION = "lan-session"
    """A device key signs the transcript of a LAN session."""
