"""What every test shares: hypothesis profiles, and which markers this machine can run.

Owns the decision to leave tests out, and the loud note about it at the end of a run. ``CI=true``
turns on the deterministic hypothesis profile.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

settings.register_profile(
    "atoll", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("atoll"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "atoll")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Takes back what a test makes of logging: a command run in the test logs to its streams."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


_LEFT_OUT: pytest.StashKey[Counter[str]] = pytest.StashKey()


def _missing_for_fuse() -> str | None:
    """Says what a real mount lacks on this machine, or None when nothing does."""
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (apt-get install fuse3)"
    try:
        descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"/dev/fuse cannot be opened ({error.strerror})"
    os.close(descriptor)
    return None


def _missing_for_root() -> str | None:
    """Says why tests that need root cannot run, or None when they can."""
    return None if os.geteuid() == 0 else "not running as root"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {"fuse": _missing_for_fuse(), "root": _missing_for_root()}
    for item in items:
        for marker, reason in missing.items():
            if reason is not None and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))
                config.stash[_LEFT_OUT][f"{marker}: {reason}"] += 1
        for mark in item.iter_markers("program"):
            if shutil.which(mark.args[0]) is None:
                reason = f"program: {mark.args[0]} is not installed"
                item.add_marker(pytest.mark.skip(reason=reason))
                config.stash[_LEFT_OUT][reason] += 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash[_LEFT_OUT]
    if not left_out:
        return
    terminalreporter.section("LEFT OUT ON THIS MACHINE", sep="!", red=True, bold=True)
    for reason, count in sorted(left_out.items()):
        terminalreporter.line(f"{count} test(s) not run, marked {reason}", red=True)
