"""The recovery phrase of an account: 32 random bytes as 24 English words (BIP39).

Owns the conversion both ways; only importer of `mnemonic`. Refuses to know what the entropy opens:
`protocol.crypto.password` derives keys from it. Called by `node.enrolment`.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from mnemonic import Mnemonic

from node.errors import SettingsError

ENTROPY_BYTES = 32
WORD_COUNT = 24


def phrase_of(entropy: bytes) -> str:
    """The 24 words, separated by single spaces.

    Args:
        entropy: 32 secret bytes.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise AssertionError(f"a recovery phrase is made of {ENTROPY_BYTES} bytes")
    return str(_words().to_mnemonic(entropy))


def entropy_of(phrase: str) -> bytes:
    """The 32 bytes behind a phrase as a person typed it: any case, any white space.

    Raises:
        SettingsError: not 24 words, a word that is not on the list, or a checksum that does not
            fit (a word was mistaken for another, or two were swapped).
    """
    words = unicodedata.normalize("NFKD", phrase).lower().split()
    if len(words) != WORD_COUNT:
        raise SettingsError(f"the recovery phrase has {WORD_COUNT} words, not {len(words)}")
    known = frozenset(_words().wordlist)
    for number, word in enumerate(words, start=1):
        if word not in known:
            # The word itself is not repeated: this sentence may end in a log.
            raise SettingsError(f"word {number} of the recovery phrase is not on the word list")
    try:
        return bytes(_words().to_entropy(words))
    except ValueError as error:
        raise SettingsError(
            "these words are no recovery phrase: one of them is wrong or two are swapped"
        ) from error


@cache
def _words() -> Mnemonic:
    return Mnemonic("english")
