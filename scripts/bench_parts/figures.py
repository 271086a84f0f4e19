"""What a bench hands back: figures with their native counterparts and their bounds, and the table.

Owns units, ratios, verdicts and how they are printed. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: of the bench, a slash, and what was measured.
        unit: ``ms``, ``s``, ``MB/s`` or ``MiB``.
        native: the same done on the native file system; None where it has no counterpart.
        at_most, at_least: the bound that it must keep; on the ratio when `is_ratio_bound`.
        details: what belongs to it and is in the file only.
    """

    name: str
    value: float
    unit: str
    native: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    is_ratio_bound: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours to native; None without a native counterpart."""
        return self.value / self.native if self.native else None

    @property
    def is_kept(self) -> bool | None:
        """Whether the bound is kept; None when there is none."""
        judged = self.ratio if self.is_ratio_bound else self.value
        if judged is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or judged <= self.at_most) and (
            self.at_least is None or judged >= self.at_least
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "is_kept": self.is_kept}


def table(figures: Iterable[Figure]) -> str:
    """The figures as lines for people."""
    rows = [("what", "atoll", "native", "ratio", "bound", "")]
    rows += [
        (
            figure.name,
            f"{figure.value:.4g} {figure.unit}",
            "" if figure.native is None else f"{figure.native:.4g} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.3g}",
            _bound(figure),
            {None: "", True: "ok", False: "MISSED"}[figure.is_kept],
        )
        for figure in figures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)
    return ordered[min(rank, len(ordered) - 1)]


def since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was added to each counter."""
    return {name: round(after[name] - before.get(name, 0), 3) for name in after}


def _bound(figure: Figure) -> str:
    unit = "x" if figure.is_ratio_bound else f" {figure.unit}"
    if figure.at_most is not None:
        return f"<= {figure.at_most:g}{unit}"
    return "" if figure.at_least is None else f">= {figure.at_least:g}{unit}"
