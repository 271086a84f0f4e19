"""How a device comes into an account: a new account with it, or a login into one that exists.

Owns the order of steps. The device's keys are on the disk before the server hears of them, under
``enrolling/`` in the state directory, and move to their place when the server has accepted the device;
so a crash at any step leaves either no enrolled device or one whose keys are known, and a second
attempt goes on with the same keys. The account's root key exists in memory only. Refuses to trust the
server: the account's log is verified and must belong to the root key that the password opened. Called by
`node.cli`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from node.core.account_keys import DeviceKeyPair, RootKeys, open_epochs, open_generations_by_root
from node.core.founding import FoundingSecrets, enrol_device, found_account
from node.core.recovery_phrase import ENTROPY_BYTES, phrase_of
from node.errors import ServerError, SettingsError, StorageError
from node.net.access_tokens import DeviceCredentials, TokenCredentials
from node.net.http_transport import RefusedError
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.storage.keystore import FILE_NAME, Keystore
from node.storage.state_directory import StateDirectory, disable_core_dumps
from protocol.crypto.contexts import root_by_password_context, root_by_recovery_context
from protocol.crypto.keys import KEY_BYTES
from protocol.crypto.labels import SignedType
from protocol.crypto.password import (
    SALT_BYTES,
    Argon2Parameters,
    PasswordKeys,
    recovery_keys,
    stretch,
)
from protocol.crypto.sealing import BoxKey, open_secret, seal_secret
from protocol.crypto.signing import SigningKey
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.http_api import (
    ChallengeRequest,
    ErrorCode,
    LoginKind,
    LoginRequest,
    LoginResponse,
    RegisterRequest,
    login_statement,
    normal_email,
)
from protocol.ids import AccountId, NamespaceId
from protocol.logs import AccountLog, EventType, NamespaceLog, SignedEvent, events_from_wire

Stretch = Callable[[str, bytes, Argon2Parameters], PasswordKeys]

_APPEND_ATTEMPTS = 5
"""Another device that enrols at the same moment makes one attempt fail."""

_ENROLLING = "enrolling"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a person said about the device to be enrolled.

    Attributes:
        home: the state directory; made when it is missing.
        server: the server's URL, with its pin off loopback.
    """

    home: Path
    server: str
    email: str
    device_name: str

    def check(self) -> Enrolment:
        """The same with the email in its normal form.

        Raises:
            SettingsError: the URL or the email is none, or this device is enrolled already.
        """
        address = ServerAddress.parse(self.server)
        try:
            email = normal_email(self.email)
        except RemoteProtocolError as error:
            raise SettingsError(f"{self.email!r} will not do: {error}") from error
        if Keystore.exists(self.home):
            raise SettingsError(
                f"{self.home} belongs to an enrolled device already; "
                "mount its drive with `atoll run`, or choose another state directory with --home"
            )
        return replace(self, server=str(address), email=email)


async def create_account(
    enrolment: Enrolment,
    password: str,
    invitation: str | None = None,
    stretch_password: Stretch = stretch,
) -> str:
    """Registers an account with this device as its first; returns the recovery phrase.

    Raises:
        SettingsError: see `Enrolment.check`; or the password will not do.
        ServerError: unreachable, or it refused: the email is taken, an invitation is required.
        StorageError: the keys can not be written.
    """
    enrolment = enrolment.check()
    disable_core_dumps()
    with StateDirectory.open(enrolment.home):
        keystore = _device_keys(enrolment)
        device = _key_pair(keystore)
        secrets = FoundingSecrets(
            root=os.urandom(KEY_BYTES),
            generation=os.urandom(KEY_BYTES),
            epoch=os.urandom(KEY_BYTES),
            account_salt=os.urandom(16),
            namespace_salt=os.urandom(16),
        )
        founding = found_account(secrets, device, enrolment.device_name, _now_us())
        salt, parameters = os.urandom(SALT_BYTES), Argon2Parameters()
        keys = await _stretched(stretch_password, password, salt, parameters)
        entropy = os.urandom(ENTROPY_BYTES)
        recovery = recovery_keys(entropy)
        account = founding.account.id
        request = RegisterRequest(
            email=enrolment.email,
            invitation=invitation,
            login_public=SigningKey(keys.login_seed).public,
            recovery_login_public=SigningKey(recovery.login_seed).public,
            salt=salt,
            passes=parameters.passes,
            memory_kib=parameters.memory_kib,
            wrapped_root=seal_secret(
                keys.wrapping, secrets.root, root_by_password_context(account)
            ),
            wrapped_root_recovery=seal_secret(
                recovery.wrapping, secrets.root, root_by_recovery_context(account)
            ),
            account_events=tuple(event.to_wire() for event in founding.account_events),
            namespace_events=tuple(event.to_wire() for event in founding.namespace_events),
        )
        async with ServerClient(ServerAddress.parse(enrolment.server)) as client:
            await client.register(request)
        _finish(enrolment.home, keystore, account, founding.namespace.id)
    return phrase_of(entropy)


async def log_in(enrolment: Enrolment, password: str, stretch_password: Stretch = stretch) -> None:
    """Enrols this device in an account that exists, by its password.

    Raises:
        SettingsError: see `Enrolment.check`; or the password will not do.
        ServerError: unreachable; wrong email or password; or what the server says about the
            account does not fit the password's root key.
        StorageError: the keys can not be written.
    """
    enrolment = enrolment.check()
    disable_core_dumps()
    address = ServerAddress.parse(enrolment.server)
    with StateDirectory.open(enrolment.home):
        login, root = await _unwrapped_root(address, enrolment.email, password, stretch_password)
        keystore = _device_keys(enrolment)
        device = _key_pair(keystore)
        async with ServerClient(address, TokenCredentials(login.token)) as client:
            account = await _enrolled(client, login.account, root, device, enrolment.device_name)
            with suppress(ServerError):
                # The token ends by itself in ten minutes.
                await client.logout()
        async with ServerClient(address, DeviceCredentials(device.id, device.signing)) as client:
            namespace = await _private_namespace(client, account, root)
        _finish(enrolment.home, keystore, account.id, namespace)


async def _unwrapped_root(
    address: ServerAddress, email: str, password: str, stretch_password: Stretch
) -> tuple[LoginResponse, RootKeys]:
    async with ServerClient(address) as client:
        challenge = await client.challenge(ChallengeRequest(email=email))
        try:
            parameters = Argon2Parameters(challenge.passes, challenge.memory_kib)
        except RemoteProtocolError as error:
            raise ServerError("weak_parameters", str(error)) from error
        keys = await _stretched(stretch_password, password, challenge.salt, parameters)
        statement = login_statement(challenge.server_id, email, challenge.nonce)
        signature = SigningKey(keys.login_seed).sign(SignedType.LOGIN, statement)
        kind = LoginKind.PASSWORD.value
        login = await client.login(LoginRequest(email, challenge.nonce, kind, signature))
    try:
        context = root_by_password_context(login.account)
        root = open_secret(keys.wrapping, login.wrapped_root, context)
    except RemoteProtocolError as error:
        raise _untrusted("the account's root key does not open with the password") from error
    return login, RootKeys.from_secret(root)


async def _enrolled(
    client: ServerClient,
    account_id: AccountId,
    root: RootKeys,
    device: DeviceKeyPair,
    device_name: str,
) -> AccountLog:
    """The account's log, verified, with this device in it."""
    for _ in range(_APPEND_ATTEMPTS):
        log = await _verified_log(client, account_id)
        try:
            generations = open_generations_by_root(log, root)
            if device.id in log.devices:
                # An earlier attempt came so far; a device that was revoked since does not come back.
                log.active_device(device.id)
                return log
        except RemoteProtocolError as error:
            raise _untrusted(str(error)) from error
        event = enrol_device(log, root, device, device_name, generations, _now_us())
        try:
            await client.append_account_log(log.id, log.head, [event.to_wire()])
        except RefusedError as error:
            if error.code != ErrorCode.HEAD_MISMATCH:
                raise
        else:
            return log.append(event)
    raise ServerError(
        "contended", "other devices changed the account all the while; try again", is_transient=True
    )


async def _verified_log(client: ServerClient, account: AccountId) -> AccountLog:
    wire = await client.whole_account_log(account)
    try:
        log = AccountLog.from_events(events_from_wire(wire))
    except RemoteProtocolError as error:
        raise _untrusted(str(error)) from error
    if log.id != account:
        raise _untrusted(f"it gave the log of {log.id} instead of {account}")
    return log


async def _private_namespace(
    client: ServerClient, account: AccountLog, root: RootKeys
) -> NamespaceId:
    """The namespace that was founded with the account: the oldest that one of its devices made."""
    generations = open_generations_by_root(account, root)
    oldest: tuple[int, NamespaceId] | None = None
    for summary in (await client.namespaces()).namespaces:
        try:
            events = events_from_wire(await client.whole_namespace_log(summary.namespace))
            if not events or events[0].event.account != account.id:
                continue
            log = _verified_namespace(events, account)
            if log.id == summary.namespace and open_epochs(log, account.id, generations):
                candidate = events[0].event.time_us, log.id
                oldest = candidate if oldest is None else min(oldest, candidate)
        except RemoteProtocolError as error:
            raise _untrusted(str(error)) from error
    if oldest is None:
        raise _untrusted("it does not have the account's own namespace")
    return oldest[1]


def _verified_namespace(events: list[SignedEvent], account: AccountLog) -> NamespaceLog:
    def accounts(wanted: AccountId) -> AccountLog:
        if wanted != account.id:
            raise RemoteProtocolError(f"{wanted} is not this account")
        return account

    if events[0].event.type is not EventType.NAMESPACE_GENESIS:
        raise RemoteProtocolError("a namespace log starts with its genesis")
    return NamespaceLog.from_events(events, accounts)


async def _stretched(
    stretch_password: Stretch, password: str, salt: bytes, parameters: Argon2Parameters
) -> PasswordKeys:
    work = partial(stretch_password, password, salt, parameters)
    try:
        return await trio.to_thread.run_sync(work)
    except LocalProtocolError as error:
        raise SettingsError(str(error)) from error


def _device_keys(enrolment: Enrolment) -> Keystore:
    """Keys for this device, safe on the disk: those of an attempt that was cut short, or new ones.

    They serve again only for the same account at the same server, so that nobody can tell from
    its keys that two devices are one.
    """
    place = enrolment.home / _ENROLLING
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError.from_os_error(error, f"make {place}") from error
    if Keystore.exists(place):
        left = Keystore.load(place)
        if (left.server, left.email) == (enrolment.server, enrolment.email):
            return replace(left, device_name=enrolment.device_name)
    keystore = Keystore(
        signing_seed=SigningKey.generate().seed,
        box_private=BoxKey.generate().private,
        index_key=os.urandom(KEY_BYTES),
        staging_key=os.urandom(KEY_BYTES),
        server=enrolment.server,
        email=enrolment.email,
        device_name=enrolment.device_name,
    )
    keystore.save(place)
    return keystore


def _finish(home: Path, keystore: Keystore, account: AccountId, namespace: NamespaceId) -> None:
    replace(keystore, account=account, namespace=namespace).save(home)
    place = home / _ENROLLING
    try:
        (place / FILE_NAME).unlink(missing_ok=True)
        place.rmdir()
    except OSError:
        # The keys are in their place; a second copy, as private as the first, does no harm.
        return


def _key_pair(keystore: Keystore) -> DeviceKeyPair:
    return DeviceKeyPair(
        SigningKey.from_seed(keystore.signing_seed), BoxKey.from_private(keystore.box_private)
    )


def _untrusted(reason: str) -> ServerError:
    return ServerError(
        "untrusted_server", f"the server is not to be trusted with this account: {reason}"
    )


def _now_us() -> int:
    return time.time_ns() // 1000
