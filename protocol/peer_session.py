"""One session between two peers, sans-IO: bytes in, events out; messages in, bytes out.

Owns what may be said when: proofs, then identities, then logs, then everything else, and the bounds
on it. Whose device it is and what its log says is judged outside, between two events. Knows neither
sockets nor clocks nor the index; TLS lies below. Driven by `node.net.peer_link`, and by tests.

In the manner of h11: `receive_data`, then `next_event` until it gives None.

Source: the handshake is SIGMA-like (Krawczyk, 2003), the side that listens being protected: whoever
dials proves a key before it learns anything but random bytes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from protocol import limits
from protocol.crypto.block_header import MAX_BLOCK_FRAME_BYTES
from protocol.crypto.labels import SignedType
from protocol.crypto.signing import SigningKey, verify
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.framing import FrameDecoder, encode_frame
from protocol.ids import AccountId, DeviceId, NamespaceId
from protocol.peer_messages import (
    Answer,
    Bye,
    Cancel,
    Challenge,
    EventsWanted,
    Exchanged,
    Get,
    Have,
    Heads,
    Identity,
    LogEvents,
    Lost,
    PeerMessage,
    Piece,
    Ping,
    Pong,
    Proof,
    Ready,
    Records,
    Refused,
    decode_message,
    encode_message,
)
from protocol.peer_proofs import (
    LanKey,
    before_answer,
    before_identity,
    before_proof,
    client_proof,
    filled_up,
    identity_body,
    server_proof,
)

PEER_VERSIONS: Final = (1,)
"""Versions of this protocol that are spoken here, ascending."""


class State(Enum):
    """Where a session stands."""

    CHALLENGED = auto()
    """Dialling: the challenge is awaited."""
    PROVING = auto()
    """Listening: the proofs of the dialling side are awaited."""
    ANSWERED = auto()
    """Dialling: the proofs of the listening side are awaited."""
    IDENTIFYING = auto()
    """The other side's identity is awaited."""
    JUDGING = auto()
    """The other side has said who it is; `PeerSession.accept` is awaited, or events of its log."""
    LOGS = auto()
    """Logs are compared."""
    OPEN = auto()
    """Everything else."""
    CLOSED = auto()
    """Over."""


_EXCHANGED: Final = (Records, Exchanged, Have, Lost, Get, Cancel, Refused, Piece, Ping, Pong)

_RECEIVABLE: Final[dict[State, tuple[type, ...]]] = {
    State.CHALLENGED: (Challenge,),
    State.PROVING: (Proof,),
    State.ANSWERED: (Answer,),
    # A device that is unknown to the listening side is asked for its log before that says who it is.
    State.IDENTIFYING: (Identity, EventsWanted),
    State.JUDGING: (LogEvents,),
    # The dialling side may ask for the log in turn before it begins with its heads.
    State.LOGS: (EventsWanted, Heads, LogEvents, Ready, Bye),
    State.OPEN: (Heads, LogEvents, Bye, *_EXCHANGED),
    State.CLOSED: (),
}
_SENDABLE: Final[dict[State, tuple[type, ...]]] = {
    State.IDENTIFYING: (LogEvents,),
    State.JUDGING: (EventsWanted, LogEvents),
    State.LOGS: (Heads, LogEvents, Ready, Bye),
    State.OPEN: (Heads, LogEvents, Bye, *_EXCHANGED),
}


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks here.

    Attributes:
        keys: LAN keys that prove membership now, at most `MAX_PEER_PROOFS`.
        run: random, the same in all sessions of one run of the node.
    """

    account: AccountId
    device: DeviceId
    run: bytes
    signing: SigningKey
    keys: Sequence[LanKey]


@dataclass(frozen=True, slots=True)
class Claim:
    """Who the other side says that it is; `PeerSession.accept` checks it.

    Attributes:
        namespaces: of which it has proved a key.
    """

    account: AccountId
    device: DeviceId
    run: bytes
    namespaces: frozenset[NamespaceId]
    signature: bytes = field(repr=False)


Event = (
    Claim
    | EventsWanted
    | Heads
    | LogEvents
    | Ready
    | Bye
    | Ping
    | Pong
    | Records
    | Exchanged
    | Have
    | Lost
    | Get
    | Cancel
    | Refused
    | Piece
)


class PeerSession:
    """One side of a session.

    Both sides' answers of the handshake are made by themselves; `take_outgoing` gives what is to be
    sent after each call.

    Concurrency: owned by one task at a time; no method awaits.

    Attributes:
        state: where it stands.
        namespaces: which both sides speak about, once open.
    """

    def __init__(
        self,
        own: Speaker,
        *,
        is_server: bool,
        certificate_hash: bytes,
        nonce: bytes,
        filler: bytes,
        versions: Sequence[int] = PEER_VERSIONS,
    ) -> None:
        """A session on a connection that TLS has just set up.

        Args:
            own: who speaks.
            is_server: whether this is the listening side.
            certificate_hash: SHA-256 of the listening side's certificate (DER).
            nonce: 32 random bytes.
            filler: 32 random bytes.
            versions: that are spoken here.
        """
        self.namespaces: frozenset[NamespaceId] = frozenset()
        self._own = own
        self._is_server = is_server
        self._certificate_hash = certificate_hash
        self._nonce = nonce
        self._filler = filler
        self._versions = tuple(versions)
        self._decoder = FrameDecoder(limits.MAX_HANDSHAKE_FRAME_BYTES)
        self._outgoing: list[bytes] = []
        self._transcript = b""
        self._client_proofs: tuple[bytes, ...] = ()
        self._common: frozenset[NamespaceId] = frozenset()
        self._claim: Claim | None = None
        self._ready: frozenset[NamespaceId] | None = None
        self._theirs: frozenset[NamespaceId] | None = None
        self._has_asked = False
        self._was_asked = False
        self._has_heads = False
        self._asked_for: dict[int, int] = {}
        self._asked_by: set[int] = set()
        self._failure: RemoteProtocolError | None = None
        self.state = State.PROVING if is_server else State.CHALLENGED
        if is_server:
            self._put(Challenge(nonce))

    def take_outgoing(self) -> bytes:
        """What is to be sent now; empty when nothing is."""
        outgoing = b"".join(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the connection."""
        self._decoder.receive(data)

    def next_event(self) -> Event | None:
        """What the other side has said; None until more bytes have come.

        Raises:
            RemoteProtocolError: it does not keep to the protocol, or has proved nothing. The session
                is over, and raises again.
        """
        if self._failure is not None:
            raise self._failure
        try:
            while self.state is not State.CLOSED:
                payload = self._decoder.next_payload()
                if payload is None:
                    return None
                event = self._take(decode_message(payload))
                if event is not None:
                    return event
        except RemoteProtocolError as error:
            self._failure = error
            self.state = State.CLOSED
            raise
        return None

    def send(self, message: PeerMessage) -> None:
        """Say something.

        Raises:
            LocalProtocolError: not in this state, not about this namespace, or beyond a bound.
        """
        if not isinstance(message, _SENDABLE.get(self.state, ())):
            raise LocalProtocolError(f"no {type(message).__name__} while {self.state.name}")
        self._check_namespace(message, LocalProtocolError)
        match message:
            case Get(request=request):
                if request in self._asked_for:
                    raise LocalProtocolError(f"request {request} is under way")
                if len(self._asked_for) >= limits.MAX_PEER_REQUESTS:
                    raise LocalProtocolError("too many requests are under way")
                self._asked_for[request] = 0
            case Cancel(request=request) if request not in self._asked_for:
                raise LocalProtocolError(f"request {request} is not under way")
            case Piece(request=request) | Refused(request=request):
                if request not in self._asked_by:
                    raise LocalProtocolError(f"request {request} was not made")
                if isinstance(message, Refused) or message.is_last:
                    self._asked_by.discard(request)
            case EventsWanted():
                self._has_asked = True
                self._decoder.max_bytes = limits.MAX_PEER_FRAME_BYTES
            case Ready(namespaces=namespaces):
                if self._ready is not None or not set(namespaces) <= self._common:
                    raise LocalProtocolError("ready is said once, of namespaces in common")
                self._ready = frozenset(namespaces)
            case _:
                pass
        self._put(message)
        self._settle_state(message)

    def accept(self, signing_public: bytes) -> None:
        """The claimed device is enrolled with this key, and welcome: check that it is the device.

        Raises:
            RemoteProtocolError: it has not signed. The session is over.
        """
        claim = self._claim
        if self.state is not State.JUDGING or claim is None:
            raise LocalProtocolError(f"nobody to accept while {self.state.name}")
        body = identity_body(
            self._transcript, not self._is_server, claim.account, claim.device, claim.run
        )
        try:
            verify(signing_public, SignedType.LAN_SESSION, body, claim.signature)
        except RemoteProtocolError as error:
            self._failure = error
            self.state = State.CLOSED
            raise
        self._decoder.max_bytes = limits.MAX_PEER_FRAME_BYTES
        self.state = State.LOGS
        if self._is_server:
            self._identify()

    @property
    def requests_under_way(self) -> int:
        """Blocks that were asked for and have not come or been refused."""
        return len(self._asked_for)

    def is_asked(self, request: int) -> bool:
        """Whether the other side's request still waits for its end."""
        return request in self._asked_by

    # Receiving

    def _take(self, message: Any) -> Event | None:
        if type(message) not in _RECEIVABLE[self.state]:
            raise RemoteProtocolError(f"a {type(message).__name__} while {self.state.name}")
        match message:
            case Challenge():
                self._prove(message)
            case Proof():
                self._answer(message)
            case Answer():
                self._take_answer(message)
            case Identity():
                return self._take_identity(message)
            case _:
                self._check_namespace(message, RemoteProtocolError)
                self._check_order(message)
                self._settle_state(message)
                received: Event = message
                return received
        return None

    def _prove(self, challenge: Challenge) -> None:
        self._transcript = before_proof(
            self._certificate_hash, challenge.nonce, self._versions, self._nonce
        )
        proofs = [client_proof(key, self._transcript) for key in self._own.keys]
        self._client_proofs = filled_up(proofs, self._filler)
        self._put(Proof(self._versions, self._nonce, self._client_proofs))
        self.state = State.ANSWERED

    def _answer(self, proof: Proof) -> None:
        transcript = before_proof(self._certificate_hash, self._nonce, proof.versions, proof.nonce)
        common = _proved(self._own.keys, transcript, client_proof, proof.proofs)
        versions = set(proof.versions) & set(self._versions)
        if not common or not versions:
            raise RemoteProtocolError("nothing in common was proved")
        version = max(versions)
        self._transcript = before_answer(transcript, proof.proofs, version)
        proofs = filled_up((server_proof(key, self._transcript) for key in common), self._filler)
        self._common = frozenset(key.namespace for key in common)
        self._put(Answer(version, proofs))
        self._transcript = before_identity(self._transcript, proofs)
        self.state = State.IDENTIFYING

    def _take_answer(self, answer: Answer) -> None:
        if answer.version not in self._versions:
            raise RemoteProtocolError("a version that was not offered")
        transcript = before_answer(self._transcript, self._client_proofs, answer.version)
        common = _proved(self._own.keys, transcript, server_proof, answer.proofs)
        if not common:
            raise RemoteProtocolError("nothing in common was proved")
        self._common = frozenset(key.namespace for key in common)
        self._transcript = before_identity(transcript, answer.proofs)
        self._identify()
        self.state = State.IDENTIFYING

    def _identify(self) -> None:
        own = self._own
        body = identity_body(self._transcript, self._is_server, own.account, own.device, own.run)
        signature = own.signing.sign(SignedType.LAN_SESSION, body)
        self._put(Identity(own.account, own.device, own.run, signature))

    def _take_identity(self, identity: Identity) -> Claim:
        if identity.device == self._own.device and identity.run == self._own.run:
            raise RemoteProtocolError("this node has dialled itself")
        self._claim = Claim(
            identity.account, identity.device, identity.run, self._common, identity.signature
        )
        self.state = State.JUDGING
        return self._claim

    def _check_order(self, message: PeerMessage) -> None:
        match message:
            case EventsWanted():
                if self._was_asked:
                    raise RemoteProtocolError("events are asked for once")
                self._was_asked = True
            case LogEvents() if self.state is State.JUDGING and not self._has_asked:
                raise RemoteProtocolError("events that nobody asked for")
            case Heads():
                self._has_heads = True
            case Ready(namespaces=namespaces):
                if self._theirs is not None or not self._has_heads:
                    raise RemoteProtocolError("ready is said once, after the heads")
                self._theirs = frozenset(namespaces) & self._common
            case _:
                self._check_request(message)

    def _check_request(self, message: PeerMessage) -> None:
        match message:
            case Get(request=request):
                if request in self._asked_by:
                    raise RemoteProtocolError(f"request {request} is under way")
                if len(self._asked_by) >= limits.MAX_PEER_REQUESTS:
                    raise RemoteProtocolError("too many requests are under way")
                self._asked_by.add(request)
            case Piece(request=request, data=data, is_last=is_last):
                self._count_piece(request, len(data), is_last=is_last)
            case Refused(request=request):
                if self._asked_for.pop(request, None) is None:
                    raise RemoteProtocolError(f"request {request} was not made")
            case _:
                pass  # a cancel may cross with the end of its request

    def _count_piece(self, request: int, size_bytes: int, *, is_last: bool) -> None:
        so_far = self._asked_for.get(request)
        if so_far is None:
            raise RemoteProtocolError(f"request {request} was not made")
        if so_far + size_bytes > MAX_BLOCK_FRAME_BYTES or not (size_bytes or is_last):
            raise RemoteProtocolError(f"more bytes for request {request} than a block has")
        if is_last:
            del self._asked_for[request]
        else:
            self._asked_for[request] = so_far + size_bytes

    # Both ways

    def _settle_state(self, message: PeerMessage) -> None:
        if isinstance(message, Bye):
            self.state = State.CLOSED
        elif self._ready is not None and self._theirs is not None and self.state is State.LOGS:
            self.namespaces = self._ready & self._theirs
            self.state = State.OPEN

    def _check_namespace(self, message: Any, error: type[Exception]) -> None:
        namespace = getattr(message, "namespace", None)
        if namespace is not None and namespace not in self.namespaces:
            raise error(f"{namespace} is not in common")

    def _put(self, message: PeerMessage) -> None:
        # The longest payload that the other side takes is what it grants to a known peer.
        self._outgoing.append(encode_frame(encode_message(message), limits.MAX_PEER_FRAME_BYTES))


def _proved(
    keys: Sequence[LanKey],
    transcript: bytes,
    proof: Callable[[LanKey, bytes], bytes],
    proofs: Iterable[bytes],
) -> list[LanKey]:
    """The keys of which a proof is among those given."""
    given = list(proofs)
    found = []
    for key in keys:
        expected = proof(key, transcript)
        # Not `in`, which would tell by its time how many bytes were right.
        if any(hmac.compare_digest(expected, each) for each in given):
            found.append(key)
    return found
