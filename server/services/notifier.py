"""Wakes those who wait for changes of an account, inside this process.

Owns who waits, and the bounds on how many. Says only that something may have changed; whoever wakes
up looks at the store. Called by `events` to wait and by the other services to wake.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from protocol.http_api import ErrorCode
from protocol.ids import AccountId
from server.errors import ApiError

MAX_WAITERS: Final = 4096
"""Long polls and WebSockets of this process; each costs some 10 KiB."""

MAX_WAITERS_PER_ACCOUNT: Final = 64
"""One or two per device."""


class Waiter:
    """One who waits. Made by `Notifier.waiting`."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    async def wait(self) -> None:
        """Return at the first wake since the last `wait`, or at once if there was one."""
        await self._event.wait()
        self._event = anyio.Event()

    def wake(self) -> None:
        """Let `wait` return."""
        self._event.set()


class Notifier:
    """Who waits for which account.

    Concurrency: for the tasks of one loop; nothing here awaits.
    """

    def __init__(self) -> None:
        self._waiters: dict[AccountId, set[Waiter]] = {}
        self._count = 0
        self._is_closing = False

    @property
    def count(self) -> int:
        """How many wait now."""
        return self._count

    @property
    def is_closing(self) -> bool:
        """Whether nobody should wait any more, because the server ends."""
        return self._is_closing

    @contextmanager
    def waiting(self, account: AccountId) -> Iterator[Waiter]:
        """A waiter that hears every wake from now until the context ends.

        Raises:
            ApiError: too many wait already.
        """
        waiters = self._waiters.setdefault(account, set())
        if self._count >= MAX_WAITERS or len(waiters) >= MAX_WAITERS_PER_ACCOUNT:
            raise ApiError(
                503,
                ErrorCode.OVERLOADED,
                "too many devices are waiting for changes",
                retryable=True,
                retry_after=5,
            )
        waiter = Waiter()
        waiters.add(waiter)
        self._count += 1
        try:
            yield waiter
        finally:
            self._count -= 1
            waiters.discard(waiter)
            if not waiters and self._waiters.get(account) is waiters:
                del self._waiters[account]

    def wake(self, accounts: Iterable[AccountId]) -> None:
        """Something that these accounts see may have changed."""
        for account in accounts:
            for waiter in self._waiters.get(account, ()):
                waiter.wake()

    def close(self) -> None:
        """Wake everybody for the last time: the server ends."""
        self._is_closing = True
        self.wake(list(self._waiters))
