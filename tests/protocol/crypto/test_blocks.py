"""Blocks open to what was sealed, and to nothing else."""

import concurrent.futures
import random
import struct

import pytest
import zstandard
from hypothesis import event, given, settings
from hypothesis import strategies as st

from protocol.crypto.blocks import (
    MAX_BLOCK_FRAME_BYTES,
    MAX_PLAIN_BYTES,
    BlockKind,
    block_id,
    frame_range,
    open_block,
    open_range,
    padme,
    parse_header,
    read_range,
    seal_block,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.ids import BlockId
from tests.protocol.crypto.frames import contents, reference_open, reference_seal

DEDUP = bytes(range(32))
CHILD = BlockId(b"\x11" * 32)
NOISE = random.Random(0).randbytes(200_000)


@given(plain=contents)
def test_any_plaintext_opens_again(plain):
    sealed = seal_block(DEDUP, plain)
    header = parse_header(sealed.frame)
    event(f"compressed {any(s.is_compressed for s in header.segments)}")
    event(f"raw {any(not s.is_compressed for s in header.segments)}")
    event(f"segments {len(header.segments)}")
    assert sealed.plain_length == len(plain)
    assert open_block(sealed.frame, sealed.key, len(plain), sealed.id) == plain


@given(plain=contents)
def test_any_block_is_what_the_documented_format_says(plain):
    sealed = seal_block(DEDUP, plain)
    header, payloads = reference_open(sealed.frame, sealed.key)
    assert (sealed.frame, sealed.key) == reference_seal(DEDUP, payloads)
    assert header == parse_header(sealed.frame).encoded


@given(plain=contents)
def test_sealing_is_deterministic(plain):
    assert seal_block(DEDUP, plain) == seal_block(DEDUP, memoryview(plain))
    assert seal_block(DEDUP, plain) == seal_block(DEDUP, bytearray(plain))


@given(plain=contents)
def test_another_dedup_key_gives_an_unrelated_block(plain):
    first, second = seal_block(DEDUP, plain), seal_block(bytes(32), plain)
    assert first.key != second.key
    assert first.id != second.id


@given(plain=contents, data=st.data())
def test_any_flipped_bit_is_refused_by_the_id_and_by_the_seal(plain, data):
    sealed = seal_block(DEDUP, plain)
    frame = bytearray(sealed.frame)
    position = data.draw(
        st.one_of(st.integers(0, len(frame) - 1), st.integers(0, min(40, len(frame) - 1)))
    )
    frame[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RemoteProtocolError, match="do not match"):
        open_block(bytes(frame), sealed.key, len(plain), sealed.id)
    with pytest.raises(RemoteProtocolError):
        open_block(bytes(frame), sealed.key, len(plain))


@given(plain=contents, data=st.data())
def test_a_block_of_another_key_or_length_is_refused(plain, data):
    sealed = seal_block(DEDUP, plain)
    key = bytearray(sealed.key)
    key[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RemoteProtocolError):
        open_block(sealed.frame, bytes(key), len(plain))
    with pytest.raises(RemoteProtocolError):
        open_block(sealed.frame, sealed.key[:-1], len(plain))


@given(plain=contents, change=st.one_of(st.integers(-70_000, 70_000), st.sampled_from([1, -1])))
def test_a_length_from_a_forged_manifest_never_passes_unless_it_is_only_padding(plain, change):
    sealed = seal_block(DEDUP, plain)
    length = len(plain) + change
    if change == 0:
        return
    try:
        opened = open_block(sealed.frame, sealed.key, length)
    except RemoteProtocolError:
        event("refused")
    else:
        event("taken for padding")
        last = parse_header(sealed.frame).segments[-1]
        longer, shorter = max(opened, plain, key=len), min(opened, plain, key=len)
        assert not last.is_compressed
        assert longer == shorter + bytes(len(longer) - len(shorter))


@given(plain=contents, data=st.data())
def test_a_range_is_the_slice(plain, data):
    sealed = seal_block(DEDUP, plain)
    offset = data.draw(st.integers(0, len(plain) + 10))
    size = data.draw(st.one_of(st.integers(0, len(plain) + 10), st.integers(0, 4096)))
    wanted = plain[offset : offset + size]
    assert read_range(sealed.frame, sealed.key, len(plain), offset, size) == wanted
    header = parse_header(sealed.frame)
    start, stop = frame_range(header, len(plain), offset, size)
    part = sealed.frame[start:stop]
    assert open_range(header, sealed.key, len(plain), offset, size, part) == wanted


def test_a_range_opens_only_the_segments_it_touches():
    sealed = seal_block(DEDUP, NOISE)
    header = parse_header(sealed.frame)
    damaged = bytearray(sealed.frame)
    for index in (0, 2, 3):
        damaged[header.segments[index].offset] ^= 1
    middle = read_range(damaged, sealed.key, len(NOISE), 65_536, 65_536)
    assert middle == NOISE[65_536:131_072]
    for offset in (65_535, 131_071):
        with pytest.raises(RemoteProtocolError):
            read_range(damaged, sealed.key, len(NOISE), offset, 2)


def test_a_range_needs_no_more_of_the_frame_than_its_segments():
    sealed = seal_block(DEDUP, NOISE)
    start, stop = frame_range(parse_header(sealed.frame), len(NOISE), 65_536, 10)
    assert stop - start == 65_536 + 16
    assert (
        read_range(sealed.frame[:stop], sealed.key, len(NOISE), 65_536, 10) == NOISE[65_536:65_546]
    )
    with pytest.raises(RemoteProtocolError):
        read_range(sealed.frame[: stop - 1], sealed.key, len(NOISE), 65_536, 10)


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, -1), (-5, -5)])
def test_a_negative_range_is_our_mistake(offset, size):
    sealed = seal_block(DEDUP, b"content")
    with pytest.raises(LocalProtocolError):
        read_range(sealed.frame, sealed.key, 7, offset, size)


@given(frame=st.binary(max_size=300), length=st.integers(-5, 300))
def test_any_bytes_are_refused_as_a_frame(frame, length):
    with pytest.raises(RemoteProtocolError):
        open_block(frame, DEDUP, length)
    with pytest.raises(RemoteProtocolError):
        read_range(frame, DEDUP, length, 0, 10)
    with pytest.raises(RemoteProtocolError):
        open_block(frame, DEDUP, length, CHILD)


@given(plain=contents, data=st.data())
def test_any_cut_or_lengthened_frame_is_refused(plain, data):
    sealed = seal_block(DEDUP, plain)
    cut = data.draw(st.integers(0, len(sealed.frame) - 1))
    for frame in (sealed.frame[:cut], sealed.frame + b"\0"):
        with pytest.raises(RemoteProtocolError):
            open_block(frame, sealed.key, len(plain))


def _zstd(plain, **options):
    return zstandard.ZstdCompressor(**options).compress(plain)


def _packed(content, padding=None):
    padding = padme(4 + len(content)) - 4 - len(content) if padding is None else padding
    return len(content).to_bytes(4, "big") + content + bytes(padding)


def _padded(payload):
    return payload + bytes(padme(len(payload)) - len(payload))


def _forged(plain, form, level, extra):
    """A payload of some plaintext: as a writer makes it, or wrong in one way."""
    zstd = _zstd(plain, level=level, write_content_size=False)
    match form:
        case "compressed":
            return _packed(zstd), True
        case "raw":
            return _padded(plain), False
        case "sized":
            return _packed(_zstd(plain, level=level, write_content_size=True)), True
        case "trailing":
            return _packed(zstd + extra), True
        case "cut":
            return _packed(zstd[: -len(extra)]), True
        case "noise":
            return _packed(extra), True
        case "changed":
            at = len(zstd) * extra[0] // 256
            return _packed(zstd[:at] + extra + zstd[at + len(extra) :]), True
        case "dirty":
            return _padded(plain)[:-1] + b"x", False
        case _:
            raise AssertionError(form)


forms = ["compressed", "raw", "sized", "trailing", "cut", "noise", "changed", "dirty"]


@settings(max_examples=500)
@given(
    plain=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 65_536).map(bytes)),
    form=st.sampled_from(forms),
    level=st.integers(1, 9),
    extra=st.binary(min_size=1, max_size=40),
    change=st.sampled_from([0, 0, 0, 1, -1, 100]),
)
def test_whatever_a_malicious_member_seals_gives_content_or_a_remote_error(
    plain, form, level, extra, change
):
    frame, key = reference_seal(DEDUP, [_forged(plain, form, level, extra)])
    length = len(plain) + change
    try:
        opened = open_block(frame, key, length)
    except RemoteProtocolError as error:
        event(f"{form}, refused: {str(error)[:30]}")
        assert form not in ("compressed", "raw") or change or len(plain) > 65_535
    else:
        event(f"{form}, opened")
        assert len(opened) == length


@pytest.mark.parametrize(
    ("payload", "compressed", "complaint"),
    [
        (_packed(_zstd(bytes(1000), write_content_size=True)), True, "says how long"),
        (_packed(_zstd(bytes(999), write_content_size=False)), True, "instead of 1000"),
        (_packed(_zstd(bytes(1001), write_content_size=False)), True, "decompress|instead of"),
        (_packed(_zstd(bytes(10**8), write_content_size=False)), True, "decompress|instead of"),
        (_padded(_packed(_zstd(bytes(1000), write_content_size=False), 900)), True, "padded"),
        (_packed(b"no zstd frame at all"), True, "decompress"),
        (_packed(b""), True, "segment of 4 bytes"),
        ((2**32 - 1).to_bytes(4, "big") + bytes(60), True, "padded"),
        (struct.pack("<IBBQ", 0xFD2FB528, 0xC0, 0, 2**62).rjust(20, b"\0"), True, "padded"),
        (_packed(struct.pack("<IBBQ", 0xFD2FB528, 0xC0, 0, 2**62)), True, "says how long"),
        (_packed(_zstd(bytes(1000), write_content_size=False) + b"x"), True, "decompress|instead"),
        (_packed(bytes.fromhex("502a4d18") + bytes(4)), True, "decompress|says|instead"),
        (b"x" * 1024, False, "padded"),
        (b"x" * 1000 + bytes(88), False, "padded"),
        (b"x" * 960, False, "padded"),
    ],
)
def test_a_payload_that_no_writer_makes_is_refused(payload, compressed, complaint):
    frame, key = reference_seal(DEDUP, [(payload, compressed)])
    with pytest.raises(RemoteProtocolError, match=complaint):
        open_block(frame, key, 1000)


def test_a_window_far_larger_than_a_segment_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = stream.compress(bytes(1000)) + stream.flush()
    assert zstandard.get_frame_parameters(content).window_size == 2**24
    frame, key = reference_seal(DEDUP, [(_packed(content), True)])
    with pytest.raises(RemoteProtocolError, match="decompress"):
        open_block(frame, key, 1000)


def test_segments_can_not_change_places():
    sealed = seal_block(DEDUP, NOISE[:131_072])
    header = parse_header(sealed.frame)
    cut = header.segments[1].offset
    swapped = header.encoded + sealed.frame[cut:] + sealed.frame[header.header_length : cut]
    assert len(swapped) == len(sealed.frame)
    with pytest.raises(RemoteProtocolError, match="does not open"):
        open_block(swapped, sealed.key, 131_072)


def test_different_contents_never_share_a_key():
    variants = [NOISE, NOISE[:-1], NOISE[:65_536], bytes(10), bytes(11), b"", b"\0"]
    assert len({seal_block(DEDUP, plain).key for plain in variants}) == len(variants)


def test_the_same_bytes_as_page_and_as_data_never_share_a_key():
    page = seal_block(DEDUP, NOISE, BlockKind.PAGE, [CHILD])
    assert (
        len({page.key, seal_block(DEDUP, NOISE).key, seal_block(DEDUP, NOISE, BlockKind.PAGE).key})
        == 3
    )


def test_only_the_rounded_length_of_incompressible_content_shows():
    frames = {len(seal_block(DEDUP, NOISE[:length]).frame) for length in range(60_000, 61_441)}
    assert frames == {10 + 4 + 61_440 + 16}


def test_compressible_content_takes_little_room():
    assert len(seal_block(DEDUP, b"all work and no play " * 3000).frame) < 1000


def test_a_segment_that_does_not_shrink_after_padding_stays_raw():
    sealed = seal_block(DEDUP, NOISE[:60_000] + bytes(600))
    assert not parse_header(sealed.frame).segments[0].is_compressed


@pytest.mark.parametrize("pattern", [NOISE, bytes(200_000)], ids=["noise", "zeros"])
def test_a_block_of_the_largest_size_opens_again(pattern):
    plain = (pattern * 21)[:MAX_PLAIN_BYTES]
    sealed = seal_block(DEDUP, plain)
    assert len(sealed.frame) <= MAX_BLOCK_FRAME_BYTES
    assert open_block(sealed.frame, sealed.key, len(plain), sealed.id) == plain


def test_a_page_lists_its_children_in_clear_and_opens_again():
    children = [CHILD, BlockId(b"\x22" * 32)]
    sealed = seal_block(DEDUP, b"entries", BlockKind.PAGE, children)
    assert parse_header(sealed.frame).children == tuple(children)
    assert open_block(sealed.frame, sealed.key, 7, sealed.id) == b"entries"


@pytest.mark.parametrize(
    ("key", "plain", "kind", "children"),
    [
        (DEDUP[:31], b"", BlockKind.DATA, []),
        (DEDUP, bytes(MAX_PLAIN_BYTES + 1), BlockKind.DATA, []),
        (DEDUP, b"", BlockKind.DATA, [CHILD]),
        (DEDUP, b"", BlockKind.PAGE, [CHILD, CHILD]),
        (DEDUP, b"", BlockKind.PAGE, [BlockId(n.to_bytes(32, "big")) for n in range(1025)]),
    ],
    ids=["key", "length", "children of data", "children twice", "children too many"],
)
def test_what_no_block_can_be_is_our_mistake(key, plain, kind, children):
    with pytest.raises(LocalProtocolError):
        seal_block(key, plain, kind, children)


def test_a_buffer_that_changes_while_it_is_sealed_does_not_reach_the_cipher(monkeypatch):
    plain = bytearray(NOISE[:65_536])
    before = bytes(plain)

    def changing(frame_hash, header, payloads):
        key = derive_key(frame_hash, header, payloads)
        plain[:] = bytes(65_536)
        return key

    from protocol.crypto import blocks

    derive_key = blocks._block_key
    monkeypatch.setattr(blocks, "_block_key", changing)
    sealed = seal_block(DEDUP, plain)
    assert open_block(sealed.frame, sealed.key, 65_536) == before


def test_threads_seal_and_open_side_by_side():
    plains = [(NOISE[index:] + bytes(90_000))[:250_000] for index in range(16)]
    expected = [seal_block(DEDUP, plain) for plain in plains]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        sealed = list(threads.map(lambda plain: seal_block(DEDUP, plain), plains))
        opened = list(threads.map(lambda b: open_block(b.frame, b.key, 250_000, b.id), sealed))
    assert sealed == expected
    assert opened == plains


def test_a_sealed_block_prints_neither_key_nor_content():
    sealed = seal_block(DEDUP, b"content")
    assert repr(sealed) == f"SealedBlock(id=BlockId({sealed.id}), plain_length=7)"
    assert block_id(sealed.frame) == sealed.id
