"""Registration, challenges, logins, tokens."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from protocol.body_codec import Encoding
from protocol.http_api import (
    AppendRequest,
    ChallengeRequest,
    ChallengeResponse,
    DevicesResponse,
    EmptyBody,
    LoginRequest,
    LoginResponse,
    LogResponse,
    NamespacesResponse,
    TokenResponse,
)
from tests.server.client import Client
from tests.server.people import Device, Person
from tests.server.running import running_process


def test_a_registered_device_gets_tokens_and_sees_its_account(client, person):
    devices = client.call(DevicesResponse, "GET", "/v1/devices").devices
    assert [each.device for each in devices] == [person.device.id]
    assert devices[0].last_seen_s is not None
    namespaces = client.call(NamespacesResponse, "GET", "/v1/namespaces").namespaces
    assert [(each.namespace, each.role, each.head) for each in namespaces] == [
        (person.namespace.id, "owner", 0)
    ]


def test_the_same_fields_travel_in_json(client, person):
    response = client.request("GET", "/v1/devices", encoding=Encoding.JSON)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["devices"][0]["device"] == str(person.device.id)
    body = {"email": person.email}
    challenge = client.http.post("/v1/auth/challenge", json=body)
    parsed = ChallengeResponse.from_wire(challenge.content, Encoding.JSON)
    login = client.request(
        "POST", "/v1/auth/login", person.login_request(parsed), encoding=Encoding.JSON
    )
    assert login.json()["account"] == str(person.account.id)


@pytest.mark.parametrize("kind", ["password", "recovery"])
def test_a_login_gives_the_wrapped_root_of_its_kind(client, person, kind):
    challenge = client.challenge(person.email)
    assert (challenge.salt, challenge.passes) == (b"s" * 16, 4)
    login = client.call(
        LoginResponse, "POST", "/v1/auth/login", person.login_request(challenge, kind)
    )
    assert login.account == person.account.id
    expected = {"password": b"wrapped by password", "recovery": b"wrapped by phrase"}
    assert login.wrapped_root == expected[kind]


def test_a_new_device_enrols_itself_with_the_token_of_a_login(server, client, person):
    with Client(server.url) as fresh:
        challenge = fresh.challenge(person.email.upper())
        request = person.login_request(challenge)
        fresh.token = fresh.call(LoginResponse, "POST", "/v1/auth/login", request).token
        path = f"/v1/accounts/{person.account.id}/log"
        log = fresh.call(LogResponse, "GET", path)
        assert log.head == person.account.head
        assert list(log.events) == [event.to_wire() for event in person.account_events]
        device = Device()
        enrolment = person.append(device.enrolment(person.account))
        state = fresh.call(
            LogResponse, "POST", path, AppendRequest(log.head, (enrolment.to_wire(),))
        )
        assert (state.head, state.length) == (person.account.head, 4)
        status, error = fresh.refused("GET", f"/v1/namespaces/{person.namespace.id}/records")
        assert (status, error.code) == (403, "forbidden")
        fresh.log_in(device)
        assert fresh.request("GET", f"/v1/namespaces/{person.namespace.id}/records").is_success
    assert len(client.call(DevicesResponse, "GET", "/v1/devices").devices) == 2


def test_wrong_keys_and_unknown_emails_are_refused_alike(client, person):
    wrong = replace(person.login_request(client.challenge(person.email)), signature=b"x" * 64)
    unknown = Person()
    wrong_kind = replace(person.login_request(client.challenge(person.email)), kind="recovery")
    refusals = [
        client.refused("POST", "/v1/auth/login", wrong),
        client.refused(
            "POST", "/v1/auth/login", unknown.login_request(client.challenge(unknown.email))
        ),
        client.refused("POST", "/v1/auth/login", wrong_kind),
    ]
    assert len(set(refusals)) == 1
    assert (refusals[0][0], refusals[0][1].code) == (401, "login_failed")
    no_kind = replace(wrong, kind="magic")
    assert client.refused("POST", "/v1/auth/login", no_kind)[0] == 400


def test_an_unknown_email_has_a_stable_salt_like_any_other(client):
    first, second = client.challenge("nobody@example.org"), client.challenge("nobody@example.org")
    other = client.challenge("somebody@example.org")
    assert (first.salt, first.passes, first.memory_kib) == (second.salt, 3, 262144)
    assert first.salt != other.salt
    assert first.nonce != second.nonce


def test_a_nonce_serves_once_and_for_whom_it_was_made(client, person):
    request = person.login_request(client.challenge(person.email))
    client.call(LoginResponse, "POST", "/v1/auth/login", request)
    assert client.refused("POST", "/v1/auth/login", request)[1].code == "login_failed"
    foreign = person.login_request(client.challenge("other@example.org"))
    assert client.refused("POST", "/v1/auth/login", foreign)[1].code == "login_failed"
    made_up = client.challenge(person.email)
    altered = person.login_request(replace(made_up, nonce=b"\xff" * 8 + made_up.nonce[8:]))
    assert client.refused("POST", "/v1/auth/login", altered)[1].code == "login_failed"
    refresh = person.device.refresh(client.challenge(device=person.device.id))
    client.call(TokenResponse, "POST", "/v1/auth/refresh", refresh)
    assert client.refused("POST", "/v1/auth/refresh", refresh)[1].code == "login_failed"


def test_only_an_enrolled_device_renews_tokens(client, person):
    stranger = Device()
    unknown = stranger.refresh(client.challenge(device=stranger.id))
    assert client.refused("POST", "/v1/auth/refresh", unknown)[1].code == "login_failed"
    forged = replace(
        stranger.refresh(client.challenge(device=person.device.id)), device=person.device.id
    )
    assert client.refused("POST", "/v1/auth/refresh", forged)[1].code == "login_failed"


def test_a_challenge_is_for_exactly_one(client, person):
    for request in (ChallengeRequest(), ChallengeRequest(person.email, person.device.id)):
        assert client.refused("POST", "/v1/auth/challenge", request)[0] == 400


def test_after_logout_the_token_serves_nobody(client):
    client.call(EmptyBody, "POST", "/v1/auth/logout")
    for method, path in (("GET", "/v1/devices"), ("POST", "/v1/auth/logout")):
        status, error = client.refused(method, path)
        assert (status, error.code) == (401, "unauthenticated")


def test_a_request_without_a_good_token_is_refused(client):
    for headers in ({}, {"authorization": "Basic abc"}, {"authorization": "Bearer " + "x" * 43}):
        client.token = None
        status, error = client.refused("GET", "/v1/devices", headers=headers)
        assert (status, error.code) == (401, "unauthenticated")


def test_a_revoked_device_is_told_so_everywhere(client, person):
    event = person.revocation(person.device.id)
    path = f"/v1/accounts/{person.account.id}/log"
    client.call(LogResponse, "POST", path, AppendRequest(event.event.previous, (event.to_wire(),)))
    assert client.refused("GET", "/v1/devices")[1].code == "device_revoked"
    refresh = person.device.refresh(client.challenge(device=person.device.id))
    status, error = client.refused("POST", "/v1/auth/refresh", refresh)
    assert (status, error.code) == (401, "device_revoked")


def test_an_email_registers_once_whatever_its_case(client, person):
    again = Person(person.email.upper())
    status, error = client.refused("POST", "/v1/auth/register", again.registration())
    assert (status, error.code) == (409, "email_taken")
    replayed = replace(person.registration(), email="other-address@example.org")
    status, error = client.refused("POST", "/v1/auth/register", replayed)
    assert (status, error.code) == (409, "already_exists")
    for email in ("no at sign", "a@b c", "@x", "a\0@b.c"):
        status, error = client.refused(
            "POST", "/v1/auth/register", replace(Person().registration(), email=email)
        )
        assert status in (400, 422)


def test_registration_checks_the_logs(client):
    person = Person()
    good = person.registration()
    no_device = replace(good, account_events=good.account_events[:2])
    no_generation = replace(good, account_events=good.account_events[:1])
    no_epoch = replace(good, namespace_events=good.namespace_events[:1])
    foreign = replace(good, namespace_events=Person().registration().namespace_events)
    reordered = replace(good, account_events=good.account_events[::-1])
    garbage = replace(good, account_events=(b"garbage",))
    for bad in (no_device, no_generation, no_epoch, foreign, reordered, garbage):
        status, error = client.refused("POST", "/v1/auth/register", bad)
        assert (status, error.code) == (422, "log_invalid"), error.message
    client.register(person)


def test_accounts_after_the_first_need_an_invitation(tmp_path):
    with running_process(tmp_path / "data") as running, Client(running.url) as client:
        client.register(Person())
        second = Person()
        status, error = client.refused("POST", "/v1/auth/register", second.registration())
        assert (status, error.code) == (403, "invitation_required")
        invitation = running.invite()
        client.register(second, f" {invitation.upper()}\n")
        status, error = client.refused(
            "POST", "/v1/auth/register", Person().registration(invitation)
        )
        assert (status, error.code) == (403, "invitation_required")


def test_an_expired_token_is_told_apart_and_can_be_renewed(tmp_path):
    with (
        running_process(tmp_path / "data", token_lifetime_s=1) as running,
        Client(running.url) as client,
    ):
        person = Person()
        client.register(person)
        codes = set()
        # The long poll waits for the server's clock in place of this test.
        while "token_expired" not in codes:
            response = client.request("GET", "/v1/events?timeout_s=1")
            if response.status_code == 401:
                codes.add(client.refused("GET", "/v1/devices")[1].code)
        client.log_in(person.device)
        assert client.request("GET", "/v1/devices").is_success


def test_one_address_asks_only_so_often_before_it_has_proved_anything(tmp_path):
    with (
        running_process(tmp_path / "data", request_burst=5, requests_per_second=0.1) as running,
        Client(running.url) as client,
    ):
        statuses = [
            client.request(
                "POST", "/v1/auth/challenge", ChallengeRequest(email="a@b.org")
            ).status_code
            for _ in range(6)
        ]
        assert statuses == [200] * 5 + [429]
        response = client.request("POST", "/v1/auth/challenge", ChallengeRequest(email="a@b.org"))
        assert 1 <= int(response.headers["retry-after"]) <= 10
        assert client.http.get("/healthz").is_success


def test_tokens_and_invitations_are_stored_as_hashes_only(tmp_path):
    with running_process(tmp_path / "data") as running, Client(running.url) as client:
        person = Person()
        client.register(person)
        invitation = running.invite()
        token = client.token
        assert token is not None
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("server.db*"))
    assert hashlib.sha256(token.encode()).digest() in stored
    assert token.encode() not in stored
    assert invitation.encode() not in stored


def test_a_login_signs_the_identity_of_the_server(client, person):
    challenge = client.challenge(person.email)
    request: LoginRequest = person.login_request(replace(challenge, server_id=b"o" * 32))
    assert client.refused("POST", "/v1/auth/login", request)[1].code == "login_failed"
