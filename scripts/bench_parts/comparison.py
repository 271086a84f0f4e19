"""What the mount bench hands back: one row for each thing measured, all contestants side by side.

Owns medians, ratios of speed, verdicts, and the table. Measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "atoll"


@dataclass(frozen=True, slots=True)
class Sample:
    """One time that was taken.

    Attributes:
        amount: what was done in it, in ``unit``; 0 when only the time says something.
        unit: ``MB`` or what the operations were.
    """

    name: str
    seconds: float
    amount: float = 0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured.

    Attributes:
        seconds: the median time of each contestant; who failed at it is not among them.
        at_least: how fast Atoll must be, as a share of the speed of others.
    """

    name: str
    unit: str
    amount: float
    seconds: Mapping[str, float]
    samples: Mapping[str, Sequence[float]]
    at_least: Mapping[str, float]

    def speed_share(self, other: str) -> float | None:
        """Atoll's speed as a share of another's; None when either has none."""
        ours, theirs = self.seconds.get(OURS), self.seconds.get(other)
        return theirs / ours if ours and theirs is not None else None

    @property
    def is_kept(self) -> bool | None:
        """Whether all bounds are kept; None when there is none that can be judged."""
        judged = [
            share >= least
            for other, least in self.at_least.items()
            if (share := self.speed_share(other)) is not None
        ]
        return all(judged) if judged else None

    def shown(self, contestant: str) -> str:
        """A contestant's median, as people read it."""
        seconds = self.seconds.get(contestant)
        if seconds is None:
            return "-"
        if not self.amount:
            return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
        speed = self.amount / seconds
        return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"

    def to_json(self) -> dict[str, Any]:
        others = [name for name in self.seconds if name != OURS]
        return {
            "name": self.name,
            "unit": self.unit,
            "amount": self.amount,
            "seconds": dict(self.seconds),
            "samples": {name: list(times) for name, times in self.samples.items()},
            "speed share": {other: self.speed_share(other) for other in others},
            "at least": dict(self.at_least),
            "is_kept": self.is_kept,
        }


def row_of(samples: Mapping[str, Sequence[Sample]], at_least: Mapping[str, float]) -> Row:
    """The row for all samples of one thing, by contestant; none may be empty."""
    first = next(iter(samples.values()))[0]
    times = {name: [sample.seconds for sample in taken] for name, taken in samples.items()}
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return Row(first.name, first.unit, first.amount, medians, times, at_least)


def comparison_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The rows as a table in Markdown, with Atoll's share of each other's speed."""
    others = [name for name in names if name != OURS]
    lines = [["what", *names, *(f"x {other}" for other in others), "at least", ""]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        unit = f" ({row.unit}/s)" if row.amount else ""
        shares = [row.speed_share(other) for other in others]
        lines.append(
            [
                row.name + unit,
                *(row.shown(name) for name in names),
                *("" if share is None else f"{share:.2f}" for share in shares),
                ", ".join(f"{least:g} {other}" for other, least in row.at_least.items()),
                {None: "", True: "ok", False: "missed"}[row.is_kept],
            ]
        )
    return "\n".join(_aligned(lines))


def _aligned(lines: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
