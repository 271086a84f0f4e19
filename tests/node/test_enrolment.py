"""Accounts and devices, made and enrolled at a real server."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from node.core.account_keys import (
    RootKeys,
    open_device_names,
    open_epochs,
    open_generations,
)
from node.core.recovery_phrase import entropy_of
from node.enrolment import Enrolment, create_account, log_in
from node.errors import ServerError, SettingsError, StorageError
from node.net.access_tokens import TokenCredentials
from node.net.http_transport import RefusedError
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.storage.keystore import Keystore
from node.storage.state_directory import StateDirectory
from protocol.crypto.contexts import root_by_recovery_context
from protocol.crypto.labels import SignedType
from protocol.crypto.password import Argon2Parameters, recovery_keys
from protocol.crypto.sealing import open_secret
from protocol.crypto.signing import SigningKey
from protocol.http_api import ChallengeRequest, LoginRequest, login_statement
from protocol.logs import AccountLog, NamespaceLog, events_from_wire
from tests.node.enrolled import (
    EMAIL,
    PASSWORD,
    cheap_stretch,
    client_of,
    create,
    device_of,
    login,
)
from tests.server.running import running_server


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with running_server(
        tmp_path_factory.mktemp("server"), open_registration=True, requests_per_second=1000
    ) as running:
        yield running


@pytest.fixture
def email():
    return f"{os.urandom(6).hex()}@example.org"


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "first", tmp_path / "second"


async def opened(home: Path):
    """What a device opens at the server, from its own keys and nothing else."""
    keystore, device = Keystore.load(home), device_of(home)
    assert keystore.account is not None
    async with client_of(home) as client:
        wire = await client.whole_account_log(keystore.account)
        account = AccountLog.from_events(events_from_wire(wire))
        assert keystore.namespace is not None
        wire = await client.whole_namespace_log(keystore.namespace)
        namespace = NamespaceLog.from_events(events_from_wire(wire), lambda _: account)
    generations = open_generations(account, device.id, device.box)
    return account, generations, open_epochs(namespace, account.id, generations)


async def test_two_devices_of_one_account_open_the_same_keys(url, email, homes):
    first, second = homes
    await create(first, url, email)
    await login(second, url, email.upper())
    one, _, epochs_of_one = await opened(first)
    other, generations, epochs_of_other = await opened(second)
    assert one.id == other.id
    assert epochs_of_one == epochs_of_other
    assert list(epochs_of_one) == [1]
    assert Keystore.load(first).namespace == Keystore.load(second).namespace
    names = open_device_names(other, generations)
    assert set(names.values()) == {"first", "second"}
    assert len({device_of(home).id for home in homes}) == 2


async def test_the_recovery_phrase_opens_the_root_key(url, email, homes):
    phrase = await create(homes[0], url, email)
    keys = recovery_keys(entropy_of(phrase))
    async with ServerClient(ServerAddress.parse(url)) as client:
        challenge = await client.challenge(ChallengeRequest(email=email))
        statement = login_statement(challenge.server_id, email, challenge.nonce)
        signature = SigningKey(keys.login_seed).sign(SignedType.RECOVERY_LOGIN, statement)
        answer = await client.login(LoginRequest(email, challenge.nonce, "recovery", signature))
    context = root_by_recovery_context(answer.account)
    root = RootKeys.from_secret(open_secret(keys.wrapping, answer.wrapped_root, context))
    async with ServerClient(ServerAddress.parse(url), TokenCredentials(answer.token)) as client:
        wire = await client.whole_account_log(answer.account)
    log = AccountLog.from_events(events_from_wire(wire))
    assert log.root_public == root.signing.public


async def test_keys_are_private_and_nothing_secret_of_the_account_is_stored(url, email, homes):
    home = homes[0]
    phrase = await create(home, url, email)
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not (home / "enrolling").exists()
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in stored
    assert entropy_of(phrase) not in stored
    assert phrase.split()[0].encode() not in stored


async def test_a_wrong_password_and_an_unknown_email_are_told_alike(url, email, homes):
    await create(homes[0], url, email)
    sentences = []
    for who, password in ((email, "wrong"), ("nobody-" + email, PASSWORD)):
        with pytest.raises(RefusedError) as failure:
            await login(homes[1], url, who, password)
        assert failure.value.code == "login_failed"
        sentences.append(failure.value.message)
        assert not Keystore.exists(homes[1])
    assert sentences[0] == sentences[1]


async def test_an_email_is_taken_once(url, email, homes):
    await create(homes[0], url, email)
    with pytest.raises(RefusedError) as failure:
        await create(homes[1], url, email.upper())
    assert failure.value.code == "email_taken"
    assert not Keystore.exists(homes[1])


async def test_an_enrolled_device_is_not_enrolled_again(url, email, homes):
    await create(homes[0], url, email)
    before = (homes[0] / "keys").read_bytes()
    for attempt in (create, login):
        with pytest.raises(SettingsError, match="--home"):
            await attempt(homes[0], url, "other-" + email)
    assert (homes[0] / "keys").read_bytes() == before


async def test_a_state_directory_in_use_is_left_alone(url, email, homes):
    with StateDirectory.open(homes[0]), pytest.raises(SettingsError, match="another node"):
        await create(homes[0], url, email)


async def test_bad_emails_and_urls_are_refused_before_anything_is_made(url, homes):
    for bad_email in ("", "nobody", "a b@example.org", "x@" + "y" * 300):
        with pytest.raises(SettingsError, match="email"):
            await create(homes[0], url, bad_email)
    with pytest.raises(SettingsError, match="plain http"):
        await create(homes[0], "http://example.org", EMAIL)
    assert not homes[0].exists()


async def test_a_server_that_is_away_leaves_no_enrolled_device(email, homes):
    with pytest.raises(ServerError) as failure:
        await create(homes[0], "http://127.0.0.1:1", email)
    assert failure.value.is_transient
    assert not Keystore.exists(homes[0])
    assert Keystore.exists(homes[0] / "enrolling")


async def test_an_empty_password_is_a_sentence(url, email, homes):
    with pytest.raises(SettingsError, match="empty"):
        await create_account(Enrolment(homes[0], url, email, "first"), "")


async def test_a_crash_after_the_server_accepted_a_login_is_made_good_by_the_next(
    url, email, homes, monkeypatch
):
    first, second = homes
    await create(first, url, email)

    def crash(keystore, home):
        raise StorageError(28, "power went")

    real = Keystore.save
    monkeypatch.setattr(
        Keystore, "save", lambda k, home: (crash if home == second else real)(k, home)
    )
    with pytest.raises(StorageError):
        await login(second, url, email)
    assert not Keystore.exists(second)
    monkeypatch.undo()
    await login(second, url, email)
    account, _, epochs = await opened(second)
    assert list(epochs) == [1]
    assert len(account.devices) == 2, "the second attempt went on with the keys of the first"


async def test_after_a_crash_in_a_registration_a_login_goes_on_with_its_keys(
    url, email, homes, monkeypatch
):
    home = homes[0]
    real = Keystore.save

    def crash(keystore, place):
        if place == home:
            raise StorageError(28, "power went")
        real(keystore, place)

    monkeypatch.setattr(Keystore, "save", crash)
    with pytest.raises(StorageError):
        await create(home, url, email)
    monkeypatch.undo()
    with pytest.raises(RefusedError) as failure:
        await create(home, url, email)
    assert failure.value.code == "email_taken"
    await login(home, url, email)
    account, _, _ = await opened(home)
    assert len(account.devices) == 1


async def test_keys_of_an_attempt_with_another_account_are_not_used_again(url, email, homes):
    home = homes[0]
    with pytest.raises(ServerError):
        await create(home, "http://127.0.0.1:1", email)
    left = Keystore.load(home / "enrolling")
    await create(home, url, email)
    assert Keystore.load(home).signing_seed != left.signing_seed


async def test_two_devices_that_log_in_at_once_are_both_enrolled(url, email, homes, tmp_path):
    import trio

    await create(homes[0], url, email)
    others = [tmp_path / f"device-{n}" for n in range(4)]
    async with trio.open_nursery() as nursery:
        for home in others:
            nursery.start_soon(login, home, url, email)
    account, _, _ = await opened(homes[0])
    assert {device_of(home).id for home in (homes[0], *others)} == set(account.devices)


async def test_weak_parameters_from_a_server_are_refused_before_the_password_is_used(
    url, email, homes, monkeypatch
):
    await create(homes[0], url, email)
    real = ServerClient.challenge

    async def weakened(self, request):
        return replace(await real(self, request), memory_kib=1024)

    monkeypatch.setattr(ServerClient, "challenge", weakened)
    stretched = []

    def note(password, salt, parameters):
        stretched.append(parameters)
        return cheap_stretch(password, salt, parameters)

    with pytest.raises(ServerError, match="do not log in to this server"):
        await log_in(Enrolment(homes[1], url, email, "second"), PASSWORD, note)
    assert stretched == []


async def test_another_accounts_log_is_not_taken_for_ones_own(url, email, homes, monkeypatch):
    """A server that answers with a log that verifies, and belongs to somebody else."""
    await create(homes[0], url, email)
    mallory = homes[0].parent / "mallory"
    await create(mallory, url, "mallory-" + email)
    stolen = Keystore.load(mallory).account
    assert stolen is not None
    async with client_of(mallory) as client:
        foreign_log = await client.whole_account_log(stolen)

    async def other_log(self, account):
        return foreign_log

    monkeypatch.setattr(ServerClient, "whole_account_log", other_log)
    with pytest.raises(ServerError, match="not to be trusted"):
        await login(homes[1], url, email)
    assert not Keystore.exists(homes[1])


async def test_a_wrapped_key_of_another_account_does_not_open(url, email, homes, monkeypatch):
    await create(homes[0], url, email)
    mallory = homes[0].parent / "mallory"
    await create(mallory, url, "mallory-" + email)
    stolen = Keystore.load(mallory).account
    assert stolen is not None
    real = ServerClient.login

    async def swapped(self, request):
        return replace(await real(self, request), account=stolen)

    monkeypatch.setattr(ServerClient, "login", swapped)
    with pytest.raises(ServerError, match="root key does not open"):
        await login(homes[1], url, email)


async def test_a_server_that_withholds_the_namespace_is_not_believed(
    url, email, homes, monkeypatch
):
    await create(homes[0], url, email)
    real = ServerClient.namespaces

    async def none(self):
        return replace(await real(self), namespaces=())

    monkeypatch.setattr(ServerClient, "namespaces", none)
    with pytest.raises(ServerError, match="namespace"):
        await login(homes[1], url, email)


async def test_the_second_account_needs_an_invitation(tmp_path, homes):
    from tests.server.running import running_process

    with running_process(tmp_path / "closed") as server:
        await create(homes[0], server.url)
        with pytest.raises(RefusedError) as failure:
            await create(homes[1], server.url, "bob@example.org")
        assert failure.value.code == "invitation_required"
        await create(homes[1], server.url, "bob@example.org", server.invite())


def test_the_real_cost_is_the_default():
    assert Argon2Parameters() == Argon2Parameters(3, 256 * 1024)
