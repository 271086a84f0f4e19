"""A second sealer of frames, written from docs/formats.md, and contents to seal.

It shares no code with the product, and seals whatever payloads it is given: also those that only a
malicious member with the right keys would make.
"""

import hashlib
import math
import random
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import strategies as st

KIND_DATA = 0
KIND_PAGE = 1


def reference_header(kind, children, shapes):
    words = [length | (1 << 31 if compressed else 0) for length, compressed in shapes]
    fixed = struct.pack(">4sBBHH", b"ATLB", 1, kind, len(children), len(shapes))
    return fixed + b"".join(children) + struct.pack(f">{len(words)}I", *words)


def reference_seal(dedup_key, payloads, kind=KIND_DATA, children=()):
    """Seal ``(padded payload, is compressed)`` pairs; gives the frame and its key."""
    shapes = [(len(payload), compressed) for payload, compressed in payloads]
    header = reference_header(kind, children, shapes)
    content = header + b"".join(payload for payload, _ in payloads)
    content_hash = hashlib.blake2b(content, digest_size=32, person=b"atoll-block-v1").digest()
    key = hashlib.blake2b(
        content_hash, digest_size=32, key=dedup_key, person=b"atoll-blkkey-v1"
    ).digest()
    start = hashlib.blake2b(b"", digest_size=32, key=key, person=b"atoll-nonce-v1").digest()[:8]
    frame = header
    for index, (payload, _) in enumerate(payloads):
        number = index.to_bytes(4, "big")
        frame += AESGCM(key).encrypt(start + number, payload, header + number)
    return frame, key


def reference_seal_raw(dedup_key, plain, kind=KIND_DATA, children=()):
    """Seal content without compressing any of it, which no zstd can do differently."""
    segments = [plain[start : start + 65_536] for start in range(0, max(1, len(plain)), 65_536)]
    payloads = [(s + bytes(reference_padme(len(s)) - len(s)), False) for s in segments]
    return reference_seal(dedup_key, payloads, kind, children)


def reference_padme(length):
    if length < 2:
        return length
    exponent = math.floor(math.log2(length))
    step = 2 ** (exponent - math.floor(math.log2(exponent)) - 1) if exponent > 1 else 1
    return math.ceil(length / step) * step


def reference_open(frame, key):
    """The header and the ``(padded payload, is compressed)`` pairs of a valid frame."""
    _, _, _, child_count, segment_count = struct.unpack_from(">4sBBHH", frame)
    words_at = 10 + 32 * child_count
    offset = words_at + 4 * segment_count
    header = frame[:offset]
    start = hashlib.blake2b(b"", digest_size=32, key=key, person=b"atoll-nonce-v1").digest()[:8]
    payloads = []
    for index, word in enumerate(struct.unpack_from(f">{segment_count}I", frame, words_at)):
        length = word & 0x7FFFFFFF
        number = index.to_bytes(4, "big")
        ciphertext = frame[offset : offset + length + 16]
        payloads.append(
            (AESGCM(key).decrypt(start + number, ciphertext, header + number), word >> 31 == 1)
        )
        offset += length + 16
    assert offset == len(frame)
    return header, payloads


def _noise(length, seed):
    return random.Random(seed).randbytes(length)


def _text(length, seed):
    words = random.Random(seed).choices(
        [b"atoll ", b"block ", b"segment ", b"\n"], k=length // 2 + 1
    )
    return b"".join(words)[:length]


def _mixed(length, seed):
    """Every other 10,000 bytes compress, so segments of both forms stand in one frame."""
    parts = [
        (_noise if start % 20_000 else _text)(10_000, seed + start)
        for start in range(0, length, 10_000)
    ]
    return b"".join(parts)[:length]


lengths = st.one_of(
    st.integers(0, 300),
    st.sampled_from([65_535, 65_536, 65_537, 131_071, 131_072, 131_073]),
    st.integers(0, 300_000),
)

contents = st.one_of(
    st.binary(max_size=200),
    st.builds(_noise, lengths, st.integers(0, 3)),
    st.builds(_text, lengths, st.integers(0, 3)),
    st.builds(_mixed, lengths, st.integers(0, 3)),
    st.builds(bytes, lengths),
)
