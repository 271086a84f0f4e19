"""Hybrid logical time as a value: microseconds since 1970 that never run behind their causes.

Source: Kulkarni et al., "Logical Physical Clocks" (2014), folded into one integer: a tick adds one
microsecond where the physical clock lags. Only the times of the context count, never everything
that was received, so one device with a wrong clock does not drag the others along.
"""

from collections.abc import Iterable

from protocol.limits import CLOCK_LEAD_US


def tick(now_us: int, context_times_us: Iterable[int]) -> int:
    """The time of a new write.

    Args:
        now_us: the physical clock, microseconds since 1970.
        context_times_us: hybrid times of the writes that the new one covers.

    Returns:
        Later than every covered time, except those more than `CLOCK_LEAD_US` ahead of the physical
        clock, which are not followed: what covers them wins by its context, not by its time.
    """
    latest = now_us
    for time_us in context_times_us:
        if time_us >= latest and time_us - now_us <= CLOCK_LEAD_US:
            latest = time_us + 1
    return latest
