"""The table of words in docs/formats.md is the one in the code."""

import re
from pathlib import Path

import pytest

from protocol.crypto.labels import Label, SealedKind, SignedType

FORMATS = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()


@pytest.mark.parametrize(
    ("heading", "words"),
    [("Labels", Label), ("Sealed kinds", SealedKind), ("Signed types", SignedType)],
)
def test_the_documented_table_lists_exactly_the_words_in_use(heading, words):
    chapter = FORMATS.split(f"\n### {heading}\n")[1].split("\n#")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", chapter, flags=re.MULTILINE)
    assert sorted(documented) == sorted(words)


def test_no_personalisation_is_used_twice_or_left_out():
    root = Path(__file__).parents[3] / "protocol"
    used = [
        person
        for path in root.rglob("*.py")
        for person in re.findall(r'b"(atoll-[a-z]+-v1)"', path.read_text())
    ]
    chapter = FORMATS.split("\n### Hashes\n")[1].split("\n#")[0]
    documented = re.findall(r"^\| `(atoll-[a-z]+-v1)` \|", chapter, flags=re.MULTILINE)
    assert len(used) == len(set(used))
    assert set(documented) >= set(used)
