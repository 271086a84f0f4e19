"""What the services are given besides the stores: time, randomness and work off the loop.

Owns the words only. The server gives real clocks and threads; a simulation gives virtual time and
runs work inline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

Result = TypeVar("Result")


class Worker(Protocol):
    """Runs work that takes milliseconds without stopping the loop."""

    async def run(self, work: Callable[[], Result]) -> Result:
        """The work's result, or what it raised."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What differs between a server and its simulation.

    Attributes:
        now_s: seconds since 1970.
        token_bytes: that many unpredictable bytes.
        worker: for signatures.
    """

    now_s: Callable[[], int]
    token_bytes: Callable[[int], bytes]
    worker: Worker
