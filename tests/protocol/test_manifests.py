"""Manifests name the blocks of a file, inline or through pages that can not lie."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.crypto.blocks import BlockKind, SealedBlock, block_id, parse_header, seal_block
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import BlockId
from protocol.limits import MAX_FILE_BYTES
from protocol.manifests import (
    MAX_PAGE_BYTES,
    Entry,
    Manifest,
    PageRef,
    open_page,
    overlapping,
    pack,
)
from tests.protocol.crypto.frames import reference_seal_raw

VECTORS = Path(__file__).parents[1] / "vectors" / "manifests.json"
DEDUP = bytes(range(32))
RANDOM = random.Random(7)
BLOCKS = sorted(BlockId(RANDOM.randbytes(32)) for _ in range(5000))
KEY = bytes(range(32, 64))


def seal_page(plain, children):
    return seal_block(DEDUP, plain, BlockKind.PAGE, children)


def entries_of(count, length=1000):
    return [Entry(RANDOM.choice(BLOCKS), KEY, length + n) for n in range(count)]


def walk(manifest, pages):
    """All entries, as a reader finds them."""
    frames = {page.id: page.frame for page in pages}

    def descend(pieces):
        for piece in pieces:
            if isinstance(piece, PageRef):
                yield from descend(open_page(piece, frames[piece.block]))
            else:
                yield piece

    return list(descend(manifest.pieces))


entry = st.one_of(
    st.builds(
        Entry, st.sampled_from(BLOCKS), st.binary(min_size=32, max_size=32), st.integers(1, 2**22)
    ),
    st.integers(1, 2**40).map(Entry.hole),
)
some_entries = st.one_of(
    st.lists(entry, max_size=70),
    st.builds(
        lambda few, times: few * times, st.lists(entry, min_size=1, max_size=5), st.integers(0, 500)
    ),
)


@given(entries=some_entries)
def test_any_list_of_entries_reads_back(entries):
    manifest, pages = pack(entries, seal_page)
    event(f"pages {len(pages)}")
    assert walk(manifest, pages) == entries
    assert manifest.size == sum(e.length for e in entries)
    value = codec.decode(codec.encode(manifest.to_value()), 10_000)
    assert Manifest.from_value(value) == manifest


@given(entries=some_entries)
def test_the_same_entries_give_the_same_manifest(entries):
    assert pack(entries, seal_page) == pack(iter(entries), seal_page)


@pytest.mark.parametrize(
    ("count", "level", "page_count"),
    [(64, None, 0), (65, 0, 1), (1024, 0, 1), (1025, 1, 3), (4000, 1, 5)],
)
def test_a_longer_list_becomes_pages(count, level, page_count):
    entries = entries_of(count)
    manifest, pages = pack(entries, seal_page)
    assert (manifest.root.level if manifest.root else None) == level
    assert len(pages) == page_count
    assert walk(manifest, pages) == entries


def test_children_come_before_the_pages_that_list_them():
    _, pages = pack(entries_of(3000), seal_page)
    seen = set(BLOCKS)
    for page in pages:
        assert set(parse_header(page.frame).children) <= seen
        seen.add(page.id)


def test_equal_pages_are_given_once():
    entries = [Entry(BLOCKS[0], KEY, 1000)] * 4096
    manifest, pages = pack(entries, seal_page)
    assert len(pages) == 2
    assert walk(manifest, pages) == entries


def test_an_edit_changes_only_the_pages_above_it():
    entries = entries_of(4096)
    _, before = pack(entries, seal_page)
    entries[2000] = Entry(BLOCKS[1], KEY, entries[2000].length)
    _, after = pack(entries, seal_page)
    assert len({page.id for page in after} - {page.id for page in before}) == 2


def test_a_record_lists_distinct_data_blocks_or_the_root_page():
    few = [
        Entry(BLOCKS[3], KEY, 5),
        Entry.hole(9),
        Entry(BLOCKS[1], KEY, 5),
        Entry(BLOCKS[3], KEY, 5),
    ]
    manifest, _ = pack(few, seal_page)
    assert manifest.blocks == (BLOCKS[1], BLOCKS[3])
    manifest, pages = pack(few * 20, seal_page)
    assert manifest.blocks == (pages[-1].id,)


def test_a_full_page_fits_its_bound():
    entries = [Entry(BLOCKS[n], KEY, 2**22) for n in range(1024)]
    _, pages = pack(entries, seal_page)
    assert pages[0].plain_length < MAX_PAGE_BYTES
    top = [[bytes(32), bytes(32), MAX_FILE_BYTES, MAX_PAGE_BYTES]] * 1024
    assert len(codec.encode([3, top])) < MAX_PAGE_BYTES


def test_a_file_of_holes_only_needs_no_blocks():
    manifest, pages = pack([Entry.hole(1)] * 100, seal_page)
    assert parse_header(pages[0].frame).children == ()
    assert walk(manifest, pages) == [Entry.hole(1)] * 100


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(BLOCKS[0], KEY, 0)],
        [Entry(BLOCKS[0], KEY, 2**22 + 1)],
        [Entry(BLOCKS[0], KEY[:31], 5)],
        [Entry(None, KEY, 5)],
        [Entry.hole(0)],
        [Entry.hole(MAX_FILE_BYTES), Entry.hole(1)],
    ],
    ids=["empty", "too long", "short key", "hole with key", "empty hole", "file too long"],
)
def test_an_entry_that_breaks_a_rule_is_our_mistake(entries):
    with pytest.raises(LocalProtocolError):
        pack(entries, seal_page)


def test_more_pages_than_four_levels_hold_are_our_mistake(monkeypatch):
    from protocol import manifests

    monkeypatch.setattr(manifests, "MAX_PAGE_ENTRIES", 2)
    assert walk(*pack([Entry.hole(1)] * 16, seal_page)) == [Entry.hole(1)] * 16
    monkeypatch.setattr(manifests, "MAX_INLINE_ENTRIES", 1)
    manifest, pages = pack([Entry.hole(1)] * 16, seal_page)
    assert manifest.root is not None
    assert manifest.root.level == 3
    assert walk(manifest, pages) == [Entry.hole(1)] * 16
    with pytest.raises(LocalProtocolError, match="levels"):
        pack([Entry.hole(1)] * 17, seal_page)


any_value = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-2, 5),
        st.integers(-(2**63), 2**64 - 1),
        st.binary(max_size=33),
        st.sampled_from([bytes(32), b""]),
        st.booleans(),
        st.text(max_size=3),
    ),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


piece_value = st.one_of(
    st.tuples(
        st.sampled_from([bytes(BLOCKS[0]), bytes(BLOCKS[1])]), st.just(KEY), st.integers(1, 5)
    ),
    st.tuples(st.none(), st.just(b""), st.integers(1, 5)),
    st.tuples(
        st.sampled_from([bytes(BLOCKS[0]), None, b"x"]),
        st.sampled_from([KEY, b"", 5]),
        st.integers(-1, 2),
    ),
    st.tuples(st.just(bytes(BLOCKS[0])), st.just(KEY), st.integers(1, 5), st.integers(0, 5)),
).map(list)

manifest_value = st.one_of(
    st.lists(piece_value, max_size=4).map(lambda values: [0, values]),
    st.tuples(st.integers(-1, 4), st.integers(0, 9), st.integers(0, 9)).map(
        lambda numbers: [1, [numbers[0], bytes(32), KEY, *numbers[1:]]]
    ),
)


@given(value=st.one_of(any_value, manifest_value))
def test_any_value_is_a_manifest_or_a_remote_error(value):
    try:
        manifest = Manifest.from_value(value)
    except RemoteProtocolError:
        event("refused")
    else:
        event("accepted")
        assert manifest.to_value() == value


@pytest.mark.parametrize(
    "value",
    [
        [0, [[bytes(32), bytes(32), 5]] * 65],
        [0, [[None, b"", MAX_FILE_BYTES], [None, b"", 1]]],
        [0, [[None, bytes(32), 5]]],
        [0, [[bytes(32), b"", 5]]],
        [0, [[bytes(31), bytes(32), 5]]],
        [0, [[bytes(32), bytes(32), 2**22 + 1]]],
        [0, [[bytes(32), bytes(32), 0]]],
        [0, [[bytes(32), bytes(32), True]]],
        [1, [4, bytes(32), bytes(32), 5, 5]],
        [1, [-1, bytes(32), bytes(32), 5, 5]],
        [1, [0, None, b"", 5, 5]],
        [1, [0, bytes(32), bytes(32), 0, 5]],
        [1, [0, bytes(32), bytes(32), 5, MAX_PAGE_BYTES + 1]],
        [2, []],
        [False, []],
    ],
)
def test_a_manifest_out_of_bounds_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        Manifest.from_value(value)


def _page(level, values, children=None, kind=BlockKind.PAGE, length=None):
    """A page as a malicious member may seal it, and how a manifest would name it."""
    plain = codec.encode([level, values])
    if children is None:
        children = sorted({BlockId(v[0]) for v in values if v[0] is not None})
    sealed = seal_block(DEDUP, plain, kind, children)
    total = sum(v[2] for v in values) if length is None else length
    return PageRef(0, sealed.id, sealed.key, total, len(plain)), sealed.frame


VALUES = [[bytes(BLOCKS[0]), KEY, 5], [None, b"", 7], [bytes(BLOCKS[1]), KEY, 5]]


def test_an_honest_page_opens():
    ref, frame = _page(0, VALUES)
    assert open_page(ref, frame) == (
        Entry(BLOCKS[0], KEY, 5),
        Entry.hole(7),
        Entry(BLOCKS[1], KEY, 5),
    )


@pytest.mark.parametrize(
    ("ref_and_frame", "complaint"),
    [
        (_page(0, VALUES, children=[BLOCKS[0]]), "in clear"),
        (_page(0, VALUES, children=BLOCKS[:3]), "in clear"),
        (_page(0, VALUES, children=[BLOCKS[0], BLOCKS[2]]), "in clear"),
        (_page(0, VALUES, children=[]), "in clear"),
        (_page(0, [[None, b"", 7]], children=[], kind=BlockKind.DATA), "not a page"),
        (_page(0, VALUES, length=16), "describe"),
        (_page(0, VALUES, length=18), "describe"),
        (_page(1, VALUES), "level"),
        (_page(0, [[bytes(BLOCKS[0]), KEY, 5, 9]]), "entry"),
        (_page(0, [[None, b"", 1]] * 1025), "at most 1024"),
    ],
)
def test_a_page_that_lies_is_refused(ref_and_frame, complaint):
    with pytest.raises(RemoteProtocolError, match=complaint):
        open_page(*ref_and_frame)


def test_another_block_in_the_place_of_a_page_is_refused():
    ref, _ = _page(0, VALUES)
    _, other = _page(0, VALUES[:1])
    with pytest.raises(RemoteProtocolError, match="do not match"):
        open_page(ref, other)


def _consistent(values):
    """A page at level 0 as it should be, if its entries are."""
    children = sorted({BlockId(v[0]) for v in values if v[0] and len(v[0]) == 32})
    return codec.encode([0, values]), children, sum(v[2] for v in values)


pages = st.one_of(
    st.lists(piece_value, max_size=4).map(_consistent),
    st.tuples(
        st.one_of(
            st.binary(max_size=200),
            any_value.map(codec.encode),
            st.lists(piece_value, max_size=4).map(lambda values: codec.encode([0, values])),
        ),
        st.sampled_from([[], [BLOCKS[0]], BLOCKS[:2]]),
        st.integers(1, 12),
    ),
)


@settings(max_examples=400)
@given(page=pages, level=st.sampled_from([0, 0, 0, 1]))
def test_any_plaintext_of_a_page_gives_entries_or_a_remote_error(page, level):
    plain, children, length = page
    sealed = seal_block(DEDUP, plain, BlockKind.PAGE, children)
    ref = PageRef(level, sealed.id, sealed.key, length, len(plain))
    try:
        pieces = open_page(ref, sealed.frame)
    except RemoteProtocolError as error:
        event(f"refused: {str(error)[:5]}")
    else:
        event("opened")
        assert sum(piece.length for piece in pieces) == length
        assert {piece.block for piece in pieces} - {None} == set(children)


@given(
    lengths=st.lists(st.integers(1, 9), max_size=20),
    offset=st.integers(0, 200),
    size=st.integers(0, 200),
)
def test_the_overlapping_pieces_are_those_with_a_wanted_byte(lengths, offset, size):
    pieces = [Entry.hole(length) for length in lengths]
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    wanted = set(range(offset, offset + size))
    expected = [
        (start, piece)
        for start, piece in zip(starts, pieces, strict=True)
        if wanted & set(range(start, start + piece.length))
    ]
    assert list(overlapping(pieces, offset, size)) == expected
    shifted = [(start + 1000, piece) for start, piece in expected]
    assert list(overlapping(pieces, offset + 1000, size, start=1000)) == shifted


def test_printing_a_manifest_shows_no_key():
    manifest, _ = pack(entries_of(3), seal_page)
    assert repr(KEY) not in repr(manifest)
    assert KEY.hex() not in repr(manifest)


def _vector_entries(count, holes):
    """The list of entries that tests/vectors/manifests.json describes."""
    entries = []
    for n in range(count):
        block, key = (hashlib.sha256(f"{what} {n}".encode()).digest() for what in ("block", "key"))
        entries.append(Entry(BlockId(block), key, 1000 + n))
        if holes and n % 10 == 9:
            entries.append(Entry.hole(5000))
    return entries


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text())["manifests"])
def test_vectors(vector):
    dedup_key = bytes.fromhex(vector["dedup_key"])

    def seal_raw(plain, children):
        frame, key = reference_seal_raw(dedup_key, plain, BlockKind.PAGE, children)
        return SealedBlock(block_id(frame), key, frame, len(plain))

    entries = _vector_entries(vector["count"], vector["holes"])
    manifest, pages = pack(entries, seal_raw)
    value = codec.encode(manifest.to_value())
    assert value.hex() == vector.get("value", value.hex())
    assert hashlib.sha256(value).hexdigest() == vector["value_sha256"]
    assert hashlib.sha256(b"".join(manifest.blocks)).hexdigest() == vector["blocks_sha256"]
    assert manifest.size == vector["size"]
    assert [[str(p.id), p.key.hex(), p.plain_length] for p in pages] == vector["pages"]
    assert walk(manifest, pages) == entries
