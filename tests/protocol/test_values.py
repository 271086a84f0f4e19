import dataclasses

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import RemoteProtocolError
from protocol.ids import ActorId, BlockId, ItemId, LinkId
from protocol.manifests import Entry, Manifest
from protocol.values import (
    Content,
    ExplicitTime,
    ItemAttributes,
    Kind,
    Link,
    Placement,
    check_name,
)
from protocol.version_vector import EMPTY_CONTEXT, Dot
from tests.protocol import anything

DOT = Dot(ActorId(b"a" * 16), 3)
FOLDER = ItemId(b"f" * 16)


def link(number, name=b"name"):
    return Link(LinkId(bytes([number]) * 8), FOLDER, name)


PLACEMENT = Placement((link(1), link(2, b"other")), (link(1, b"old"),), EMPTY_CONTEXT.add([DOT]))
ATTRIBUTES = ItemAttributes(
    0o4755, 0, 2**32 - 1, ((b"user.a", b""), (b"user.b", b"\0\xff")), ExplicitTime(-1, 5)
)
MANIFEST = Manifest((Entry(BlockId(b"b" * 32), b"k" * 32, 5000), Entry.hole(7)))
CONTENTS = [
    Content(Kind.FILE, 3, -1, DOT, b"abc"),
    Content(Kind.FILE, 5007, 0, None, manifest=MANIFEST),
    Content(Kind.DIRECTORY),
    Content(Kind.SYMLINK, 6, 1, None, b"target"),
    Content(Kind.CHARACTER_DEVICE, device_number=259),
    Content(Kind.FIFO),
    Content(Kind.SOCKET),
    Content(Kind.BLOCK_DEVICE, device_number=2**20),
]
VALUES = [PLACEMENT, ATTRIBUTES, *CONTENTS]


def plain(value):
    """The value as it comes out of the codec: ids are bytes."""
    return codec.decode(codec.encode(value.to_value()), 1 << 20)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_travels_unchanged(value):
    assert type(value).from_value(plain(value)) == value


@given(
    st.sampled_from(VALUES).flatmap(
        lambda value: st.tuples(st.just(type(value)), anything.mutations(plain(value)))
    )
)
def test_any_value_is_one_of_its_register_or_refused(case):
    kind, value = case
    try:
        parsed = kind.from_value(value)
    except RemoteProtocolError:
        event(f"{kind.__name__} refused")
        return
    event(f"{kind.__name__} accepted")
    assert codec.encode(parsed.to_value()) == codec.encode(value)


@given(anything.values)
def test_what_is_no_value_at_all_is_refused(value):
    for kind in (Placement, ItemAttributes, Content):
        try:
            parsed = kind.from_value(value)
        except RemoteProtocolError:
            continue
        # Chance finds the placement without links now and then: then it is one.
        assert codec.encode(parsed.to_value()) == codec.encode(value)


@pytest.mark.parametrize("value", [None, 0, b"", "text", True, [], [0], [[], []], [b""] * 7])
def test_what_has_another_shape_is_refused(value):
    for kind in (Placement, ItemAttributes, Content):
        with pytest.raises(RemoteProtocolError):
            kind.from_value(value)


BAD_NAMES = [b"", b".", b"..", b"/", b"a/b", b"/a", b"a\0b", b"\0", b"n" * 256]
GOOD_NAMES = [
    b"n" * 255,
    b"...",
    b".a",
    b"a.",
    b"\xff\xfe",
    b"caf\xe9",
    "é".encode(),
    b" ",
    b"\n",
    b"-",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_folder_can_hold_is_refused(name):
    with pytest.raises(RemoteProtocolError):
        check_name(name)
    for placement in (Placement((link(1, name),)), Placement((), (link(1, name),))):
        with pytest.raises(RemoteProtocolError):
            Placement.from_value(plain(placement))


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_every_other_name_is_accepted_also_what_is_not_utf_8(name):
    placement = Placement((link(1, name),))
    assert Placement.from_value(plain(placement)) == placement


@given(st.binary(max_size=300))
def test_a_name_is_accepted_exactly_when_linux_would(name):
    is_good = 1 <= len(name) <= 255 and not {47, 0} & set(name) and name not in (b".", b"..")
    try:
        assert check_name(name) == name
        assert is_good
    except RemoteProtocolError:
        assert not is_good


def test_a_name_that_is_a_text_is_refused():
    value = plain(PLACEMENT)
    value[0][0][2] = "name"
    with pytest.raises(RemoteProtocolError):
        Placement.from_value(value)


@pytest.mark.parametrize(
    "placement",
    [
        Placement((link(2), link(1))),
        Placement((link(1), link(1))),
        Placement((link(1), link(1, b"other"))),
        Placement((), tuple(link(n) for n in range(limits.MAX_FORMER_LINKS + 1))),
        Placement(
            tuple(
                Link(LinkId(n.to_bytes(8, "big")), FOLDER, b"n")
                for n in range(limits.MAX_LINKS + 1)
            )
        ),
    ],
    ids=["unsorted", "twice", "two of one id", "too many former", "too many"],
)
def test_links_are_sorted_by_distinct_ids_and_bounded(placement):
    with pytest.raises(RemoteProtocolError):
        Placement.from_value(plain(placement))


@pytest.mark.parametrize(
    "attributes",
    [
        ItemAttributes(0o10000),
        ItemAttributes(0o100644),
        ItemAttributes(-1),
        ItemAttributes(0, uid=-1),
        ItemAttributes(0, gid=2**32),
        ItemAttributes(0, xattrs=((b"b", b""), (b"a", b""))),
        ItemAttributes(0, xattrs=((b"a", b""), (b"a", b"x"))),
        ItemAttributes(0, xattrs=((b"", b""),)),
        ItemAttributes(0, xattrs=((b"n" * 256, b""),)),
        ItemAttributes(0, xattrs=((b"a", bytes(limits.MAX_XATTRS_BYTES)),)),
        ItemAttributes(0, explicit_time=ExplicitTime(0, -1)),
        ItemAttributes(0, explicit_time=ExplicitTime(0, limits.MAX_TIME_US + 1)),
        ItemAttributes(0, explicit_time=ExplicitTime(2**63, 0)),
    ],
)
def test_attributes_that_no_file_has_are_refused(attributes):
    with pytest.raises(RemoteProtocolError):
        ItemAttributes.from_value(plain(attributes))


@pytest.mark.parametrize(
    "content",
    [
        Content(Kind.FILE, 4, inline=b"abc"),
        Content(Kind.FILE, -1),
        Content(Kind.FILE, limits.INLINE_BYTES + 1, inline=bytes(limits.INLINE_BYTES + 1)),
        Content(Kind.FILE, 5006, manifest=MANIFEST),
        Content(Kind.FILE, 5007, inline=b"a", manifest=MANIFEST),
        Content(Kind.DIRECTORY, 5007, manifest=MANIFEST),
        Content(Kind.DIRECTORY, 1, inline=b"a"),
        Content(Kind.FIFO, 3),
        Content(Kind.SYMLINK),
        Content(Kind.SYMLINK, 3, inline=b"a\0b"),
        Content(Kind.SYMLINK, 4096, inline=b"a" * 4096),
        Content(Kind.CHARACTER_DEVICE, device_number=-1),
        Content(Kind.FILE, mtime_ns=2**63),
        Content(Kind.FILE, origin=Dot(DOT.actor, 0)),
    ],
)
def test_contents_that_no_file_system_could_show_are_refused(content):
    with pytest.raises(RemoteProtocolError):
        Content.from_value(plain(content))


def test_a_kind_that_does_not_exist_is_refused():
    value = plain(CONTENTS[0])
    for kind in (-1, 7, 2**63, "0", None, False):
        value[0] = kind
        with pytest.raises(RemoteProtocolError):
            Content.from_value(value)


def test_same_bytes_do_not_mind_times():
    one = CONTENTS[0]
    assert one.has_same_bytes(dataclasses.replace(one, mtime_ns=99, origin=None))
    assert not one.has_same_bytes(dataclasses.replace(one, inline=b"abd"))
    assert not Content(Kind.FILE).has_same_bytes(Content(Kind.DIRECTORY))
    assert not CONTENTS[4].has_same_bytes(dataclasses.replace(CONTENTS[4], device_number=1))


def test_a_record_lists_the_blocks_of_a_manifest_only():
    assert CONTENTS[1].blocks == (BlockId(b"b" * 32),)
    assert CONTENTS[0].blocks == ()
