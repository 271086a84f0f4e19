"""Sessions between two peers: who gets in, what may be said when, and what any bytes do."""

from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from protocol import limits
from protocol.crypto.block_header import MAX_BLOCK_FRAME_BYTES
from protocol.crypto.signing import SigningKey
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.framing import encode_frame
from protocol.ids import BlockId, EventId, NamespaceId
from protocol.peer_messages import (
    Bye,
    Cancel,
    Challenge,
    EventsWanted,
    Farewell,
    Get,
    Heads,
    LogEvents,
    LogHead,
    Piece,
    Ping,
    Pong,
    Proof,
    Ready,
    Records,
    Refusal,
    Refused,
    Urgency,
    encode_message,
)
from protocol.peer_session import State
from tests.protocol.peer_pair import (
    ACCOUNT,
    SHARED,
    Pair,
    claims,
    key,
    members,
    speaker,
)
from tests.protocol.test_peer_messages import messages

BLOCK = BlockId(b"b" * 32)
FOREIGN = NamespaceId(b"x" * 32)


def get(request: int, namespace: NamespaceId = SHARED) -> Get:
    return Get(request, namespace, BLOCK, Urgency.WAITED)


class TestHandshake:
    @given(st.integers(0, 40))
    def test_members_of_a_namespace_open_a_session_however_the_bytes_are_cut(self, size):
        pair = members()
        pair.carry(size)
        pair.server.session.accept(pair.client.own.signing.public)
        pair.carry(size)
        pair.client.session.accept(pair.server.own.signing.public)
        (claim,) = claims(pair.server)
        assert (claim.account, claim.device) == (ACCOUNT, pair.client.own.device)
        assert claim.namespaces == {SHARED}
        assert claims(pair.client)[0].device == pair.server.own.device

    def test_only_what_both_have_proved_is_spoken_about(self):
        pair = Pair(
            speaker(b"1", key(b"s"), key(b"t"), key(b"x")),
            speaker(b"2", key(b"t"), key(b"s")),
        )
        pair.shake_hands()
        for end in (pair.client, pair.server):
            end.session.send(Heads(()))
            pair.carry()
        pair.client.session.send(Ready((SHARED, NamespaceId(b"t" * 32))))
        pair.server.session.send(Ready((SHARED,)))
        pair.carry()
        assert pair.client.session.namespaces == pair.server.session.namespaces == {SHARED}

    def test_an_older_epoch_is_enough_while_both_have_its_key(self):
        pair = Pair(speaker(b"1", key(b"s", 1)), speaker(b"2", key(b"s", 2), key(b"s", 1)))
        pair.carry()
        assert claims(pair.server)[0].namespaces == {SHARED}

    def test_a_stranger_hears_random_bytes_and_nothing_else(self):
        pair = Pair(speaker(b"1", key(b"x")), speaker(b"2", key(b"s")))
        with pytest.raises(RemoteProtocolError, match="nothing in common"):
            pair.carry()
        assert pair.sent[0] == encode_frame(encode_message(Challenge(b"n\1" * 16)))
        assert pair.server.session.take_outgoing() == b""
        assert pair.server.events == []

    def test_a_listener_without_the_key_learns_neither_the_device_nor_the_key(self):
        pair = Pair(speaker(b"1", key(b"s")), speaker(b"2"))
        with pytest.raises(RemoteProtocolError):
            pair.carry()
        said = b"".join(pair.sent[1:])
        own = pair.client.own
        for secret in (own.device, own.account, own.run, SHARED, own.signing.public):
            assert bytes(secret) not in said

    def test_what_a_dialler_says_first_does_not_tell_how_many_keys_it_has(self):
        lengths = set()
        for count in (0, 1, 7):
            keys = [key(bytes([48 + number])) for number in range(count)]
            pair = Pair(speaker(b"1", *keys), speaker(b"2", key(b"s")))
            with pytest.raises(RemoteProtocolError):
                pair.carry()
            lengths.add(len(pair.sent[1]))
        assert len(lengths) == 1

    def test_proofs_are_worth_nothing_on_another_connection(self):
        pair = Pair(
            speaker(b"1", key(b"s")),
            speaker(b"2", key(b"s")),
            certificates=(b"middle" * 5 + b"!!", b"c" * 32),
        )
        with pytest.raises(RemoteProtocolError, match="nothing in common"):
            pair.carry()

    def test_a_recorded_session_can_not_be_replayed(self):
        first = members()
        first.carry()
        proof, identity = first.sent[1], first.sent[3]
        again = Pair(first.client.own, first.server.own, salt=b"m")
        with pytest.raises(RemoteProtocolError, match="nothing in common"):
            again.server.feed(proof + identity)

    def test_a_listener_does_not_accept_its_own_proofs_back(self):
        pair = members()
        pair.carry()
        mirror = Pair(pair.server.own, pair.server.own)
        challenge = mirror.server.session.take_outgoing()
        mirror.client.feed(challenge)
        with pytest.raises(RemoteProtocolError):
            mirror.client.feed(mirror.client.session.take_outgoing())

    def test_a_signature_by_another_key_ends_the_session(self):
        pair = members()
        pair.carry()
        with pytest.raises(RemoteProtocolError):
            pair.server.session.accept(SigningKey.from_seed(b"?" * 32).public)
        assert pair.server.session.state is State.CLOSED
        assert pair.server.session.take_outgoing() == b""
        with pytest.raises(RemoteProtocolError):
            pair.server.session.next_event()

    def test_the_listener_says_who_it_is_after_it_has_accepted_the_dialler(self):
        pair = members()
        pair.carry()
        assert claims(pair.server)
        assert not claims(pair.client)
        assert bytes(pair.server.own.device) not in b"".join(pair.sent)

    def test_a_node_that_dials_itself_notices(self):
        own = speaker(b"1", key(b"s"))
        with pytest.raises(RemoteProtocolError, match="dialled itself"):
            Pair(own, own).carry()

    @pytest.mark.parametrize(
        ("client", "server", "is_met"),
        [((1,), (1, 2), True), ((1, 3), (1, 2, 3), True), ((1,), (2,), False)],
    )
    def test_the_highest_version_of_both_is_spoken(self, client, server, is_met):
        one, other = speaker(b"1", key(b"s")), speaker(b"2", key(b"s"))
        pair = Pair(one, other, versions=(client, server))
        if not is_met:
            with pytest.raises(RemoteProtocolError):
                pair.carry()
            return
        pair.carry()
        assert claims(pair.server)

    def test_versions_can_not_be_taken_away_under_way(self):
        one, other = speaker(b"1", key(b"s")), speaker(b"2", key(b"s"))
        pair = Pair(one, other, versions=((1, 2), (1, 2)))
        pair.client.feed(pair.server.session.take_outgoing())
        said = pair.client.session.take_outgoing()
        offered = encode_message(Proof((1, 2), b"n\0" * 16, ()))[:5]
        assert offered in said
        with pytest.raises(RemoteProtocolError):
            pair.server.feed(said.replace(b"\x92\1\2", b"\x92\1\3"))


class TestUnknownDevice:
    def test_its_log_is_asked_for_before_it_is_judged(self):
        pair = members()
        pair.carry()
        pair.server.session.send(EventsWanted(3))
        pair.carry()
        assert pair.client.events == [EventsWanted(3)]
        pair.client.session.send(LogEvents(ACCOUNT, 3, (b"event" * 10_000,)))
        pair.carry()
        pair.server.session.accept(pair.client.own.signing.public)
        pair.carry()
        assert claims(pair.client)

    def test_the_dialler_asks_as_well(self):
        pair = members()
        pair.carry()
        pair.server.session.accept(pair.client.own.signing.public)
        pair.carry()
        pair.client.session.send(EventsWanted(0))
        pair.carry()
        pair.server.session.send(LogEvents(ACCOUNT, 0, (b"event",)))
        pair.carry()
        pair.client.session.accept(pair.server.own.signing.public)
        assert pair.client.session.state is State.LOGS

    def test_events_that_nobody_asked_for_end_the_session(self):
        pair = members()
        pair.carry()
        with pytest.raises(RemoteProtocolError, match="nobody asked"):
            pair.server.feed(encode_frame(encode_message(LogEvents(ACCOUNT, 0, ()))))

    def test_a_log_is_asked_for_once(self):
        pair = members()
        pair.carry()
        wanted = encode_frame(encode_message(EventsWanted(0)))
        pair.client.feed(wanted)
        with pytest.raises(RemoteProtocolError, match="asked for once"):
            pair.client.feed(wanted)

    def test_who_proves_nothing_can_not_make_a_node_hold_much(self):
        pair = members()
        with pytest.raises(RemoteProtocolError, match="at most 4096"):
            pair.server.feed((limits.MAX_HANDSHAKE_FRAME_BYTES + 1).to_bytes(4, "big"))


class TestLogsFirst:
    def test_nothing_else_is_said_or_taken_before_both_are_ready(self):
        pair = members()
        pair.shake_hands()
        with pytest.raises(LocalProtocolError):
            pair.client.session.send(Ping(1))
        pair.client.session.send(Heads(()))
        pair.carry()
        pair.client.session.send(Ready((SHARED,)))
        pair.carry()
        with pytest.raises(LocalProtocolError):
            pair.client.session.send(Ping(1))
        with pytest.raises(RemoteProtocolError, match="Ping while LOGS"):
            pair.server.feed(encode_frame(encode_message(Ping(1))))

    def test_a_namespace_that_was_not_proved_can_not_be_spoken_about(self):
        pair = members()
        pair.shake_hands()
        with pytest.raises(LocalProtocolError):
            pair.client.session.send(Ready((FOREIGN,)))

    @pytest.mark.parametrize("before", [(), (Heads(()), Ready((SHARED,)))], ids=["first", "twice"])
    def test_ready_is_said_once_and_after_the_heads(self, before: tuple[Any, ...]):
        pair = members()
        pair.shake_hands()
        for message in before:
            pair.server.feed(encode_frame(encode_message(message)))
        with pytest.raises(RemoteProtocolError, match="once, after the heads"):
            pair.server.feed(encode_frame(encode_message(Ready((SHARED,)))))

    def test_logs_go_on_growing_in_an_open_session(self):
        pair = members()
        pair.open()
        heads = Heads((LogHead(SHARED, 2, EventId(b"h" * 32)),))
        pair.client.session.send(heads)
        pair.client.session.send(LogEvents(SHARED, 1, (b"event",)))
        pair.carry()
        assert pair.server.events == [heads, LogEvents(SHARED, 1, (b"event",))]


class TestOpen:
    def test_messages_arrive_in_order_however_the_bytes_are_cut(self):
        pair = members()
        pair.open()
        said: list[Any] = [Ping(7), Records(SHARED, (b"one", b"two")), get(1), Bye(Farewell.DONE)]
        for message in said:
            pair.client.session.send(message)
        pair.carry(3)
        assert pair.server.events == said
        assert pair.server.session.state is State.CLOSED

    @pytest.mark.parametrize("message", [Records(FOREIGN, ()), get(1, FOREIGN)])
    def test_nothing_is_said_or_taken_of_a_foreign_namespace(self, message: Any):
        pair = members()
        pair.open()
        with pytest.raises(LocalProtocolError, match="not in common"):
            pair.client.session.send(message)
        with pytest.raises(RemoteProtocolError, match="not in common"):
            pair.server.feed(encode_frame(encode_message(message)))

    def test_a_block_comes_in_pieces_and_frees_its_number(self):
        pair = members()
        pair.open()
        for _ in range(2):
            pair.client.session.send(get(5))
            pair.carry()
            assert pair.server.session.is_asked(5)
            pair.server.session.send(Piece(5, False, b"one"))
            pair.server.session.send(Piece(5, True, b"two"))
            pair.carry()
            assert not pair.server.session.is_asked(5)
            assert pair.client.session.requests_under_way == 0

    def test_a_cancelled_request_still_ends(self):
        pair = members()
        pair.open()
        pair.client.session.send(get(5))
        pair.client.session.send(Cancel(5))
        pair.carry()
        assert pair.client.session.requests_under_way == 1
        pair.server.session.send(Refused(5, Refusal.CANCELLED))
        pair.carry()
        assert pair.client.session.requests_under_way == 0

    def test_a_cancel_may_cross_with_the_end(self):
        pair = members()
        pair.open()
        pair.client.session.send(get(5))
        pair.carry()
        pair.server.session.send(Piece(5, True, b"all"))
        pair.client.session.send(Cancel(5))
        pair.carry()
        pair.server.session.send(Ping(1))

    @pytest.mark.parametrize(
        "message", [Piece(9, True, b"x"), Refused(9, Refusal.NOT_HERE)], ids=["piece", "refusal"]
    )
    def test_answers_without_a_question_are_refused_on_both_sides(self, message):
        pair = members()
        pair.open()
        with pytest.raises(LocalProtocolError):
            pair.server.session.send(message)
        with pytest.raises(RemoteProtocolError, match="was not made"):
            pair.client.feed(encode_frame(encode_message(message)))

    def test_requests_are_bounded_and_their_numbers_not_used_twice(self):
        pair = members()
        pair.open()
        for request in range(limits.MAX_PEER_REQUESTS):
            pair.client.session.send(get(request))
        pair.carry()
        for request in (0, limits.MAX_PEER_REQUESTS):
            with pytest.raises(LocalProtocolError):
                pair.client.session.send(get(request))
        with pytest.raises(RemoteProtocolError, match="too many"):
            pair.server.feed(encode_frame(encode_message(get(limits.MAX_PEER_REQUESTS))))

    def test_a_request_made_twice_is_refused(self):
        pair = members()
        pair.open()
        pair.client.session.send(get(1))
        pair.carry()
        with pytest.raises(RemoteProtocolError, match="under way"):
            pair.server.feed(encode_frame(encode_message(get(1))))

    def test_a_block_that_never_ends_is_refused(self):
        pair = members()
        pair.open()
        pair.client.session.send(get(1))
        piece = encode_frame(encode_message(Piece(1, False, bytes(limits.PIECE_BYTES))))
        for _ in range(MAX_BLOCK_FRAME_BYTES // limits.PIECE_BYTES):
            pair.client.feed(piece)
        with pytest.raises(RemoteProtocolError, match="more bytes"):
            pair.client.feed(piece)

    def test_pieces_of_nothing_do_not_go_on_for_ever(self):
        pair = members()
        pair.open()
        pair.client.session.send(get(1))
        with pytest.raises(RemoteProtocolError):
            pair.client.feed(encode_frame(encode_message(Piece(1, False, b""))))

    def test_after_an_error_nothing_more_is_heard(self):
        pair = members()
        pair.open()
        with pytest.raises(RemoteProtocolError):
            pair.server.feed(encode_frame(b"\xff"))
        with pytest.raises(RemoteProtocolError):
            pair.server.feed(encode_frame(encode_message(Pong(1))))
        with pytest.raises(LocalProtocolError):
            pair.server.session.send(Ping(1))


@given(
    st.sampled_from(["new", "identified", "logs", "open"]),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=60).map(encode_frame),
            messages.map(encode_message).map(encode_frame),
        ),
        max_size=8,
    ),
)
def test_any_bytes_give_events_or_an_error_at_any_time(stage, pieces):
    pair = members()
    if stage != "new":
        pair.carry()
    if stage == "logs":
        pair.server.session.accept(pair.client.own.signing.public)
        pair.carry()
    if stage == "open":
        pair = members()
        pair.open()
    try:
        for piece in pieces:
            pair.server.feed(piece)
    except RemoteProtocolError:
        event(f"{stage}: refused")
        assert pair.server.session.state is State.CLOSED
    else:
        event(f"{stage}: taken")
