"""Which cached blocks to give up when the cache is full: those that were not used for longest."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from protocol.ids import BlockId

_SPARE_SHARE = 0.05  # evicting a little more at once spares doing it for every block that arrives


def choose_evicted(
    sizes: Mapping[BlockId, int],
    by_last_use: Iterable[BlockId],
    protected: Container[BlockId],
    limit_bytes: int,
) -> list[BlockId]:
    """Blocks to remove so that the rest fits, with some room to spare.

    Args:
        sizes: bytes of every cached block.
        by_last_use: the cached blocks, longest unused first.
        protected: blocks that exist nowhere else; never chosen, even when the limit is missed.
    """
    used_bytes = sum(sizes.values())
    if used_bytes <= limit_bytes:
        return []
    target_bytes = int(limit_bytes * (1 - _SPARE_SHARE))
    chosen = []
    for block in by_last_use:
        if used_bytes <= target_bytes:
            break
        if block not in protected:
            chosen.append(block)
            used_bytes -= sizes[block]
    return chosen
