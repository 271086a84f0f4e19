"""Single segments under AES-256-GCM."""

import pytest

from protocol.crypto.segments import NONCE_BYTES, TAG_BYTES, open_segment, seal_segment
from protocol.errors import LocalProtocolError, RemoteProtocolError

KEY, NONCE = bytes(range(32)), bytes(NONCE_BYTES)


def test_it_is_aes_256_gcm():
    # McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test case 14.
    sealed = seal_segment(bytes(32), bytes(12), bytes(16), b"")
    assert sealed.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


def test_what_was_sealed_opens_from_any_buffer():
    sealed = seal_segment(KEY, NONCE, memoryview(b"plain"), bytearray(b"associated"))
    assert len(sealed) == len(b"plain") + TAG_BYTES
    assert open_segment(KEY, NONCE, memoryview(sealed), b"associated") == b"plain"


def test_nothing_else_opens():
    sealed = seal_segment(KEY, NONCE, b"plain", b"associated")
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(RemoteProtocolError):
            open_segment(KEY, NONCE, damaged, b"associated")
    for key, nonce, associated in (
        (bytes(32), NONCE, b"associated"),
        (KEY, b"n" * NONCE_BYTES, b"associated"),
        (KEY, NONCE, b"other"),
    ):
        with pytest.raises(RemoteProtocolError):
            open_segment(key, nonce, sealed, associated)
    with pytest.raises(RemoteProtocolError):
        open_segment(KEY, NONCE, sealed[: TAG_BYTES - 1], b"associated")


@pytest.mark.parametrize(("key", "nonce"), [(bytes(31), NONCE), (KEY, bytes(11)), (b"", b"")])
def test_wrong_lengths_are_our_own_mistake(key: bytes, nonce: bytes):
    with pytest.raises(LocalProtocolError):
        seal_segment(key, nonce, b"plain", b"")
    with pytest.raises(LocalProtocolError):
        open_segment(key, nonce, bytes(32), b"")
