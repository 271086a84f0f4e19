"""Three-way merge: what both sides wrote is there, nothing else changes, and doubt is no merge."""

import re

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from node.core import text_merge
from node.core.text_lines import MAX_TEXT_BYTES, MAX_TEXT_LINES
from node.core.text_merge import Merged, NotMergeable, Overlap, mark, merge

BASE = b"one\ntwo\nthree\nfour\nfive\n"


def merged(base, ours, theirs):
    outcome = merge(base, ours, theirs)
    assert isinstance(outcome, Merged), outcome
    assert merge(base, theirs, ours) == outcome, "the order of the sides decides nothing"
    return outcome.data


def test_edits_of_different_lines_are_both_there():
    ours = BASE.replace(b"one", b"ONE")
    theirs = BASE.replace(b"five", b"FIVE")
    assert merged(BASE, ours, theirs) == b"ONE\ntwo\nthree\nfour\nFIVE\n"


def test_insertions_and_removals_apart_are_both_there():
    ours = b"zero\n" + BASE
    theirs = BASE.replace(b"four\n", b"")
    assert merged(BASE, ours, theirs) == b"zero\none\ntwo\nthree\nfive\n"


def test_the_same_change_on_both_sides_is_made_once():
    ours = BASE.replace(b"two", b"TWO") + b"six\n"
    theirs = BASE.replace(b"two", b"TWO").replace(b"one", b"ONE") + b"six\n"
    assert merged(BASE, ours, theirs) == b"ONE\nTWO\nthree\nfour\nfive\nsix\n"


def test_a_side_that_equals_the_base_yields_whatever_it_holds():
    assert merged(b"\0base", b"\0base", b"\0new") == b"\0new"
    assert merged(b"\0base", b"\0new", b"\0new") == b"\0new"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(b"a\nB\nc\n", b"a\nX\nc\n", id="the same line"),
        pytest.param(b"a\nb\nc\nx\n", b"a\nb\nc\ny\n", id="both append"),
        pytest.param(b"x\na\nb\nc\n", b"y\na\nb\nc\n", id="both insert at the top"),
        pytest.param(b"a\nc\n", b"a\nB\nc\n", id="one removes what the other edits"),
        pytest.param(b"a\nc\n", b"a\nb\nx\nc\n", id="one inserts where the other removes"),
        pytest.param(b"", b"a\nB\nc\n", id="one removes all"),
        pytest.param(b"a\nb\nC", b"a\nb\nc\nd\n", id="one drops the last line's end"),
        pytest.param(b"A\n1\nb\nc\n", b"a\n2\nB\nc\n", id="both add where their changes touch"),
        pytest.param(b"A\nB\nC\n", b"a\nx\nb\nc\n", id="an insertion into a rewritten passage"),
        pytest.param(b"A\nB\nc\n", b"X\nb\nC\n", id="one line of a passage"),
    ],
)
def test_changes_that_overlap_are_no_merge(ours, theirs):
    assert merge(b"a\nb\nc\n", ours, theirs) == Overlap(1)
    assert merge(b"a\nb\nc\n", theirs, ours) == Overlap(1)


@pytest.mark.parametrize(
    ("ours", "theirs", "result"),
    [
        pytest.param(b"A\nb\nc\n", b"a\nB\nc\n", b"A\nB\nc\n", id="line for line"),
        pytest.param(b"a\nb\nC\n", b"a\nb\nc\nd\n", b"a\nb\nC\nd\n", id="an edit and an append"),
        pytest.param(b"b\nc\n", b"a\nB\nc\n", b"B\nc\n", id="a removal and an edit"),
        pytest.param(b"b\nc\n", b"a\nc\n", b"c\n", id="two removals"),
        pytest.param(b"A\nB\nc\n", b"a\nB\nC\n", b"A\nB\nC\n", id="one line alike"),
    ],
)
def test_changes_that_touch_are_merged_when_their_order_is_known(ours, theirs, result):
    assert merged(b"a\nb\nc\n", ours, theirs) == result


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings_line_ends_and_a_missing_last_end_survive(encoding, end):
    def text(*lines):
        data = end.join(lines).encode(encoding)
        marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
        return marks.get(encoding, b"") + data

    base = text("früh", "mittags", "nachmittags", "spät", "Äpfel")
    ours = text("neu", "früh", "mittags", "nachmittags", "spät", "Äpfel")
    theirs = text("früh", "mittags", "nachmittags", "spät", "Öl")
    assert merged(base, ours, theirs) == text("neu", "früh", "mittags", "nachmittags", "spät", "Öl")


def test_mixed_line_ends_stay_as_they_are():
    base = b"a\r\nb\nc\rd\r\ne"
    assert merged(base, b"A\r\nb\nc\rd\r\ne", b"a\r\nb\nc\rD\ne") == b"A\r\nb\nc\rD\ne"


def test_a_byte_order_mark_that_one_side_adds_is_kept():
    assert merged(b"a\nb\nc\n", b"\xef\xbb\xbfa\nb\nc\n", b"a\nb\nC\n") == b"\xef\xbb\xbfa\nb\nC\n"


def test_a_mark_is_not_part_of_the_first_line():
    mark_bytes = b"\xef\xbb\xbf"
    result = merged(mark_bytes + b"a\nb\n", mark_bytes + b"x\na\nb\n", mark_bytes + b"A\nb\n")
    assert result == mark_bytes + b"x\nA\nb\n"


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        pytest.param(b"a\nb\0c\n", "not text", id="a zero byte"),
        pytest.param(b"\x89PNG\r\n\x1a\n\x01", "not text", id="control characters"),
        pytest.param(b"%PDF-1.4\nxref\n", "not text", id="offsets into itself"),
        pytest.param(b"\xff\xfea\0\n", "not text", id="half a UTF-16 character"),
        pytest.param(b"\xff\xfe\0\0a\0\0\0", "not text", id="UTF-32"),
        pytest.param("\ufeffa\nb\nc\n".encode("utf-16-le"), "encoding", id="now UTF-16"),
        pytest.param(b"x" * MAX_TEXT_BYTES + b"\n", "longer than 4 MiB", id="long"),
        pytest.param(b"\n" * (MAX_TEXT_LINES + 1), "more than 200000 lines", id="many lines"),
    ],
)
def test_what_is_no_text_is_not_merged(side, reason):
    outcome = merge(b"a\nb\nc\n", side, b"a\nb\nC\n")
    assert isinstance(outcome, NotMergeable)
    assert reason in outcome.reason


def test_texts_in_different_encodings_are_not_mixed():
    base, ours = "ä\nb\nc\n".encode(), "ä\nb\nc\n".encode("latin-1")
    assert merge(base, ours, base + b"d\n") == NotMergeable("its encoding was changed")


def test_what_differs_too_much_is_given_up_after_the_same_work_everywhere(monkeypatch):
    monkeypatch.setattr(text_merge, "_WORK_STEPS", 1000)
    base = b"".join(b"%d\n" % (number % 7) for number in range(200))
    ours = b"".join(b"%d\n" % (number % 5) for number in range(200))
    assert merge(base, ours, base + b"x\n") == NotMergeable("its versions differ too much")


# Properties. Words from a small set make lines repeat; distinct ones make merges succeed.

LINES = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f\r", b"", b"\xe4"]), max_size=9)
TEXTS = st.builds(lambda lines, end: b"\n".join(lines) + end, LINES, st.sampled_from([b"", b"\n"]))


@st.composite
def edited(draw):
    """A base and two sides that each change a few of its lines."""
    base = [b"%d\n" % number for number in range(draw(st.integers(0, 10)))]
    sides = []
    for name in (b"x", b"y"):
        side = list(base)
        for number in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, len(side)))
            fresh = [b"%s%d\n" % (name, number)] * draw(st.integers(0, 2))
            side[place : place + draw(st.integers(0, 2))] = fresh
        sides.append(side)
    return base, *sides


@given(TEXTS, TEXTS)
def test_one_side_alone_is_the_result(base, side):
    assert merge(base, side, base) == merge(base, base, side) == Merged(side)


@given(TEXTS, TEXTS, TEXTS)
@example(b"a", b"a\nb", b"a\nc")
def test_the_sides_are_equal_before_the_merge(base, ours, theirs):
    outcome = merge(base, ours, theirs)
    event(type(outcome).__name__)
    assert merge(base, theirs, ours) == outcome


@given(edited())
def test_a_merge_holds_what_both_added_and_lacks_what_either_removed(texts):
    base, ours, theirs = texts
    outcome = merge(*map(b"".join, texts))
    event(type(outcome).__name__)
    if not isinstance(outcome, Merged):
        return
    result = outcome.data.splitlines(keepends=True)
    for side, name in ((ours, b"x"), (theirs, b"y")):
        assert [line for line in result if line.startswith(name)] == [
            line for line in side if line.startswith(name)
        ], "what a side added is there, in its order"
    kept = [line for line in base if line in ours and line in theirs]
    assert [line for line in result if line in base] == kept


@given(edited())
def test_outside_of_what_a_side_changed_is_what_the_other_has(texts):
    """Doubled context between the edits: each side's half is as that side left it."""
    base, ours, theirs = texts
    middle = [b"middle %d\n" % number for number in range(3)]
    result = merge(
        b"".join([*base, *middle, *base]),
        b"".join([*ours, *middle, *base]),
        b"".join([*base, *middle, *theirs]),
    )
    assert result == Merged(b"".join([*ours, *middle, *theirs]))


@given(TEXTS, TEXTS, TEXTS)
def test_no_line_is_glued_to_another(base, ours, theirs):
    outcome = merge(base, ours, theirs)
    if isinstance(outcome, Merged):
        sources = {
            re.sub(rb"[\r\n]+\Z", b"", line)
            for text in (base, ours, theirs)
            for line in text.splitlines(keepends=True)
        }
        for line in outcome.data.splitlines(keepends=True):
            assert re.sub(rb"[\r\n]+\Z", b"", line) in sources


# Marks


def test_marked_text_shows_both_where_they_overlap_and_merges_the_rest():
    ours = b"ONE\ntwo\nthree\nfour\n5\n"
    theirs = b"one\ntwo\nthree\nfour\nV\n"
    assert mark(BASE, ours, theirs, "laptop", "desk") == (
        b"ONE\ntwo\nthree\nfour\n<<<<<<< laptop\n5\n=======\nV\n>>>>>>> desk\n"
    )


def test_marks_use_the_texts_line_end_and_encoding_and_close_a_last_line():
    base, ours, theirs = (
        ("\ufeff" + text).encode("utf-16-le") for text in ("a\r\nb", "a\r\nB", "a\r\nß")
    )
    marked = mark(base, ours, theirs, "ä\nb", "c")
    assert isinstance(marked, bytes)
    assert marked.decode("utf-16") == ("a\r\n<<<<<<< ä_b\r\nB\r\n=======\r\nß\r\n>>>>>>> c\r\n")


def test_without_a_base_every_difference_is_marked():
    assert mark(None, b"a\nb\nc\n", b"a\nB\nc\nd\n", "x", "y") == (
        b"a\n<<<<<<< x\nb\n=======\nB\n>>>>>>> y\nc\n<<<<<<< x\n=======\nd\n>>>>>>> y\n"
    )


def test_what_can_not_be_merged_can_not_be_marked():
    assert mark(b"", b"\0", b"a\n", "x", "y") == NotMergeable("it is not text")
