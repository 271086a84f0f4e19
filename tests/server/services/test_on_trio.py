"""The services run on trio, over stores in memory and in virtual time, as a simulation needs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest
import trio

from protocol.http_api import (
    AppendRequest,
    BlockList,
    ChallengeRequest,
    CommitRequest,
    RefreshRequest,
)
from server.errors import ApiError
from server.services.all_services import Services
from server.services.ports import Surroundings
from server.services.sessions import NONCE_LIFETIME_S
from tests.server.client import some_block
from tests.server.fakes.memory_blobs import MemoryBlockStore
from tests.server.fakes.memory_store import MemoryStore
from tests.server.people import Device, Person

Result = TypeVar("Result")


class InlineWorker:
    async def run(self, work: Callable[[], Result]) -> Result:
        return work()


async def make_services(**changes) -> Services:
    counter = itertools.count()
    surroundings = Surroundings(
        now_s=lambda: 1_800_000_000 + int(trio.current_time()),
        token_bytes=lambda size: next(counter).to_bytes(size),
        worker=InlineWorker(),
    )
    settings = {"server_id": b"i" * 32, "token_lifetime_s": 600, "needs_invitation": False}
    return await Services.over(
        MemoryStore(), MemoryBlockStore(), surroundings, **{**settings, **changes}
    )


async def refresh_request(services: Services, device: Device) -> RefreshRequest:
    challenge = await services.sessions.challenge(ChallengeRequest(device=device.id))
    return device.refresh(challenge)


async def log_in(services: Services, device: Device):
    request = await refresh_request(services, device)
    token = (await services.sessions.refresh(request)).access_token
    return await services.sessions.authenticate(token)


async def chunks(frame: bytes):
    yield frame[:1000]
    await trio.sleep(0)
    yield frame[1000:]


async def test_a_commit_wakes_a_stream_and_a_poll(autojump_clock):
    services = await make_services()
    person = Person()
    await services.accounts.register(person.registration())
    session = await log_in(services, person.device)
    place = person.namespace.id
    seen = []

    def note(at, position):
        seen.append((at, position))

    async def watch():
        async for state in services.events.stream(session):
            note(trio.current_time(), state.namespaces[place])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(70)
        block = some_block(5000)
        assert (await services.blocks.missing(session, place, BlockList((block.id,)))).blocks
        await services.blocks.put(session, place, block.id, chunks(block.frame))
        record = person.device.record(place, blocks=(block.id,))
        answer = await services.journal.commit(session, place, CommitRequest((record.to_wire(),)))
        assert answer.results[0].position == 1
        await trio.sleep(1)
        services.notifier.close()
    times = [round(at) for at, _ in seen]
    assert times == [0, 30, 60, 70]
    assert [position for _, position in seen] == [0, 0, 0, 1]


async def test_a_poll_takes_its_time_and_no_longer(autojump_clock):
    services = await make_services()
    person = Person()
    await services.accounts.register(person.registration())
    session = await log_in(services, person.device)
    cursor = (await services.events.poll(session, None, 50)).cursor
    assert trio.current_time() == 0
    assert (await services.events.poll(session, cursor, 50)).cursor == cursor
    assert trio.current_time() == 50
    assert services.notifier.count == 0


async def test_tokens_and_nonces_end_on_time(autojump_clock):
    services = await make_services(token_lifetime_s=100)
    person = Person()
    await services.accounts.register(person.registration())
    late = await refresh_request(services, person.device)
    session = await log_in(services, person.device)
    await trio.sleep(99)
    await services.sessions.check(session)
    await trio.sleep(1)
    with pytest.raises(ApiError) as refusal:
        await services.sessions.check(session)
    assert refusal.value.body.code == "token_expired"
    await trio.sleep(NONCE_LIFETIME_S - 100)
    with pytest.raises(ApiError) as refusal:
        await services.sessions.refresh(late)
    assert refusal.value.body.code == "login_failed"


async def test_an_upload_of_a_device_that_is_revoked_meanwhile_counts_for_nothing(autojump_clock):
    services = await make_services()
    person, block = Person(), some_block(5000)
    await services.accounts.register(person.registration())
    session = await log_in(services, person.device)

    async def slow_chunks():
        yield block.frame[:2000]
        await trio.sleep(5)
        event = person.revocation(person.device.id)
        request = AppendRequest(event.event.previous, (event.to_wire(),))
        await services.accounts.append_log(session, person.account.id, request)
        yield block.frame[2000:]

    with pytest.raises(ApiError) as refusal:
        await services.blocks.put(session, person.namespace.id, block.id, slow_chunks())
    assert refusal.value.body.code == "device_revoked"
    assert not await services.store.has_block(person.namespace.id, block.id)


async def test_of_two_appends_to_one_head_one_enters():
    services = await make_services()
    person = Person()
    await services.accounts.register(person.registration())
    session = await log_in(services, person.device)
    head = person.account.head
    events = [Device().enrolment(person.account).sign(person.root) for _ in range(2)]
    outcomes: list[int | str] = []

    async def append(event):
        request = AppendRequest(head, (event.to_wire(),))
        try:
            answer = await services.accounts.append_log(session, person.account.id, request)
            outcomes.append(answer.length)
        except ApiError as error:
            outcomes.append(error.body.code)

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(append, event)
    assert sorted(map(str, outcomes)) == ["4", "head_mismatch"]


async def test_a_nonce_is_bound_to_its_email_and_server():
    services = await make_services()
    other = await make_services()
    person = Person()
    await services.accounts.register(person.registration())
    await other.accounts.register(person.registration())
    challenge = await other.sessions.challenge(ChallengeRequest(email=person.email))
    with pytest.raises(ApiError):
        await services.sessions.login(person.login_request(challenge))
    own = await services.sessions.challenge(ChallengeRequest(email=person.email))
    with pytest.raises(ApiError):
        await services.sessions.login(person.login_request(replace(own, server_id=b"x" * 32)))
    assert (await services.sessions.login(person.login_request(own))).account == person.account.id
