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

    Holds at most one unfinished frame. After an error the stream is lost: the decoder raises
    again on every further call.

    Concurrency: owned by one task.
    """

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream and return the payloads that they complete.

        Raises:
            RemoteProtocolError: a frame announces more than the maximum.
        """
        self._buffer += data
        payloads: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= _PREFIX_BYTES:
            start = position + _PREFIX_BYTES
            length = int.from_bytes(self._buffer[position:start], "big")
            if length > self._max_bytes:
                del self._buffer[:position]
                raise RemoteProtocolError(
                    f"a frame of {length} bytes where at most {self._max_bytes} are allowed"
                )
            if len(self._buffer) - start < length:
                break
            payloads.append(bytes(self._buffer[start : start + length]))
            position = start + length
        del self._buffer[:position]
        return payloads

    @property
    def is_idle(self) -> bool:
        """Whether the stream may end here: no frame has begun."""
        return not self._buffer
