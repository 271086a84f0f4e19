"""What the client makes of a server that misbehaves. A real socket, scripted answers."""

from __future__ import annotations

import datetime
import hashlib
import ssl

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from node.errors import ServerError
from node.net.access_tokens import DeviceCredentials, TokenCredentials
from node.net.http_transport import RefusedError
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from protocol import http_api
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.http_api import ErrorBody, ErrorCode
from protocol.ids import AccountId, BlockId, DeviceId, NamespaceId
from tests.node.net.scripted_server import answer, scripted

NAMESPACE = NamespaceId(b"n" * 32)
FRAME = b"frame" * 1000
BLOCK = BlockId(hashlib.sha256(FRAME).digest())
TOKEN = TokenCredentials("t0ken")
KEY = SigningKey(b"k" * 32)
DEVICE = DeviceCredentials(DeviceId(b"d" * 32), KEY)


def client_of(server, credentials=TOKEN, **named):
    return ServerClient(ServerAddress.parse(server.url), credentials, **named)


async def failing(respond, call, credentials=TOKEN):
    """What a call raises when the server answers so."""
    async with scripted(respond) as server, client_of(server, credentials) as client:
        with pytest.raises(ServerError) as failure:
            await call(client)
        return failure.value


def refusal(code, status, **more):
    body = ErrorBody(code, "a sentence", retryable=more.pop("retryable", False), **more)
    return answer(body, status)


async def test_a_block_is_returned_when_its_bytes_match_its_id():
    async with scripted(lambda _: answer(FRAME)) as server, client_of(server) as client:
        assert await client.get_block(NAMESPACE, BLOCK) == FRAME
        assert server.seen[0].target == f"/v1/namespaces/{NAMESPACE}/blocks/{BLOCK}"
        assert server.seen[0].headers["authorization"] == "Bearer t0ken"
        assert client.counters.received_bytes == len(FRAME)


@pytest.mark.parametrize("wrong", [b"", FRAME[:-1], FRAME + b"x", b"x" + FRAME[1:]])
async def test_a_block_of_other_bytes_is_never_returned(wrong):
    error = await failing(lambda _: answer(wrong), lambda c: c.get_block(NAMESPACE, BLOCK))
    assert error.code == ErrorCode.BLOCK_MISMATCH
    assert not error.is_transient


async def test_a_refusal_keeps_code_sentence_and_what_it_carries():
    error = await failing(
        lambda _: refusal("overloaded", 503, retryable=True, retry_after=7),
        lambda c: c.namespaces(),
    )
    assert isinstance(error, RefusedError)
    assert (error.code, error.message, error.status) == ("overloaded", "a sentence", 503)
    assert error.is_transient
    assert error.retry_after_s == 7
    error = await failing(
        lambda _: refusal("journal_epoch_changed", 409, journal_epoch="new"),
        lambda c: c.delta(NAMESPACE, None),
    )
    assert isinstance(error, RefusedError)
    assert error.body.journal_epoch == "new"
    assert not error.is_transient


@pytest.mark.parametrize(
    ("raw", "code", "is_transient"),
    [
        (b"", "unreachable", True),
        (answer(b"\x81\xa1", 200, "connection: close\r\n", length=9), "unreachable", True),
        (b"SMTP ready\r\n\r\n", "unreachable", True),
        (answer(b"<html>"), "malformed", False),
        (answer(b"\x90"), "malformed", False),
        (answer(b""), "malformed", False),
        (answer(b"<html>", 502), "http_502", True),
        (answer(b"<html>", 404), "http_404", False),
        (answer(b"", 302, "location: http://127.0.0.1:1/\r\n"), "http_302", False),
        (answer(b"x" * (9 * 1024 * 1024)), "malformed", False),
    ],
    ids=[
        "hangs up",
        "truncated",
        "not http",
        "html",
        "another type",
        "empty",
        "bad gateway",
        "foreign 404",
        "redirect",
        "oversized",
    ],
)
async def test_an_answer_that_is_none_is_a_clear_error(raw, code, is_transient):
    error = await failing(lambda _: raw, lambda c: c.namespaces())
    assert error.code == code
    assert error.is_transient is is_transient
    assert "127.0.0.1" in error.message


async def test_a_redirect_is_not_followed():
    async with scripted(lambda _: answer(FRAME)) as other:
        location = f"location: {other.url}/\r\n"
        error = await failing(
            lambda _: answer(b"", 307, location), lambda c: c.get_block(NAMESPACE, BLOCK)
        )
        assert "redirects" in error.message
        assert other.seen == []


async def test_a_server_that_is_not_there_is_a_transient_error_that_names_it():
    client = ServerClient(ServerAddress.parse("http://127.0.0.1:1"), TOKEN)
    async with client:
        with pytest.raises(ServerError, match=r"cannot reach http://127\.0\.0\.1:1") as failure:
            await client.namespaces()
    assert failure.value.is_transient


async def test_a_silent_server_is_given_up(mock_clock):
    errors = []

    async def ask(client):
        with pytest.raises(ServerError) as failure:
            await client.get_block(NAMESPACE, BLOCK)
        errors.append(failure.value)

    async with (
        scripted(lambda _: None) as server,
        client_of(server) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, client)
        await server.silent.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(31)
    assert [error.code for error in errors] == ["timeout"]
    assert errors[0].is_transient


async def test_a_long_poll_may_be_silent_for_as_long_as_it_was_asked_to(mock_clock):
    async with (
        scripted(lambda _: None) as server,
        client_of(server) as client,
        trio.open_nursery() as nursery,
    ):

        async def poll():
            with pytest.raises(ServerError, match="too slow"):
                await client.events(None, 55)

        nursery.start_soon(poll)
        await server.silent.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        mock_clock.jump(10)
    assert server.seen[0].target == "/v1/events?timeout_s=55"


class Sessions:
    """The part of a server that gives tokens to a device, counted."""

    def __init__(self):
        self.valid = {}
        self.refreshes = 0
        self.life_s = 600

    def respond(self, request):
        if request.target == "/v1/auth/challenge":
            nonce = bytes([self.refreshes]) * 32
            return answer(http_api.ChallengeResponse(nonce, b"s" * 32, b"x" * 16, 3, 262144, 60))
        if request.target == "/v1/auth/refresh":
            asked = http_api.RefreshRequest.from_wire(request.body)
            statement = http_api.refresh_statement(b"s" * 32, DEVICE.device, asked.nonce)
            verify(KEY.public, SignedType.REFRESH, statement, asked.signature)
            self.refreshes += 1
            token = f"token-{self.refreshes}"
            self.valid[token] = True
            return answer(http_api.TokenResponse(token, self.life_s))
        token = request.headers["authorization"].removeprefix("Bearer ")
        if not self.valid.get(token):
            return refusal("token_expired", 401)
        return answer(http_api.NamespacesResponse("epoch", ()))


async def test_many_calls_at_once_share_one_renewal():
    sessions = Sessions()
    async with scripted(sessions.respond) as server, client_of(server, DEVICE) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.namespaces)
        assert sessions.refreshes == 1


async def test_a_token_that_was_refused_is_renewed_once_and_the_call_repeated():
    sessions = Sessions()
    async with scripted(sessions.respond) as server, client_of(server, DEVICE) as client:
        await client.namespaces()
        sessions.valid.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.namespaces)
        assert sessions.refreshes == 2


async def test_a_token_is_renewed_before_it_runs_out(mock_clock):
    sessions = Sessions()
    async with scripted(sessions.respond) as server, client_of(server, DEVICE) as client:
        await client.namespaces()
        # The connection is idle for so long that it is replaced.
        mock_clock.jump(569)
        await client.namespaces()
        assert sessions.refreshes == 1
        mock_clock.jump(2)
        await client.namespaces()
        assert sessions.refreshes == 2
        assert all(request.target for request in server.seen)


async def test_a_device_that_stays_refused_asks_twice_and_no_more():
    sessions = Sessions()
    sessions.valid = {"token-1": False}

    def respond(request):
        if request.target.startswith("/v1/auth"):
            return sessions.respond(request)
        return refusal("unauthenticated", 401)

    async with scripted(respond) as server, client_of(server, DEVICE) as client:
        with pytest.raises(RefusedError) as failure:
            await client.namespaces()
        assert failure.value.code == "unauthenticated"
        assert [r.target for r in server.seen].count("/v1/namespaces") == 2


async def test_a_revoked_device_does_not_try_to_renew():
    def respond(request):
        if request.target.startswith("/v1/auth"):
            return sessions.respond(request)
        return refusal("device_revoked", 401)

    sessions = Sessions()
    async with scripted(respond) as server, client_of(server, DEVICE) as client:
        with pytest.raises(RefusedError) as failure:
            await client.namespaces()
    assert failure.value.code == "device_revoked"
    assert sessions.refreshes == 1


async def test_callers_that_wait_for_a_renewal_share_its_failure():
    async with scripted(lambda _: b"") as server, client_of(server, DEVICE) as client:
        failures = []

        async def ask():
            try:
                await client.namespaces()
            except ServerError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert len(failures) == 10
        assert len(server.seen) == 1


async def test_a_log_is_read_to_its_end_in_stretches():
    events = [bytes([n]) * 10 for n in range(5)]

    def respond(request):
        start = int(request.target.partition("from=")[2])
        return answer(http_api.LogResponse(tuple(events[start : start + 2]), b"h" * 32, 5))

    async with scripted(respond) as server, client_of(server) as client:
        assert await client.whole_account_log(AccountId(b"a" * 32)) == events


async def test_a_log_that_does_not_end_is_an_error():
    error = await failing(
        lambda _: answer(http_api.LogResponse((), b"h" * 32, 5)),
        lambda c: c.whole_namespace_log(NAMESPACE),
    )
    assert error.code == "malformed"


async def test_missing_blocks_are_asked_for_in_portions_and_strangers_are_dropped():
    ids = [BlockId(n.to_bytes(32, "big")) for n in range(http_api.MAX_BLOCK_LIST + 5)]

    def respond(request):
        asked = http_api.BlockList.from_wire(request.body).blocks
        return answer(http_api.BlockList((asked[0], BLOCK)))

    async with scripted(respond) as server, client_of(server) as client:
        missing = await client.missing_blocks(NAMESPACE, ids)
        assert missing == {ids[0], ids[http_api.MAX_BLOCK_LIST]}
        assert len(server.seen) == 2


async def test_results_of_another_count_than_records_are_refused():
    error = await failing(
        lambda _: answer(http_api.CommitResponse("epoch", ())),
        lambda c: c.commit(NAMESPACE, [b"record"]),
    )
    assert error.code == "malformed"


async def test_no_more_connections_are_opened_than_allowed():
    async with scripted(lambda _: answer(FRAME)) as server:
        async with client_of(server, connections=3) as client, trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(client.get_block, NAMESPACE, BLOCK)
        assert len(server.seen) == 30
        assert server.connections <= 3


async def test_the_pinned_server_is_reached_over_tls(tmp_path):
    responding = scripted(lambda _: answer(FRAME), tls_in=tmp_path)
    async with responding as server, client_of(server) as client:
        assert await client.get_block(NAMESPACE, BLOCK) == FRAME


async def test_another_key_than_the_pinned_one_gets_no_request(tmp_path):
    async with scripted(lambda _: answer(FRAME), tls_in=tmp_path) as server:
        server.pin = b"p" * 32
        async with client_of(server) as client:
            with pytest.raises(ServerError, match="another key") as failure:
                await client.get_block(NAMESPACE, BLOCK)
        assert failure.value.code == "wrong_pin"
        assert not failure.value.is_transient
        assert server.seen == []


async def test_a_server_that_takes_the_place_of_the_pinned_one_later_gets_no_request(tmp_path):
    async with scripted(lambda _: answer(FRAME), tls_in=tmp_path) as server:
        async with client_of(server) as client:
            await client.get_block(NAMESPACE, BLOCK)
            server.use_certificate(tmp_path)
            server.respond = lambda _: b""
            with pytest.raises(ServerError):
                await client.get_block(NAMESPACE, BLOCK)
            requests = len(server.seen)
            with pytest.raises(ServerError) as failure:
                await client.get_block(NAMESPACE, BLOCK)
        assert failure.value.code == "wrong_pin"
        assert len(server.seen) == requests


def renewed(directory):
    """A certificate for the same key that has expired: the pin is trusted, not a clock."""
    key = serialization.load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    former = x509.load_pem_x509_certificate((directory / "certificate.pem").read_bytes())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(former.subject)
        .issuer_name(former.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2002, 1, 1, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    (directory / "renewed.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "renewed.pem", directory / "key.pem")
    return context


async def test_a_renewed_certificate_of_the_same_key_is_accepted(tmp_path):
    responding = scripted(lambda _: answer(FRAME), tls_in=tmp_path)
    async with responding as server, client_of(server) as client:
        await client.get_block(NAMESPACE, BLOCK)
        server.respond = lambda _: b""
        with pytest.raises(ServerError, match="cannot reach"):
            await client.get_block(NAMESPACE, BLOCK)
        server.tls = renewed(tmp_path)
        server.respond = lambda _: answer(FRAME)
        assert await client.get_block(NAMESPACE, BLOCK) == FRAME


async def test_plain_http_behind_an_https_url_is_an_error_and_gets_no_request(tmp_path):
    async with scripted(lambda _: answer(FRAME)) as server:
        server.pin = b"p" * 32
        async with client_of(server) as client:
            with pytest.raises(ServerError):
                await client.get_block(NAMESPACE, BLOCK)
        assert server.seen == []


async def test_health_tells_how_far_the_clocks_are_apart():
    date = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    responding = scripted(lambda _: answer(b"ok", headers=date))
    async with responding as server, client_of(server, None) as client:
        health = await client.health()
    assert health.clock_ahead_s is not None
    assert health.clock_ahead_s < -1_000_000_000
