"""Two connected ends of a session, and everything that they need to be somebody."""

from dataclasses import dataclass, field

from protocol.crypto.signing import SigningKey
from protocol.ids import AccountId, DeviceId, EventId, NamespaceId, device_id
from protocol.peer_messages import Heads, LogHead, Ready
from protocol.peer_proofs import LanKey
from protocol.peer_session import Claim, PeerSession, Speaker, State

ACCOUNT = AccountId(b"a" * 32)
CERTIFICATE = b"c" * 32
SHARED = NamespaceId(b"s" * 32)


def key(name: bytes, epoch: int = 1) -> LanKey:
    return LanKey(NamespaceId(name * 32), epoch, bytes([epoch]) + name * 31)


def speaker(name: bytes, *keys: LanKey) -> Speaker:
    signing = SigningKey.from_seed(name * 32)
    return Speaker(ACCOUNT, device_id(signing.public, name * 32), name * 16, signing, keys)


@dataclass
class End:
    """One end, which keeps what it was told."""

    own: Speaker
    session: PeerSession
    events: list = field(default_factory=list)

    def feed(self, data: bytes, size: int = 0) -> None:
        for start in range(0, len(data), size or len(data) or 1):
            self.session.receive_data(data[start : start + (size or len(data))])
            while (event := self.session.next_event()) is not None:
                self.events.append(event)


class Pair:
    """A dialling and a listening end."""

    def __init__(
        self,
        client: Speaker,
        server: Speaker,
        *,
        certificates: tuple[bytes, bytes] = (CERTIFICATE, CERTIFICATE),
        versions: tuple[tuple[int, ...], tuple[int, ...]] = ((1,), (1,)),
        salt: bytes = b"n",
    ) -> None:
        self.client, self.server = (
            End(
                own,
                PeerSession(
                    own,
                    is_server=is_server,
                    certificate_hash=certificates[is_server],
                    nonce=(salt + bytes([is_server])) * 16,
                    filler=(salt + bytes([2 + is_server])) * 16,
                    versions=versions[is_server],
                ),
            )
            for own, is_server in ((client, False), (server, True))
        )
        self.sent: list[bytes] = []

    def other(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def carry(self, size: int = 0) -> None:
        """Deliver what both have said, until both are silent."""
        while True:
            moved = False
            for end in (self.server, self.client):
                if data := end.session.take_outgoing():
                    self.sent.append(data)
                    self.other(end).feed(data, size)
                    moved = True
            if not moved:
                return

    def shake_hands(self) -> None:
        """Up to where both have accepted each other."""
        self.carry()
        self.server.session.accept(self.client.own.signing.public)
        self.carry()
        self.client.session.accept(self.server.own.signing.public)
        self.carry()

    def open(self, namespaces: tuple[NamespaceId, ...] = (SHARED,)) -> None:
        """Up to where everything may be said."""
        self.shake_hands()
        for end in (self.client, self.server):
            end.session.send(Heads((LogHead(ACCOUNT, 1, EventId(b"h" * 32)),)))
            self.carry()
        for end in (self.client, self.server):
            end.session.send(Ready(namespaces))
            self.carry()
        assert self.client.session.state is self.server.session.state is State.OPEN
        self.client.events.clear()
        self.server.events.clear()


def members() -> Pair:
    """Two devices with one namespace in common, and one each for itself."""
    return Pair(
        speaker(b"1", key(b"s"), key(b"x")),
        speaker(b"2", key(b"y"), key(b"s")),
    )


def claims(end: End) -> list[Claim]:
    return [event for event in end.events if isinstance(event, Claim)]


def someone() -> DeviceId:
    return DeviceId(b"d" * 32)
