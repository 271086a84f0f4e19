from hypothesis import given
from hypothesis import strategies as st

from protocol.hybrid_clock import tick
from protocol.limits import CLOCK_LEAD_US

times = st.integers(0, 2**50)


def test_the_clock_is_followed_where_it_is_ahead():
    assert tick(1000, []) == 1000
    assert tick(1000, [5, 999]) == 1000


def test_a_write_is_later_than_all_that_it_covers():
    assert tick(1000, [1000]) == 1001
    assert tick(1000, [7000, 3000]) == 7001


def test_a_clock_that_is_days_ahead_is_not_followed():
    assert tick(1000, [1000 + CLOCK_LEAD_US]) == 1001 + CLOCK_LEAD_US
    assert tick(1000, [1001 + CLOCK_LEAD_US, 2000]) == 2001


@given(times, st.lists(times))
def test_every_time_within_the_lead_is_outdone_whatever_the_order(now, covered):
    time = tick(now, covered)
    assert time == tick(now, sorted(covered)) == tick(now, sorted(covered, reverse=True))
    assert now <= time <= now + CLOCK_LEAD_US + 1
    assert all(time > other for other in covered if other - now <= CLOCK_LEAD_US)
