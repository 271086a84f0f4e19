"""A nursery for the parallel parts of one piece of work, which fails as the work would fail alone.

Owns the translation of groups of exceptions. Called by ``node.sync`` where several blocks travel at
one time; whoever asked for the work catches a plain `NodeError`, however many tasks carried it out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import trio

from node.errors import NodeError


@asynccontextmanager
async def open_work_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """As `trio.open_nursery`, but a failure is raised as it is instead of in a group.

    The first error ends the other tasks. When several failed before they could be ended, all of
    them with a `NodeError` or all with the same type, one stands for all; anything else stays a
    group.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        is_alike = len({type(error) for error in errors}) == 1
        if is_alike or all(isinstance(error, NodeError) for error in errors):
            raise errors[0] from errors[0].__cause__
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
