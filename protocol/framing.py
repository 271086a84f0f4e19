"""Length-prefixed frames over a byte stream, sans-IO.

A frame is its length as four bytes, big endian, and that many bytes. Used by the control socket and
by sessions between peers.
"""

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import MAX_FRAME_BYTES

_PREFIX_BYTES = 4


def encode_frame(payload: bytes, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """The payload as a frame.

    Raises:
        LocalProtocolError: the payload is longer than ``max_bytes``.
    """
    if len(payload) > max_bytes:
        raise LocalProtocolError(f"a frame holds at most {max_bytes} bytes, not {len(payload)}")
    return len(payload).to_bytes(_PREFIX_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a stream, fed in any pieces, into the payloads of its frames.

    Holds at most one unfinished frame, and what was received and not yet taken. After an error the
    stream is lost: the decoder raises again on every further call.

    Concurrency: owned by one task.

    Attributes:
        max_bytes: the longest payload from now on; what a peer may send grows as it becomes known.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()
        self._position = 0

    def receive(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the stream."""
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def next_payload(self) -> bytes | None:
        """The payload of the next frame; None while it is not complete.

        Raises:
            RemoteProtocolError: it announces more than the maximum.
        """
        start = self._position + _PREFIX_BYTES
        if len(self._buffer) < start:
            return None
        length = int.from_bytes(self._buffer[self._position : start], "big")
        if length > self.max_bytes:
            raise RemoteProtocolError(
                f"a frame of {length} bytes where at most {self.max_bytes} are allowed"
            )
        if len(self._buffer) < start + length:
            return None
        self._position = start + length
        return bytes(memoryview(self._buffer)[start : start + length])

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the payloads that they complete.

        Raises:
            RemoteProtocolError: a frame announces more than the maximum.
        """
        self.receive(data)
        payloads: list[bytes] = []
        while (payload := self.next_payload()) is not None:
            payloads.append(payload)
        return payloads

    @property
    def is_idle(self) -> bool:
        """Whether the stream may end here: no frame has begun."""
        return len(self._buffer) == self._position
