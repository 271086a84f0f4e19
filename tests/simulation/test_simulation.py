"""A few hundred seeds of the simulation, each in a process whose hashes are repeatable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SEEDS = 100


def simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_same_seed_gives_the_same_trace_and_another_one_another():
    first, again, other = (simulated("--seed", seed).stdout.split()[1] for seed in ("7", "7", "8"))
    assert first == again != other


def test_a_part_of_a_plan_is_a_plan():
    result = simulated("--seed", "7", "--steps", "0-9,20")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("trace ")


def test_runs_are_repeatable_only_under_the_script():
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.simulation"],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "scripts/simulate" in result.stderr


@pytest.mark.parametrize("half", [0, 1])
def test_nothing_that_was_acknowledged_is_lost_and_all_devices_agree(half):
    result = simulated("--first", str(half * SEEDS), "--seeds", str(SEEDS))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        ("139", "10-12,18,49,54,59"),  # a loss of power took blocks that nobody had synced
        ("20023", "3-5,9-12,15,17-18,20-21"),  # siblings of one file were sealed into one record
        ("51521", "0-1,6,12,20,24,27,29-31"),  # bytes that were synced, under others that were not
        ("50070", "46,48,54-55"),  # the server had dropped what it had not acknowledged
        ("5005", "14,16,18-19,21-23,25-26,43,48,52"),  # a buried file that a program had open
        ("31022", "2,5-6,9"),  # a rename and a link made apart gave one item one name twice
        ("20053", "8-9,13,16,30"),  # rivals for one name were exchanged, and both held one's bytes
    ],
)
def test_what_once_failed_holds(seed, steps):
    result = simulated("--seed", seed, "--steps", steps)
    assert result.returncode == 0, result.stdout + result.stderr
