"""How the allocator treats large buffers, and the garbage collector what lives long.

glibc gives every buffer above 128 KiB a mapping of its own and returns it at once, so each 1 MiB
buffer costs 256 page faults. Kept in the heap, the same pages serve again. Called once by
`node.main`.
"""

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_HEAP_BYTES: Final = 8 * 1024 * 1024
"""Buffers up to this size come from the heap: a block of 4 MiB and its envelope, with room."""

_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Free memory at the top of the heap that is kept."""


def spare_long_lived_objects() -> None:
    """Let the garbage collector leave alone what is there now: it stays until the end.

    It else looks through all modules again and again, and nothing else runs for 60 ms. Call it once
    everything is imported and built.
    """
    gc.collect()
    gc.freeze()


def reuse_large_buffers() -> None:
    """Let the buffers of blocks come from the heap; elsewhere than on glibc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _HEAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
