"""From a password or a recovery phrase to keys: Argon2id (RFC 9106) and what follows.

Owns the floor below which an offered cost is refused and the split of the result into a wrapping
key and a login key, so that the server learns neither from the other. Knows nothing of prompts or
word lists. Called by registration, login and recovery.
"""

import unicodedata
from dataclasses import dataclass, field
from typing import Final

import nacl.bindings
import nacl.exceptions

from protocol.crypto.keys import KEY_BYTES, derive
from protocol.crypto.labels import Label
from protocol.errors import LocalProtocolError, RemoteProtocolError

SALT_BYTES: Final = 16

MIN_PASSES: Final = 3
MIN_MEMORY_KIB: Final = 256 * 1024
"""The floor: about half a second on a laptop. Whoever steals a server's store pays it per guess."""

MAX_PASSES: Final = 64
MAX_MEMORY_KIB: Final = 2 * 1024 * 1024
"""The ceiling: a server's offer must not freeze or exhaust the device that logs in."""

MAX_PASSWORD_BYTES: Final = 4096
"""Longer is a mistake, such as the wrong file."""


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """The cost of one stretching, never below the floor.

    Attributes:
        passes: over the memory (t of RFC 9106).
        memory_kib: the memory in KiB (m). The parallelism (p) is always 1.

    Raises:
        RemoteProtocolError: outside the floor and the ceiling, whoever offered it.
    """

    passes: int = MIN_PASSES
    memory_kib: int = MIN_MEMORY_KIB

    def __post_init__(self) -> None:
        if self.passes < MIN_PASSES or self.memory_kib < MIN_MEMORY_KIB:
            raise RemoteProtocolError(
                f"the server offers to protect the password with {self.passes} passes over "
                f"{self.memory_kib} KiB, less than the {MIN_PASSES} passes over {MIN_MEMORY_KIB} "
                "KiB that are safe; do not log in to this server"
            )
        if self.passes > MAX_PASSES or self.memory_kib > MAX_MEMORY_KIB:
            raise RemoteProtocolError(
                f"the server asks for {self.passes} passes over {self.memory_kib} KiB to protect "
                f"the password, more than the {MAX_PASSES} passes over {MAX_MEMORY_KIB} KiB that "
                "this device spends"
            )


@dataclass(frozen=True, slots=True)
class PasswordKeys:
    """What a password or recovery phrase opens, 32 bytes each; printing it shows none.

    Attributes:
        wrapping: wraps the account's root key.
        login_seed: of the Ed25519 login key, whose public half the server stores.
    """

    wrapping: bytes = field(repr=False)
    login_seed: bytes = field(repr=False)


def stretch(password: str, salt: bytes, parameters: Argon2Parameters) -> PasswordKeys:
    """The keys of a password. Takes about a second and the memory that the parameters say.

    Releases the GIL; call it in a thread. The password is prepared as RFC 8265 says
    (OpaqueString): spaces of every kind become U+0020, then NFC, so that it is the same from every
    keyboard.

    Args:
        password: as typed.
        salt: 16 bytes, drawn at registration.
        parameters: the cost.

    Raises:
        LocalProtocolError: the password is empty, too long, or not text; or there is not enough
            memory.
        RemoteProtocolError: the salt has not 16 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise RemoteProtocolError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    try:
        stretched = nacl.bindings.crypto_pwhash_alg(
            KEY_BYTES,
            _prepared(password),
            salt,
            parameters.passes,
            parameters.memory_kib * 1024,
            nacl.bindings.crypto_pwhash_ALG_ARGON2ID13,
        )
    except (nacl.exceptions.CryptoError, MemoryError) as error:
        raise LocalProtocolError(
            f"stretching the password needs {parameters.memory_kib} KiB of free memory"
        ) from error
    return keys_of_stretched(stretched)


def keys_of_stretched(stretched: bytes) -> PasswordKeys:
    """The keys of 32 bytes that a password was stretched to, by Argon2id or a test's cheap stand-in.

    Raises:
        LocalProtocolError: they are not 32 bytes.
    """
    return PasswordKeys(
        wrapping=derive(stretched, Label.PASSWORD_WRAPPING),
        login_seed=derive(stretched, Label.PASSWORD_LOGIN),
    )


def recovery_keys(entropy: bytes) -> PasswordKeys:
    """The keys of a recovery phrase. Its 256 random bits need no stretching.

    Args:
        entropy: the 32 bytes that the 24 words (BIP39) stand for.

    Raises:
        LocalProtocolError: they are not 32 bytes.
    """
    return PasswordKeys(
        wrapping=derive(entropy, Label.RECOVERY_WRAPPING),
        login_seed=derive(entropy, Label.RECOVERY_LOGIN),
    )


def _prepared(password: str) -> bytes:
    spaces = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    try:
        prepared = unicodedata.normalize("NFC", spaces).encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError("the password is not text: check the encoding") from error
    if not prepared:
        raise LocalProtocolError("the password is empty")
    if len(prepared) > MAX_PASSWORD_BYTES:
        raise LocalProtocolError(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    return prepared
