"""The command behind scripts/mutate: copies the checkout, plants one fault at a time, runs tests."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.mutation.faults import FAULTS, Fault

CHECKOUT = Path(__file__).parents[2]
_DEADLINE_S = 600.0  # a fault may make a test wait for ever


def main() -> int:
    arguments = _arguments()
    chosen = [
        fault
        for fault in FAULTS
        if not arguments.names or any(name in fault.name for name in arguments.names)
    ]
    if arguments.list:
        for fault in chosen:
            print(f"{fault.file}: {fault.name}")
        return 0
    if not chosen:
        print("no fault has such a name; see scripts/mutate --list", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="atoll-mutate-") as folder:
        copy = Path(folder) / "checkout"
        _copy_checkout(copy)
        return _report(copy, chosen)


def _report(copy: Path, chosen: Sequence[Fault]) -> int:
    broken = _tests_that_fail_anyway(copy, chosen)
    if broken:
        print(f"these tests fail without any fault: {' '.join(broken)}", file=sys.stderr)
        return 2
    survivors = []
    for number, fault in enumerate(chosen, 1):
        begun = time.monotonic()
        is_caught = _is_caught(copy, fault)
        survivors += [] if is_caught else [fault.name]
        verdict = "caught" if is_caught else "SURVIVED"
        print(f"{number:3} {verdict:9} {time.monotonic() - begun:6.1f} s  {fault.name}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught")
    return 1 if survivors else 0


def _copy_checkout(copy: Path) -> None:
    """Everything that is tracked, with what was changed since."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source = CHECKOUT / name
        if name and source.is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _tests_that_fail_anyway(copy: Path, chosen: Sequence[Fault]) -> list[str]:
    return [
        " ".join(tests)
        for tests in dict.fromkeys(fault.tests for fault in chosen)
        if _run(copy, tests) != 0
    ]


def _is_caught(copy: Path, fault: Fault) -> bool:
    path = copy / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.file} does not have the place of the fault: {fault.name}")
    path.write_text(text.replace(fault.old, fault.new))
    try:
        # 1: tests failed; 2: the copy could not even be collected, which tests would show as well.
        return _run(copy, fault.tests) in (1, 2, None)
    finally:
        path.write_text(text)


def _run(copy: Path, tests: Sequence[str]) -> int | None:
    """The exit code of pytest; None when it had to be ended."""
    # The copy comes first on the path of every process; nothing is compiled beside it.
    environment = os.environ | {"PYTHONPATH": os.fspath(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/mutate",
        description="Plants faults, one at a time, and shows that the tests catch each.",
        epilog="example: scripts/mutate lattice merge",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names; default all")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
