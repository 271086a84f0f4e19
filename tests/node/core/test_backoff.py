"""Waits between attempts grow, are bounded, and respect what the other side asked for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from node.core.backoff import Backoff, BackoffPolicy

POLICY = BackoffPolicy(initial_s=1.0, maximum_s=10.0, factor=2.0)


def test_the_bound_doubles_up_to_the_maximum():
    assert [POLICY.bound_s(n) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_the_wait_is_drawn_from_the_whole_bound():
    backoff = Backoff(POLICY, draw=lambda: 0.5)
    assert [backoff.next_wait_s() for _ in range(5)] == [0.5, 1, 2, 4, 5]


def test_a_success_starts_over():
    backoff = Backoff(POLICY, draw=lambda: 1.0)
    for _ in range(6):
        backoff.next_wait_s()
    assert backoff.failures == 6
    backoff.reset()
    assert backoff.next_wait_s() == 1


def test_the_wait_is_never_shorter_than_what_was_asked_for():
    backoff = Backoff(POLICY, draw=lambda: 0.25)
    assert backoff.next_wait_s(retry_after_s=7) == 7.25


def test_an_absurd_request_is_cut_to_the_maximum():
    assert Backoff(POLICY, draw=lambda: 0.0).next_wait_s(retry_after_s=1e9) == 10


@given(st.integers(1, 200), st.integers(0, 2**32), st.none() | st.floats(0, 1e6))
def test_every_wait_is_bounded(failures, seed, retry_after_s):
    backoff = Backoff(POLICY, random.Random(seed).random)
    for _ in range(failures):
        assert 0 <= backoff.next_wait_s(retry_after_s) <= 2 * POLICY.maximum_s
