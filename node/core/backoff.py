"""How long to wait before the next attempt: exponential, with full jitter.

Owns the arithmetic of one series of attempts. Refuses to know what is attempted and never sleeps:
the tasks of `node.sync` do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The shape of a series of waits.

    Attributes:
        initial_s: upper bound of the first wait.
        maximum_s: upper bound of every wait; also caps what a server may ask for.
        factor: growth of the bound from one failure to the next.
    """

    initial_s: float = 0.25
    maximum_s: float = 30.0
    factor: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.initial_s <= self.maximum_s and self.factor >= 1):
            raise AssertionError("a backoff grows from a positive wait to its maximum")

    def bound_s(self, failures: int) -> float:
        """The upper bound of the wait after so many failures in a row (1 or more)."""
        bound = self.initial_s
        for _ in range(failures - 1):
            bound *= self.factor
            if bound >= self.maximum_s:
                return self.maximum_s
        return bound


class Backoff:
    """One series of attempts at the same thing.

    The wait is drawn evenly from zero to the bound ("full jitter", AWS Architecture Blog,
    "Exponential Backoff And Jitter"), so that nodes cut off together do not return together.

    Concurrency: owned by one task.
    """

    __slots__ = ("_draw", "_policy", "failures")

    def __init__(self, policy: BackoffPolicy, draw: Callable[[], float]) -> None:
        """`draw` gives numbers within 0..1, as `random.random` does; a simulation seeds it."""
        self._policy = policy
        self._draw = draw
        self.failures = 0

    def next_wait_s(self, retry_after_s: float | None = None) -> float:
        """Counts a failure and says how long to wait after it.

        Args:
            retry_after_s: what the other side asked for; the wait is never shorter, except
                where that is beyond the policy's maximum.
        """
        self.failures += 1
        wait_s = self._draw() * self._policy.bound_s(self.failures)
        if retry_after_s is None:
            return wait_s
        # The jitter is added, or all who were told the same number would return at once.
        return min(retry_after_s, self._policy.maximum_s) + wait_s

    def reset(self) -> None:
        """Starts over after a success."""
        self.failures = 0
