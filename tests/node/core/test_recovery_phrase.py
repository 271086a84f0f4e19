"""The recovery phrase: 24 words there and back, and every way to mistype it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.core.recovery_phrase import entropy_of, phrase_of
from node.errors import SettingsError

# From the test vectors of BIP39 (trezor/python-mnemonic, vectors.json).
ZEROS = "abandon " * 23 + "art"
SEVENS = "legal winner thank year wave sausage worth useful " * 2 + (
    "legal winner thank year wave sausage worth title"
)


def test_it_agrees_with_the_published_vectors():
    assert phrase_of(bytes(32)) == ZEROS
    assert phrase_of(b"\x7f" * 32) == SEVENS
    assert entropy_of(SEVENS) == b"\x7f" * 32


@given(st.binary(min_size=32, max_size=32), st.sampled_from([" ", "\n", "  \t", " \r\n"]))
def test_it_comes_back_in_any_case_and_with_any_white_space(entropy, separator):
    words = phrase_of(entropy).split()
    assert len(words) == 24
    assert entropy_of(f"\n{separator.join(words).upper()} ") == entropy


@pytest.mark.parametrize(
    ("phrase", "sentence"),
    [
        ("", "has 24 words, not 0"),
        (ZEROS + " art", "has 24 words, not 25"),
        (ZEROS.replace("art", "arts"), "word 24 of the recovery phrase is not on the word list"),
        (ZEROS.replace("art", "zoo"), "one of them is wrong or two are swapped"),
        (" ".join(reversed(SEVENS.split())), "one of them is wrong or two are swapped"),
    ],
)
def test_a_mistyped_phrase_says_what_is_wrong_and_does_not_repeat_it(phrase, sentence):
    with pytest.raises(SettingsError, match=sentence) as failure:
        entropy_of(phrase)
    assert "arts" not in failure.value.message
