"""Blocks over HTTP."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocol.http_api import (
    AppendRequest,
    BlockList,
    ErrorBody,
    EventsResponse,
    HealthResponse,
    LogResponse,
)
from protocol.ids import BlockId
from protocol.logs import EventType, Role
from tests.server.client import Client, some_block
from tests.server.people import Person
from tests.server.running import running_process
from tests.server.slow_upload import SlowUpload


def path(namespace, block):
    return f"/v1/namespaces/{namespace}/blocks/{block}"


def missing(client, namespace, *blocks):
    return client.call(
        BlockList, "POST", path(namespace, "missing"), BlockList(tuple(blocks))
    ).blocks


def stored_files(server):
    return [each for each in (server.data / "blobs").rglob("*") if each.is_file()]


def test_a_stored_block_is_read_back_and_no_longer_missing(client, person):
    place, block, absent = person.namespace.id, some_block(1_500_000), some_block()
    assert missing(client, place, block.id, absent.id, block.id) == (block.id, absent.id)
    assert client.put_block(place, block).is_success
    assert client.put_block(place, block).is_success
    assert missing(client, place, block.id, absent.id) == (absent.id,)
    response = client.request("GET", path(place, block.id))
    assert response.content == block.frame
    assert response.headers["content-type"] == "application/octet-stream"
    head = client.request("HEAD", path(place, block.id))
    assert (head.content, head.headers["content-length"]) == (b"", str(len(block.frame)))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", slice(0, 100)),
        ("bytes=1000-", slice(1000, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=100-99999999", slice(100, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_a_range_of_a_block(client, person, header, expected):
    block = some_block(5000)
    client.put_block(person.namespace.id, block)
    response = client.request("GET", path(person.namespace.id, block.id), headers={"range": header})
    assert response.status_code == 206
    assert response.content == block.frame[expected]
    start, stop, _ = expected.indices(len(block.frame))
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(block.frame)}"


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "lines=1-2", "bytes=-", "nonsense"])
def test_a_range_that_is_not_understood_is_the_whole(client, person, header):
    block = some_block(500)
    client.put_block(person.namespace.id, block)
    response = client.request("GET", path(person.namespace.id, block.id), headers={"range": header})
    assert (response.status_code, response.content) == (200, block.frame)


def test_a_range_outside_is_refused(client, person):
    block = some_block(500)
    client.put_block(person.namespace.id, block)
    for header in ("bytes=99999-", "bytes=5-4", "bytes=-0"):
        status, error = client.refused(
            "GET", path(person.namespace.id, block.id), headers={"range": header}
        )
        assert (status, error.code) == (416, "range_not_satisfiable")


def test_wrong_bytes_are_refused_and_leave_nothing(client, person, server):
    place, block = person.namespace.id, some_block(700_000)
    before = len(stored_files(server))
    wrong = bytearray(block.frame)
    wrong[-1] ^= 1
    for content in (
        bytes(wrong),
        block.frame[:-1],
        block.frame + b"x",
        b"",
        os.urandom(100),
        some_block().frame,
    ):
        status, error = client.refused("PUT", path(place, block.id), content)
        assert (status, error.code) == (422, "block_mismatch"), error
    oversized = block.frame + bytes(8 * 1024 * 1024)
    assert client.refused("PUT", path(place, block.id), oversized)[1].code == "block_mismatch"
    later = block.frame[:4] + b"\x02" + block.frame[5:]
    assert client.refused("PUT", path(place, block.id), later)[0] == 422
    assert missing(client, place, block.id) == (block.id,)
    assert len(stored_files(server)) == before


def test_a_chunked_upload_needs_no_length(client, person):
    block = some_block(300_000)
    pieces = (block.frame[start : start + 50_000] for start in range(0, len(block.frame), 50_000))
    response = client.http.put(
        path(person.namespace.id, block.id),
        content=pieces,
        headers={"authorization": f"Bearer {client.token}"},
    )
    assert response.is_success
    assert client.request("GET", path(person.namespace.id, block.id)).content == block.frame


def test_a_page_comes_after_its_children(client, person):
    place = person.namespace.id
    children = [some_block(), some_block()]
    page = some_block(2000, tuple(child.id for child in children))
    client.put_block(place, children[0])
    status, error = client.refused("PUT", path(place, page.id), page.frame)
    assert (status, error.code, error.retryable) == (409, "blocks_missing", True)
    assert error.blocks == (children[1].id,)
    client.put_block(place, children[1])
    assert client.put_block(place, page).is_success


def test_nobody_learns_what_other_namespaces_have(client, person, stranger, server):
    block = some_block()
    client.put_block(person.namespace.id, block)
    assert stranger.refused("GET", path(person.namespace.id, block.id))[0] == 403
    body = BlockList((block.id,))
    assert stranger.refused("POST", path(person.namespace.id, "missing"), body)[0] == 403
    other = Person()
    with Client(server.url) as client_of_other:
        client_of_other.register(other)
        assert missing(client_of_other, other.namespace.id, block.id) == (block.id,)
        assert client_of_other.refused("GET", path(other.namespace.id, block.id))[0] == 404


def test_a_viewer_reads_blocks_and_uploads_none(client, person, server):
    guest, block = Person(), some_block()
    client.put_block(person.namespace.id, block)
    with Client(server.url) as other:
        other.register(guest)
        event = person.namespace_event(
            person.namespace, EventType.MEMBER, [bytes(guest.account.id), int(Role.VIEWER)]
        )
        client.call(
            LogResponse,
            "POST",
            f"/v1/namespaces/{person.namespace.id}/log",
            AppendRequest(event.event.previous, (event.to_wire(),)),
        )
        assert other.request("GET", path(person.namespace.id, block.id)).is_success
        fresh = some_block()
        assert other.put_block(person.namespace.id, fresh).status_code == 403


def test_ids_that_are_none_are_malformed(client, person):
    for block in ("abc", "A" * 64, "g" * 64):
        assert client.refused("GET", path(person.namespace.id, block))[0] == 400
    assert client.refused("GET", path("ns-x", BlockId(bytes(32))))[0] == 400
    too_many = BlockList(tuple(BlockId(os.urandom(32)) for _ in range(4097)))
    assert client.refused("POST", path(person.namespace.id, "missing"), too_many)[0] == 400


def test_a_device_that_is_revoked_during_its_upload_stores_nothing(client, person):
    place, block = person.namespace.id, some_block(600_000)
    upload = SlowUpload(client, path(place, block.id), len(block.frame))
    upload.send(block.frame[:300_000])
    # The server looks again at uploads of two seconds or more; a long poll passes the time.
    wait(client, 3)
    event = person.revocation(person.device.id)
    client.call(
        LogResponse,
        "POST",
        f"/v1/accounts/{person.account.id}/log",
        AppendRequest(event.event.previous, (event.to_wire(),)),
    )
    upload.send(block.frame[300_000:])
    status, body = upload.answer()
    assert (status, ErrorBody.from_wire(body).code) == (401, "device_revoked")


def test_an_upload_that_breaks_off_leaves_nothing(client, person, server):
    place, block = person.namespace.id, some_block(2_000_000)
    upload = SlowUpload(client, path(place, block.id), len(block.frame))
    upload.send(block.frame[:1_500_000])
    upload.socket.close()
    incoming = server.data / "blobs" / "incoming"
    while any(incoming.iterdir()):
        client.call(HealthResponse, "GET", "/healthz")
    assert missing(client, place, block.id) == (block.id,)


def test_many_blocks_at_once(client, person, server):
    place = person.namespace.id
    blocks = [some_block(200_000) for _ in range(40)]

    def transfer(block):
        with Client(server.url, client.token) as own:
            assert own.put_block(place, block).is_success
            return own.request("GET", path(place, block.id)).content == block.frame

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(transfer, blocks))
    assert missing(client, place, *(block.id for block in blocks)) == ()


@pytest.mark.root
def test_a_full_disk_refuses_and_corrupts_nothing(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "atoll-test", str(data)], check=True)
    try:
        with (
            running_process(data, reserve_bytes=4 * 1024 * 1024) as running,
            Client(running.url) as client,
        ):
            person = Person()
            client.register(person)
            place = person.namespace.id
            stored = []
            block = some_block(1_000_000)
            while (response := client.put_block(place, block)).is_success:
                stored.append(block)
                assert len(stored) < 40
                block = some_block(1_000_000)
            error = ErrorBody.from_wire(response.content)
            assert (response.status_code, error.code) == (507, "storage_full")
            assert error.retryable
            assert error.retry_after
            assert len(stored) > 5
            assert client.http.get("/readyz").status_code == 503
            # The reserve still takes records, and what is stored still reads.
            record = person.device.record(place, blocks=(stored[-1].id,))
            assert client.commit(place, record).results[0].position == 1
            for block in stored:
                assert client.request("GET", path(place, block.id)).content == block.frame
            assert missing(client, place, *(block.id for block in stored)) == ()
    finally:
        subprocess.run(["umount", str(data)], check=True)


def wait(client, seconds):
    """Let the server's clock go on: a long poll on an account where nothing happens."""
    cursor = client.call(EventsResponse, "GET", "/v1/events").cursor
    for _ in range(seconds):
        client.request("GET", f"/v1/events?cursor={cursor}&timeout_s=1")
