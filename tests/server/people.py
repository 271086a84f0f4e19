"""Accounts and devices for server tests: real keys and real logs, with cheap login keys.

Knows how requests are made from keys, and nothing of HTTP or of the server.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace

from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey
from protocol.http_api import (
    ChallengeResponse,
    LoginRequest,
    RefreshRequest,
    RegisterRequest,
    login_statement,
    refresh_statement,
)
from protocol.ids import BlockId, DeviceId, ItemId, NamespaceId, RecordId, actor_id, device_id
from protocol.logs import (
    NO_EVENT,
    AccountLog,
    Event,
    EventType,
    NamespaceLog,
    SignedEvent,
    account_genesis,
    namespace_genesis,
)
from protocol.records import NO_RECORD, Record, RecordWrite, Register, SignedRecord
from protocol.version_vector import Context

TIME_US = 1_790_000_000_000_000


@dataclass
class Device:
    """A device's keys and what it has signed so far."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    box_public: bytes = field(default_factory=lambda: os.urandom(32))
    incarnation: bytes = field(default_factory=lambda: os.urandom(8))
    sequence: int = 0
    previous: RecordId = NO_RECORD

    @property
    def id(self) -> DeviceId:
        return device_id(self.key.public, self.box_public)

    @property
    def actor(self):
        return actor_id(self.id, self.incarnation)

    def enrolment(self, account: AccountLog) -> Event:
        payload = [self.key.public, self.box_public, b"sealed name", [[1, b"sealed generation"]]]
        return account.next_event(EventType.DEVICE, payload, TIME_US)

    def record(
        self,
        namespace: NamespaceId,
        *,
        blocks: tuple[BlockId, ...] = (),
        item: ItemId | None = None,
        n: int = 1,
        epoch: int = 1,
        sealed: bytes = b"sealed value",
    ) -> SignedRecord:
        """The device's next record, signed."""
        self.sequence += 1
        write = RecordWrite(item or ItemId(os.urandom(16)), Register.CONTENT, n, Context(), sealed)
        record = Record(
            namespace=namespace,
            epoch=epoch,
            device=self.id,
            incarnation=self.incarnation,
            sequence=self.sequence,
            previous=self.previous,
            hybrid_time_us=TIME_US,
            account_head=NO_EVENT,
            namespace_head=NO_EVENT,
            automatic=False,
            folders=(),
            blocks=blocks,
            writes=(write,),
        )
        signed = self.sign(record)
        self.previous = signed.id
        return signed

    def sign(self, record: Record) -> SignedRecord:
        body = record.encode()
        return SignedRecord(record, body, self.key.sign(SignedType.RECORD, body))

    def refresh(self, challenge: ChallengeResponse) -> RefreshRequest:
        statement = refresh_statement(challenge.server_id, self.id, challenge.nonce)
        signature = self.key.sign(SignedType.REFRESH, statement)
        return RefreshRequest(self.id, challenge.nonce, signature)


_numbers = itertools.count(1)


class Person:
    """An account that is not yet at any server."""

    def __init__(self, email: str | None = None) -> None:
        self.email = email or f"person{next(_numbers)}@example.org"
        self.root = SigningKey.generate()
        self.login = SigningKey.generate()
        self.recovery = SigningKey.generate()
        self.device = Device()
        genesis = account_genesis(self.root, os.urandom(32), os.urandom(16), TIME_US)
        self.account_events: list[SignedEvent] = [genesis]
        self.account = AccountLog.from_events([genesis])
        self.append(
            self.account.next_event(
                EventType.GENERATION, [1, os.urandom(32), b"root wrap", []], TIME_US
            )
        )
        self.append(self.device.enrolment(self.account))
        self.namespace_events: list[SignedEvent] = []
        self.namespace = self.found_namespace()

    def append(self, event: Event) -> SignedEvent:
        """Sign as the root and append to the log that this person holds."""
        signed = event.sign(self.root)
        self.account = self.account.append(signed)
        self.account_events.append(signed)
        return signed

    def found_namespace(self) -> NamespaceLog:
        """A fresh namespace; its events replace `namespace_events`."""
        genesis = namespace_genesis(
            self.account, self.device.id, self.device.key, os.urandom(16), TIME_US
        )
        log = NamespaceLog.from_events([genesis], lambda _: self.account)
        epoch = self.namespace_event(
            log,
            EventType.EPOCH,
            [
                1,
                os.urandom(32),
                [[bytes(self.account.id), bytes(self.account.head)]],
                [[bytes(self.account.id), 1, b"wrapped epoch"]],
            ],
        )
        self.namespace_events = [genesis, epoch]
        return log.append(epoch, lambda _: self.account)

    def namespace_event(self, log: NamespaceLog, kind: EventType, payload: list) -> SignedEvent:
        event = Event(
            kind,
            log.id,
            log.length,
            log.head,
            self.account.id,
            self.device.id,
            self.account.head,
            TIME_US,
            payload,
        )
        return event.sign(self.device.key)

    def registration(self, invitation: str | None = None) -> RegisterRequest:
        return RegisterRequest(
            email=self.email,
            invitation=invitation,
            login_public=self.login.public,
            recovery_login_public=self.recovery.public,
            salt=b"s" * 16,
            passes=4,
            memory_kib=262144,
            wrapped_root=b"wrapped by password",
            wrapped_root_recovery=b"wrapped by phrase",
            account_events=tuple(event.to_wire() for event in self.account_events),
            namespace_events=tuple(event.to_wire() for event in self.namespace_events),
        )

    def login_request(self, challenge: ChallengeResponse, kind: str = "password") -> LoginRequest:
        key, signed_type = (
            (self.login, SignedType.LOGIN)
            if kind == "password"
            else (self.recovery, SignedType.RECOVERY_LOGIN)
        )
        statement = login_statement(challenge.server_id, self.email, challenge.nonce)
        return LoginRequest(self.email, challenge.nonce, kind, key.sign(signed_type, statement))

    def revocation(self, device: DeviceId) -> SignedEvent:
        return self.append(
            self.account.next_event(EventType.REVOCATION, [bytes(device), []], TIME_US)
        )


def with_other_content(signed: SignedRecord, device: Device) -> SignedRecord:
    """Another record of the same actor and sequence: what a cloned device would sign."""
    write = replace(signed.record.writes[0], sealed=b"something else")
    return device.sign(replace(signed.record, writes=(write,)))
