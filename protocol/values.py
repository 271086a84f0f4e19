"""The values of an item's three registers, as they are before sealing.

Layouts stand in docs/formats.md. Parsers refuse whatever a file system could not show: names with a
slash or a zero byte, `.` and `..`, modes with type bits, negative sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol import codec, limits
from protocol.errors import RemoteProtocolError
from protocol.ids import BlockId, ItemId, LinkId
from protocol.manifests import Manifest
from protocol.version_vector import Context, Dot, dot_from_value, dot_to_value


class Kind(IntEnum):
    """What an item is. It never changes."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    FIFO = 3
    SOCKET = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """One name of an item: where it hangs."""

    id: LinkId
    parent: ItemId
    name: bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an item hangs.

    Attributes:
        links: sorted by link id; none when the item is deleted.
        former: links that were replaced or removed, the latest first; where a cycle or a
            resurrected folder finds its place.
        seen: for a deletion, the dots of the content register that the deleter had seen: content
            that it had not seen revives the item. Empty otherwise.
    """

    links: tuple[Link, ...]
    former: tuple[Link, ...] = ()
    seen: Context = Context()

    def to_value(self) -> codec.Value:
        """The canonical value."""
        return [
            [[link.id, link.parent, link.name] for link in self.links],
            [[link.id, link.parent, link.name] for link in self.former],
            self.seen.to_value(),
        ]

    @classmethod
    def from_value(cls, value: codec.Value) -> Placement:
        """Read `to_value`; `RemoteProtocolError` when it is not a placement."""
        links_value, former_value, seen_value = codec.as_tuple(value, "placement", 3)
        links = tuple(map(_link, codec.as_list(links_value, "links", limits.MAX_LINKS)))
        former = tuple(
            map(_link, codec.as_list(former_value, "former links", limits.MAX_FORMER_LINKS))
        )
        if list(links) != sorted({link.id: link for link in links}.values()):
            raise RemoteProtocolError("links are not sorted by distinct ids")
        return cls(links, former, Context.from_value(seen_value))


@dataclass(frozen=True, slots=True)
class ExplicitTime:
    """A modification time that a program set on a folder.

    Attributes:
        mtime_ns: nanoseconds since 1970; may be negative.
        set_time_us: hybrid time of the setting. A later change of the folder's entries outdoes it.
    """

    mtime_ns: int
    set_time_us: int


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """Who may do what with an item.

    Attributes:
        mode: permission bits, 0..0o7777.
        uid, gid: numeric owner, or None for whoever owns the drive on the showing device.
        xattrs: sorted by name.
        explicit_time: for folders; None when no program set one.
    """

    mode: int
    uid: int | None = None
    gid: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    explicit_time: ExplicitTime | None = None

    def to_value(self) -> codec.Value:
        """The canonical value."""
        time = self.explicit_time
        return [
            self.mode,
            self.uid,
            self.gid,
            [[name, value] for name, value in self.xattrs],
            None if time is None else [time.mtime_ns, time.set_time_us],
        ]

    @classmethod
    def from_value(cls, value: codec.Value) -> ItemAttributes:
        """Read `to_value`; `RemoteProtocolError` when it is not the attributes of an item."""
        mode, uid, gid, xattrs_value, time_value = codec.as_tuple(value, "attributes", 5)
        xattrs = []
        for pair in codec.as_list(xattrs_value, "extended attributes", limits.MAX_XATTRS_BYTES):
            name, content = codec.as_tuple(pair, "extended attribute", 2)
            codec.as_bytes(name, "attribute name", 1, limits.MAX_XATTR_NAME_BYTES)
            codec.as_bytes(content, "attribute value", 0, limits.MAX_XATTRS_BYTES)
            xattrs.append((name, content))
        if xattrs != sorted(dict(xattrs).items()):
            raise RemoteProtocolError("extended attributes are not sorted by distinct names")
        if sum(len(name) + len(content) for name, content in xattrs) > limits.MAX_XATTRS_BYTES:
            raise RemoteProtocolError("extended attributes are too long")
        time = None
        if time_value is not None:
            mtime_ns, set_time_us = codec.as_tuple(time_value, "explicit time", 2)
            time = ExplicitTime(
                _time_ns(mtime_ns), codec.as_int(set_time_us, 0, limits.MAX_TIME_US, "set time")
            )
        return cls(
            mode=codec.as_int(mode, 0, 0o7777, "mode"),
            uid=_owner(uid, "uid"),
            gid=_owner(gid, "gid"),
            xattrs=tuple(xattrs),
            explicit_time=time,
        )


@dataclass(frozen=True, slots=True)
class Content:
    """What an item holds.

    Attributes:
        kind: of the item.
        size: bytes of a file; length of a symlink's target; 0 otherwise.
        mtime_ns: nanoseconds since 1970; may be negative. Not used for folders.
        origin: the dot whose write brought these bytes; None when this write did. A write that
            only sets the time names the former one, so that it does not revive a deleted file.
        inline: the bytes of a short file, or a symlink's target.
        manifest: where the bytes of a longer file are; None when they are inline.
        device_number: of a device node.
    """

    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    origin: Dot | None = None
    inline: bytes = b""
    manifest: Manifest | None = None
    device_number: int = 0

    @property
    def blocks(self) -> tuple[BlockId, ...]:
        """What a record with this content lists in clear."""
        return () if self.manifest is None else self.manifest.blocks

    def identity(self) -> codec.Value:
        """Equal values stand for what `has_same_bytes`: for digests of it."""
        manifest = None if self.manifest is None else self.manifest.to_value()
        return [int(self.kind), self.size, self.inline, manifest, self.device_number]

    def has_same_bytes(self, other: Content) -> bool:
        """Whether both surely show the same: kind, bytes, target, device. Times do not count."""
        return (
            self.kind == other.kind
            and self.size == other.size
            and self.inline == other.inline
            and self.manifest == other.manifest
            and self.device_number == other.device_number
        )

    def to_value(self) -> codec.Value:
        """The canonical value."""
        return [
            int(self.kind),
            self.size,
            self.mtime_ns,
            dot_to_value(self.origin),
            self.inline,
            None if self.manifest is None else self.manifest.to_value(),
            self.device_number,
        ]

    @classmethod
    def from_value(cls, value: codec.Value) -> Content:
        """Read `to_value`; `RemoteProtocolError` when it is not a content."""
        kind, size, mtime_ns, origin, inline, manifest, number = codec.as_tuple(value, "content", 7)
        content = cls(
            kind=Kind(codec.as_int(kind, 0, max(Kind), "kind")),
            size=codec.as_int(size, 0, limits.MAX_FILE_BYTES, "size"),
            mtime_ns=_time_ns(mtime_ns),
            origin=dot_from_value(origin),
            inline=codec.as_bytes(inline, "inline content", 0, limits.INLINE_BYTES),
            manifest=None if manifest is None else Manifest.from_value(manifest),
            device_number=codec.as_int(number, 0, limits.MAX_COUNTER, "device number"),
        )
        content._check()
        return content

    def _check(self) -> None:
        if self.manifest is not None:
            if self.kind is not Kind.FILE or self.inline or self.manifest.size != self.size:
                raise RemoteProtocolError("content and its manifest disagree")
        elif self.kind in (Kind.FILE, Kind.SYMLINK):
            if len(self.inline) != self.size:
                raise RemoteProtocolError("content and its size disagree")
            if self.kind is Kind.SYMLINK and (
                not 0 < self.size <= limits.MAX_SYMLINK_BYTES or b"\0" in self.inline
            ):
                raise RemoteProtocolError("symlink without a valid target")
        elif self.inline or self.size:
            raise RemoteProtocolError(f"a {self.kind.name.lower()} holds no bytes")


def check_name(name: bytes) -> bytes:
    """The name, if a folder can hold it.

    Raises:
        RemoteProtocolError: empty, ``.``, ``..``, with a slash or a zero byte, or too long.
    """
    codec.as_bytes(name, "name", 1, limits.MAX_NAME_BYTES)
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise RemoteProtocolError(f"{name!r} can not be a name in a folder")
    return name


def _link(value: codec.Value) -> Link:
    link, parent, name = codec.as_tuple(value, "link", 3)
    return Link(
        LinkId(codec.as_bytes(link, "link id", 8, 8)),
        ItemId(codec.as_bytes(parent, "parent", 16, 16)),
        check_name(name),
    )


def _owner(value: codec.Value, what: str) -> int | None:
    return None if value is None else codec.as_int(value, 0, 2**32 - 1, what)


def _time_ns(value: codec.Value) -> int:
    return codec.as_int(value, -limits.MAX_COUNTER, limits.MAX_COUNTER, "time")
