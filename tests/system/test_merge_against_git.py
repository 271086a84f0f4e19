"""An oracle that others wrote: where git merges without a conflict, the result is the same here."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from node.core.text_merge import Merged, merge

pytestmark = pytest.mark.system

CASES = 200


def test_where_git_merges_too_the_texts_are_the_same(tmp_path: Path) -> None:
    draw = random.Random(5)
    found: Counter[str] = Counter()
    for _ in range(CASES):
        base = [
            f"line {number}\n" if draw.random() < 0.7 else "}\n"
            for number in range(draw.randint(5, 30))
        ]
        texts = ["".join(text).encode() for text in (edited(base, draw), base, edited(base, draw))]
        files = [tmp_path / name for name in ("ours", "base", "theirs")]
        for file, text in zip(files, texts, strict=True):
            file.write_bytes(text)
        by_git = subprocess.run(
            ["git", "merge-file", "-p", *files], capture_output=True, timeout=30, check=False
        )
        ours, old, theirs = texts
        outcome = merge(old, ours, theirs)
        match by_git.returncode, outcome:
            case 0, Merged(data):
                assert data == by_git.stdout, texts
                found["both"] += 1
            case 0, _:
                found["git alone"] += 1  # other lines were found to be the same ones
            case _, Merged():
                found["alone"] += 1  # neighbouring lines
            case _:
                found["neither"] += 1
    assert found["both"] > CASES // 4, found
    assert found["neither"] > CASES // 8, found
    assert found["git alone"] <= CASES // 50, found


def edited(base: list[str], draw: random.Random) -> list[str]:
    text = list(base)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(text) + 1)
        text[start : start + draw.randint(0, 2)] = [
            f"new {draw.randrange(3) if draw.random() < 0.3 else draw.random()}\n"
            for _ in range(draw.randint(0, 2))
        ]
    return text
