"""What a start and a report ask reads no table that has a row for every item."""

import re

import pytest

from node.storage.held_deletions import HeldDeletions
from node.storage.standing import Standing

# Reading one of these indexes whole reads only what waits, or what is in conflict.
_SHORT = "outbox|versions_by_group|versions_by_staging|items_in_conflict|items_merged"
_LONG = re.compile(
    rf"SCAN (versions|v|records|r|items|links|entries)\b(?! USING .*INDEX ({_SHORT}))"
)


@pytest.fixture
def plans(index, monkeypatch):
    """The steps of every statement that is executed from now on."""
    steps: list[str] = []
    execute = index.database.execute

    def explained(statement, values=()):
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            steps.extend(row[3] for row in execute(f"EXPLAIN QUERY PLAN {statement}", values))
        return execute(statement, values)

    monkeypatch.setattr(index.database, "execute", explained)
    return steps


def ask_as_a_start(index):
    index.registers.adopt_waiting_writes()
    index.registers.items_in_staging()
    index.journal.unsent_blocks()


def ask_as_a_report(index):
    standing, held = Standing(index.database), HeldDeletions(index.database)
    standing.unsent_blocks()
    standing.unsent_bytes()
    held.held_groups()
    held.by_device()
    held.count_local()
    index.tree.totals()
    index.tree.conflicts()
    index.journal.count_groups()
    index.journal.count_outbox()


@pytest.mark.parametrize("ask", [ask_as_a_start, ask_as_a_report])
def test_no_long_table_is_read_whole(index, plans, ask):
    ask(index)
    assert plans
    assert [step for step in plans if _LONG.match(step)] == []
