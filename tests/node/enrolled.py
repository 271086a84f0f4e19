"""Accounts and devices for tests of the node, made by the real enrolment with a cheap Argon2."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from node.core.account_keys import DeviceKeyPair
from node.enrolment import Enrolment, create_account, log_in
from node.net.access_tokens import DeviceCredentials
from node.net.server_address import ServerAddress
from node.net.server_client import ServerClient
from node.storage.keystore import Keystore
from protocol.crypto.password import Argon2Parameters, PasswordKeys, keys_of_stretched
from protocol.crypto.sealing import BoxKey
from protocol.crypto.signing import SigningKey

EMAIL = "ada@example.org"
PASSWORD = "correct horse"


def cheap_stretch(password: str, salt: bytes, parameters: Argon2Parameters) -> PasswordKeys:
    """In place of Argon2id, which takes half a second and 256 MiB."""
    return keys_of_stretched(hashlib.blake2b(password.encode() + salt, digest_size=32).digest())


async def create(home: Path, url: str, email: str = EMAIL, invitation: str | None = None) -> str:
    enrolment = Enrolment(home, url, email, home.name)
    return await create_account(enrolment, PASSWORD, invitation, cheap_stretch)


async def login(home: Path, url: str, email: str = EMAIL, password: str = PASSWORD) -> None:
    await log_in(Enrolment(home, url, email, home.name), password, cheap_stretch)


def device_of(home: Path) -> DeviceKeyPair:
    keystore = Keystore.load(home)
    return DeviceKeyPair(SigningKey(keystore.signing_seed), BoxKey(keystore.box_private))


@asynccontextmanager
async def client_of(home: Path) -> AsyncIterator[ServerClient]:
    device = device_of(home)
    credentials = DeviceCredentials(device.id, device.signing)
    async with ServerClient(ServerAddress.parse(Keystore.load(home).server), credentials) as client:
        yield client
