"""The planner-level checker: what it must reach, and that it notices what is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from node.core import tree_view, whole_tree
from protocol.lattice import RegisterState
from protocol.values import Content
from protocol.version_vector import Context, Dot
from tests.simulation import planner
from tests.simulation.planner import run_case, run_cases

CASES = 10_000


@pytest.mark.no_cover  # counting lines would double its time
def test_ten_thousand_cases_hold_and_reach_all_that_is_not_local():
    reached = run_cases(0, CASES)
    assert reached["cases"] == CASES
    for what in ("cycles", "contests", "merges", "revivals", "conflicts", "twins"):
        assert reached[what] >= CASES // 100, (what, reached)


def test_a_seed_gives_the_same_case_again():
    assert [run_case(seed) for seed in range(50)] == [run_case(seed) for seed in range(50)]


def test_a_failing_case_names_its_command(monkeypatch):
    monkeypatch.setattr(planner, "check_nothing_is_lost", _fails)
    with pytest.raises(AssertionError) as caught:
        run_cases(7, 1)
    assert caught.value.__notes__ == ["python -m tests.simulation.planner --cases 1 --seed 7"]


def _fails(*_):
    raise AssertionError


# Each fault by itself; the checker must notice it within a few thousand cases.


def forget_what_was_covered(monkeypatch):
    def apply(self, dot, context, value):
        live = {known: kept for known, kept in self.live.items() if not context.covers(known)}
        return RegisterState({**live, dot: value}, self.covered)

    monkeypatch.setattr(RegisterState, "apply", apply)


def drop_a_sibling(monkeypatch):
    real = RegisterState.apply

    def apply(self, dot, context, value):
        state = real(self, dot, context, value)
        return RegisterState({dot: value}, state.covered) if dot in state.live else state

    monkeypatch.setattr(RegisterState, "apply", apply)


def join_without_exceptions(monkeypatch):
    real = Context.join
    monkeypatch.setattr(
        Context, "join", lambda self, other: Context(real(self, other).vector, frozenset())
    )


def cover_one_dot_too_many(monkeypatch):
    monkeypatch.setattr(
        Context,
        "covers",
        lambda self, dot: (
            dot.n <= self.vector.get(dot.actor, 0) + (dot.n > 1)
            and Dot(dot.actor, dot.n) not in self.exceptions
        ),
    )


def let_every_deletion_win(monkeypatch):
    monkeypatch.setattr(tree_view, "_is_revived", lambda placements, contents: False)


def hide_one_conflict(monkeypatch):
    real = tree_view.choose_content

    def choose(versions):
        winner, others = real(versions)
        return winner, others[1:]

    monkeypatch.setattr(tree_view, "choose_content", choose)


def decide_by_the_order_of_arrival(monkeypatch):
    def choose(versions):
        kept: list[tree_view.Version[Content]] = []
        for version in versions:
            if not any(version.value.has_same_bytes(other.value) for other in kept):
                kept.append(version)
        return kept[0], tuple(kept[1:])

    monkeypatch.setattr(tree_view, "choose_content", choose)


def leave_cycles_alone(monkeypatch):
    monkeypatch.setattr(whole_tree, "cut_cycles", lambda folders, move_of: {})


def never_revive_a_folder(monkeypatch):
    monkeypatch.setattr(whole_tree, "_revived", lambda known: set())


def revive_every_folder(monkeypatch):
    monkeypatch.setattr(
        whole_tree,
        "_revived",
        lambda known: {
            item
            for item, view in known.items()
            if view.is_folder and view.former and not view.links
        },
    )


def lose_who_stands_behind(monkeypatch):
    real = tree_view.share_name
    monkeypatch.setattr(
        whole_tree,
        "share_name",
        lambda candidates: dataclasses.replace(real(candidates), behind={}),
    )


@pytest.mark.parametrize(
    "plant",
    [
        forget_what_was_covered,
        drop_a_sibling,
        join_without_exceptions,
        cover_one_dot_too_many,
        let_every_deletion_win,
        hide_one_conflict,
        decide_by_the_order_of_arrival,
        leave_cycles_alone,
        never_revive_a_folder,
        revive_every_folder,
        lose_who_stands_behind,
    ],
)
def test_a_planted_fault_is_noticed(monkeypatch, plant):
    run_cases(0, 10 * planner._BASES)  # the base trees are made before the fault
    plant(monkeypatch)
    with pytest.raises((AssertionError, RecursionError)):
        run_cases(0, 3000)
