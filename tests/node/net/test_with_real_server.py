"""The client against the real server: blocks, logs, records, events, tokens and TLS."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from node.core.founding import found_namespace
from node.errors import ServerError
from node.net.access_tokens import DeviceCredentials, TokenCredentials
from node.net.http_transport import RefusedError
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.storage.keystore import Keystore
from protocol.crypto.blocks import seal_block
from protocol.crypto.signing import SigningKey
from protocol.http_api import MAX_WAIT_S, Cursor
from protocol.ids import BlockId
from protocol.logs import AccountLog, events_from_wire
from tests.node.enrolled import client_of, create, device_of
from tests.server.running import running_process, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_process(
        tmp_path_factory.mktemp("server"), open_registration=True, requests_per_second=1000
    ) as running:
        yield running


@pytest.fixture
async def home(server, tmp_path: Path) -> Path:
    place = tmp_path / "device"
    await create(place, server.url, f"{os.urandom(6).hex()}@example.org")
    return place


def namespace_of(home: Path):
    namespace = Keystore.load(home).namespace
    assert namespace is not None
    return namespace


def sealed(plain: bytes) -> tuple[BlockId, bytes]:
    block = seal_block(b"k" * 32, plain)
    return BlockId(block.id), bytes(block.frame)


async def another_namespace(home: Path, client: ServerClient):
    """Makes a namespace: a change that every device of the account hears of."""
    account = Keystore.load(home).account
    assert account is not None
    log = AccountLog.from_events(events_from_wire(await client.whole_account_log(account)))
    found, events = found_namespace(
        log, device_of(home), os.urandom(16), os.urandom(32), 1_800_000_000_000_000
    )
    await client.create_namespace([event.to_wire() for event in events])
    return found.id


async def test_blocks_go_there_and_come_back(home):
    namespace = namespace_of(home)
    blocks = dict(sealed(os.urandom(size)) for size in (0, 1, 70_000, 4 * 1024 * 1024))
    async with client_of(home) as client:
        assert await client.missing_blocks(namespace, list(blocks)) == set(blocks)
        async with trio.open_nursery() as nursery:
            for block, frame in blocks.items():
                nursery.start_soon(client.put_block, namespace, block, frame)
        assert await client.missing_blocks(namespace, list(blocks)) == frozenset()
        for block, frame in blocks.items():
            assert await client.get_block(namespace, block) == frame
            await client.put_block(namespace, block, frame)
        assert client.counters.sent_bytes > 4 * 1024 * 1024


async def test_a_block_that_is_not_there_and_a_wrong_one_are_refused(home):
    namespace = namespace_of(home)
    block, frame = sealed(b"something")
    async with client_of(home) as client:
        with pytest.raises(RefusedError) as failure:
            await client.get_block(namespace, block)
        assert failure.value.code == "not_found"
        with pytest.raises(RefusedError) as failure:
            await client.put_block(namespace, BlockId(bytes(32)), frame)
        assert failure.value.code == "block_mismatch"


async def test_a_block_damaged_on_the_servers_disk_is_noticed(home, server):
    namespace = namespace_of(home)
    block, frame = sealed(os.urandom(100_000))
    async with client_of(home) as client:
        await client.put_block(namespace, block, frame)
        (stored,) = server.data.rglob(f"*{str(block)[4:]}*")
        damaged = bytearray(stored.read_bytes())
        damaged[-1] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(damaged)
        with pytest.raises(ServerError) as failure:
            await client.get_block(namespace, block)
        assert failure.value.code == "block_mismatch"


async def test_a_delta_starts_at_the_beginning_and_refuses_another_journals_cursor(home):
    namespace = namespace_of(home)
    async with client_of(home) as client:
        answer = await client.delta(namespace, None)
        assert (answer.records, answer.more, answer.head) == ((), False, 0)
        cursor = Cursor.parse(answer.cursor)
        assert cursor.journal_epoch == (await client.namespaces()).journal_epoch
        assert await client.delta(namespace, cursor) == answer
        with pytest.raises(RefusedError) as failure:
            await client.delta(namespace, Cursor("of-another", 0))
        assert failure.value.code == "journal_epoch_changed"
        assert failure.value.body.journal_epoch == cursor.journal_epoch
        assert not failure.value.is_transient


async def test_garbage_among_records_is_refused_one_by_one(home):
    async with client_of(home) as client:
        response = await client.commit(namespace_of(home), [b"no record", b"\x90"])
    assert [result.position for result in response.results] == [None, None]
    assert all(result.error is not None for result in response.results)


async def test_a_log_with_another_head_is_not_appended_to(home):
    keystore = Keystore.load(home)
    assert keystore.account is not None
    async with client_of(home) as client:
        log = AccountLog.from_events(
            events_from_wire(await client.whole_account_log(keystore.account))
        )
        wrong = type(log.head)(bytes(32))
        with pytest.raises(RefusedError) as failure:
            await client.append_account_log(keystore.account, wrong, [b"x"])
    assert failure.value.code in ("head_mismatch", "malformed")


async def test_a_token_that_was_logged_out_is_replaced_and_the_call_succeeds(home):
    async with client_of(home) as client:
        await client.namespaces()
        await client.logout()
        assert (await client.namespaces()).namespaces


async def test_tokens_that_run_out_in_the_middle_of_transfers_are_renewed(tmp_path):
    with running_server(tmp_path, token_lifetime_s=1) as url:
        home = tmp_path / "device"
        await create(home, url)
        namespace = namespace_of(home)
        blocks = [sealed(os.urandom(500_000)) for _ in range(16)]
        async with client_of(home) as client, trio.open_nursery() as nursery:
            await client.namespaces()
            # What a second does to a token, without the second.
            tokens = client._tokens
            assert tokens is not None
            assert tokens._token is not None
            for block, frame in blocks:
                nursery.start_soon(client.put_block, namespace, block, frame)
                tokens._token = replace(tokens._token, text="0" * 43)
        async with client_of(home) as client:
            assert not await client.missing_blocks(namespace, [block for block, _ in blocks])


async def test_a_stranger_is_told_so_and_not_to_try_again(home):
    stranger = SigningKey.generate()
    credentials = DeviceCredentials(device_of(home).id, stranger)
    address = ServerAddress.parse(Keystore.load(home).server)
    async with ServerClient(address, credentials) as client:
        with pytest.raises(RefusedError) as failure:
            await client.namespaces()
    assert not failure.value.is_transient
    async with ServerClient(address, TokenCredentials("made up")) as client:
        with pytest.raises(RefusedError) as failure:
            await client.namespaces()
    assert failure.value.status == 401


async def test_a_long_poll_answers_at_once_and_then_at_a_change(home):
    async with client_of(home) as client:
        first = await client.events(None, MAX_WAIT_S)
        assert first.namespaces == {namespace_of(home): 0}
        answers = []

        async def poll():
            answers.append(await client.events(first.cursor, MAX_WAIT_S))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                made = await another_namespace(home, client)
        assert set(answers[0].namespaces) == {namespace_of(home), made}


async def test_a_long_poll_without_a_change_ends_in_time(home):
    async with client_of(home) as client:
        first = await client.events(None, 0)
        assert (await client.events(first.cursor, 0)).cursor == first.cursor


async def test_the_event_stream_tells_the_state_at_once_and_every_change(home):
    async with client_of(home) as client:
        with trio.fail_after(20):
            async with client.event_stream() as events:
                assert (await anext(events)).namespaces == {namespace_of(home): 0}
                made = await another_namespace(home, client)
                async for state in events:
                    if made in state.namespaces:
                        break


async def test_an_event_stream_with_a_stale_token_is_opened_with_a_fresh_one(home):
    async with client_of(home) as client:
        await client.namespaces()
        await client.logout()
        async with client.event_stream() as events:
            assert (await anext(events)).namespaces


async def test_an_event_stream_of_a_stranger_is_refused(home):
    address = ServerAddress.parse(Keystore.load(home).server)
    async with ServerClient(address, TokenCredentials("made up")) as client:
        with pytest.raises(RefusedError) as failure:
            async with client.event_stream():
                raise AssertionError("it opened")
    assert failure.value.status == 401


async def test_an_event_stream_ends_with_its_server(tmp_path):
    home = tmp_path / "device"
    with running_process(tmp_path / "server") as server:
        await create(home, server.url)
        async with client_of(home) as client:
            with trio.fail_after(30):
                async with client.event_stream() as events:
                    await anext(events)
                    assert await trio.to_thread.run_sync(server.stop) == 0
                    with pytest.raises(ServerError) as failure:
                        await anext(events)
            assert failure.value.is_transient
            with pytest.raises(ServerError) as failure:
                async with client.event_stream():
                    raise AssertionError("it opened")
            assert (failure.value.code, failure.value.is_transient) == ("unreachable", True)


async def test_off_loopback_everything_goes_over_tls_to_the_pinned_server(tmp_path):
    with running_server(tmp_path, listen="0.0.0.0:0") as url:
        assert url.startswith("https://")
        home = tmp_path / "device"
        await create(home, url)
        block, frame = sealed(os.urandom(1_000_000))
        async with client_of(home) as client:
            await client.put_block(namespace_of(home), block, frame)
            assert hashlib.sha256(await client.get_block(namespace_of(home), block)).digest() == (
                block
            )
            async with client.event_stream() as events:
                assert (await anext(events)).namespaces
            health = await client.health()
            assert health.clock_ahead_s is not None
            assert abs(health.clock_ahead_s) < 5

        base, _, pin = url.partition("#sha256=")
        wrong = ServerAddress.parse(f"{base}#sha256={pin[:-1]}{'0' if pin[-1] != '0' else '1'}")
        device = device_of(home)
        stranger = ServerClient(wrong, DeviceCredentials(device.id, device.signing))
        async with stranger:
            with pytest.raises(ServerError) as failure:
                await stranger.namespaces()
            assert failure.value.code == "wrong_pin"
            with pytest.raises(ServerError) as failure:
                async with stranger.event_stream():
                    raise AssertionError("it opened")
            assert failure.value.code == "wrong_pin"
