"""How often one address may ask without having proved anything.

Owns the buckets. One per IPv4 address or IPv6 /64, refilled steadily; bounded in number, the longest
unused make room. Called by the dispatcher.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_ADDRESSES: Final = 20_000
"""Buckets kept; some 4 MiB."""


class RateLimiter:
    """Token buckets by address.

    Args:
        per_second: requests that an address may make in the long run.
        burst: requests that it may make at once.
        monotonic_s: a clock that never goes back.
    """

    def __init__(self, per_second: float, burst: int, monotonic_s: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic_s = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> int:
        """Count one request; 0 when it may go on, else the seconds to wait."""
        key = _network(address)
        now_s = self._monotonic_s()
        left, since_s = self._buckets.pop(key, (float(self._burst), now_s))
        left = min(self._burst, left + (now_s - since_s) * self._per_second)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - left) / self._per_second))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
