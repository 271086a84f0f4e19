"""``/v1/namespaces/{namespace}/blocks``: blocks as raw bytes, in ranges if asked for."""

import re
from collections.abc import AsyncIterator
from typing import Final

import anyio

from protocol.http_api import MAX_BLOCK_LIST, BlockList, EmptyBody, ErrorCode
from protocol.ids import BlockId, NamespaceId
from server.blobs.port import StoredBlock
from server.errors import ApiError
from server.routes.endpoint import Access, Call, Endpoint

MEDIA_TYPE: Final = b"application/octet-stream"

PIECE_BYTES: Final = 1024 * 1024
"""Read and sent at once; what a block has at most in memory on its way out."""

CHUNK_DEADLINE_S: Final = 60
"""Between two parts of an upload; the network gives some 64 KiB at once."""

_RANGE: Final = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


async def _missing(call: Call) -> BlockList:
    return await call.services.blocks.missing(call.session, _namespace(call), call.body(BlockList))


async def _put(call: Call) -> EmptyBody:
    await call.services.blocks.put(
        call.session, _namespace(call), call.identifier("block", BlockId), _timed(call.chunks())
    )
    return EmptyBody()


async def _get(call: Call) -> None:
    block = call.identifier("block", BlockId)
    async with call.services.blocks.get(call.session, _namespace(call), block) as stored:
        wanted = _parse_range(call.header_range, stored.size_bytes)
        await _send_block(call, stored, wanted)


async def _send_block(call: Call, stored: StoredBlock, wanted: range | None) -> None:
    total = stored.size_bytes
    status, part = (200, range(total)) if wanted is None else (206, wanted)
    headers = [
        (b"content-type", MEDIA_TYPE),
        (b"content-length", str(len(part)).encode()),
        (b"accept-ranges", b"bytes"),
        # A block never changes; only the two ends may keep it.
        (b"cache-control", b"private, immutable, max-age=31536000"),
    ]
    if wanted is not None:
        headers.append((b"content-range", f"bytes {part.start}-{part.stop - 1}/{total}".encode()))
    # The first piece is read before the answer begins, so that a failing disk is still a 503.
    has_body = call.scope["method"] != "HEAD"
    piece = await stored.read(part.start, min(PIECE_BYTES, len(part))) if has_body else b""
    await call.send({"type": "http.response.start", "status": status, "headers": headers})
    offset = part.start + len(piece)
    while has_body and offset < part.stop:
        await call.send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await stored.read(offset, min(PIECE_BYTES, part.stop - offset))
        offset += len(piece)
    await call.send({"type": "http.response.body", "body": piece, "more_body": False})


def _parse_range(header: str | None, total: int) -> range | None:
    """The wanted part, None for all of it.

    Several ranges and other units count as all (RFC 9110, section 14.2).

    Raises:
        ApiError: nothing of the block is in the range.
    """
    match = None if header is None else _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.groups() == (None, None):
        return None
    first, last = match.groups()
    if first is None:
        start, stop = max(0, total - int(last)), total
    else:
        start = int(first)
        stop = total if last is None else min(total, int(last) + 1)
    if start >= stop:
        raise ApiError(416, ErrorCode.RANGE_NOT_SATISFIABLE, f"the block has {total} bytes")
    return range(start, stop)


async def _timed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while True:
        with anyio.move_on_after(CHUNK_DEADLINE_S) as deadline:
            chunk = await anext(chunks, None)
        if deadline.cancelled_caught:
            raise ApiError(
                408, ErrorCode.TIMEOUT, "the upload stands still: try it again", retryable=True
            )
        if chunk is None:
            return
        yield chunk


def _namespace(call: Call) -> NamespaceId:
    return call.identifier("namespace", NamespaceId)


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/namespaces/{namespace}/blocks/missing",
        "Ask which blocks the namespace lacks",
        _missing,
        Access.DEVICE,
        BlockList,
        BlockList,
        # 32 bytes each, 67 in JSON.
        max_body_bytes=MAX_BLOCK_LIST * 72 + 1024,
    ),
    Endpoint(
        "PUT",
        "/v1/namespaces/{namespace}/blocks/{block}",
        "Store a block",
        _put,
        Access.DEVICE,
        response=EmptyBody,
        is_raw_request=True,
    ),
    Endpoint(
        "GET",
        "/v1/namespaces/{namespace}/blocks/{block}",
        "Read a block or a range of it",
        _get,
        Access.DEVICE,
    ),
)
