"""Long polls and WebSockets."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocol.http_api import AppendRequest, EmptyBody, EventsResponse, LogResponse
from server.services import notifier
from tests.server.client import Client
from tests.server.people import Device, Person
from tests.server.running import running_process
from tests.server.web_socket import EventSocket


def poll(client, cursor=None, timeout_s=20):
    query = f"?timeout_s={timeout_s}" + (f"&cursor={cursor}" if cursor else "")
    return client.call(EventsResponse, "GET", "/v1/events" + query)


def timed_poll(client, cursor):
    return poll(client, cursor), time.monotonic()


def append(client, person, event):
    client.call(
        LogResponse,
        "POST",
        f"/v1/accounts/{person.account.id}/log",
        AppendRequest(event.event.previous, (event.to_wire(),)),
    )


def test_without_a_cursor_the_state_comes_at_once(client, person):
    state = poll(client)
    assert state.namespaces == {person.namespace.id: 0}
    assert state.account_log_length == 3
    assert state.namespace_log_lengths == {person.namespace.id: 2}
    assert poll(client).cursor == state.cursor


def test_a_poll_ends_at_its_timeout_with_the_same_cursor(client):
    cursor = poll(client).cursor
    started = time.monotonic()
    assert poll(client, cursor, timeout_s=1).cursor == cursor
    assert 0.9 < time.monotonic() - started < 10


def test_a_commit_wakes_who_waits_within_milliseconds(client, person, server):
    place = person.namespace.id
    cursor = poll(client).cursor
    delays = []
    with ThreadPoolExecutor(1) as pool, Client(server.url, client.token) as writer:
        for number in range(1, 21):
            record = person.device.record(place)
            waiting = pool.submit(timed_poll, client, cursor)
            writer.commit(place, record)
            committed = time.monotonic()
            state, woken = waiting.result(20)
            delays.append(woken - committed)
            assert state.namespaces == {place: number}
            cursor = state.cursor
    # Half of them, so that a busy machine does not fail this.
    assert sorted(delays)[10] < 0.1


def test_a_change_between_two_polls_is_not_missed(client, person):
    cursor = poll(client).cursor
    client.commit(person.namespace.id, person.device.record(person.namespace.id))
    started = time.monotonic()
    assert poll(client, cursor).namespaces == {person.namespace.id: 1}
    assert time.monotonic() - started < 10


def test_others_do_not_wake(client, person, stranger):
    cursor = poll(stranger).cursor
    client.commit(person.namespace.id, person.device.record(person.namespace.id))
    assert poll(stranger, cursor, timeout_s=0).cursor == cursor


def test_a_web_socket_tells_of_every_change(client, person, server):
    stream = EventSocket(server.url, client.token)
    assert stream.state().namespaces == {person.namespace.id: 0}
    client.commit(person.namespace.id, person.device.record(person.namespace.id))
    state = stream.state()
    assert state.namespaces == {person.namespace.id: 1}
    assert state.cursor == poll(client).cursor
    append(client, person, person.append(Device().enrolment(person.account)))
    assert stream.state().account_log_length == 4
    stream.close()


def test_a_web_socket_without_a_good_token_is_refused(client, server):
    for token in (None, "wrong"):
        refusal = EventSocket(server.url, token).refusal
        assert refusal is not None
        assert (refusal[0], refusal[1].code) == (401, "unauthenticated")


def test_a_web_socket_ends_when_its_device_is_revoked(client, person, server):
    stream = EventSocket(server.url, client.token)
    stream.state()
    append(client, person, person.revocation(person.device.id))
    assert stream.close_code() == 4403


def test_a_web_socket_ends_after_logout(client, person, server):
    with Client(server.url) as second:
        second.log_in(person.device)
        stream = EventSocket(server.url, client.token)
        stream.state()
        client.call(EmptyBody, "POST", "/v1/auth/logout")
        second.commit(person.namespace.id, person.device.record(person.namespace.id))
        assert stream.close_code() == 4401


def test_waiters_of_one_account_are_bounded(client, server):
    streams = [
        EventSocket(server.url, client.token) for _ in range(notifier.MAX_WAITERS_PER_ACCOUNT)
    ]
    for stream in streams:
        stream.state()
    assert EventSocket(server.url, client.token).close_code() == 1013
    status, error = client.refused("GET", "/v1/events")
    assert (status, error.code, error.retryable) == (503, "overloaded", True)
    for stream in streams:
        stream.close()
    while client.request("GET", "/v1/events").status_code == 503:
        pass


@pytest.mark.parametrize("timeout", ["x", "-1", "1.5"])
def test_a_timeout_that_is_none_is_malformed(client, timeout):
    assert client.refused("GET", f"/v1/events?timeout_s={timeout}")[0] == 400


def test_sigterm_ends_waiters_and_the_server_soon(tmp_path):
    person = Person()
    with running_process(tmp_path / "data") as running, Client(running.url) as client:
        client.register(person)
        stream = EventSocket(running.url, client.token)
        stream.state()
        cursor = poll(client).cursor
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(poll, client, cursor, 50)
            while "atoll_waiters 2.0" not in client_metrics(running.url):
                pass
            started = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - started < 10
            assert waiting.result(5).cursor == cursor
        assert stream.close_code() == 1012


def client_metrics(url):
    with Client(url) as client:
        return client.http.get("/metrics").text
