"""The state of a register, and its merge.

A register holds the values whose dots no known context covers, beside the union of all contexts ever
seen. Merging is associative, commutative and idempotent, so records may come in any order, by any
route and any number of times.

Source: the optimised add-wins set of Bieniusa et al. (2012); multi-value registers of Shapiro (2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from protocol.version_vector import EMPTY_CONTEXT, Context, Dot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RegisterState(Generic[T]):
    """One register as far as it is known here.

    Attributes:
        live: the siblings by their dots. One is the ordinary case.
        covered: the union of the contexts of all writes seen. Never holds a live dot.
    """

    live: Mapping[Dot, T] = field(default_factory=dict)
    covered: Context = EMPTY_CONTEXT

    @property
    def seen(self) -> Context:
        """Every dot known here: what a writer that looked at all siblings has seen."""
        return self.covered.add(self.live)

    def knows(self, dot: Dot) -> bool:
        """Whether the write with this dot is here or was covered: applying it changes nothing."""
        return dot in self.live or self.covered.covers(dot)

    def apply(self, dot: Dot, context: Context, value: T) -> RegisterState[T]:
        """The state with one more write.

        A known dot keeps the value that came first; whoever applies compares and reports two values
        for one dot, since no honest device writes them.
        """
        covered, live = self.covered, dict(self.live)
        if context.vector:
            covered = covered.join(context)
            for known in self.live:
                if context.covers(known):
                    del live[known]
        if not covered.covers(dot):
            live.setdefault(dot, value)
        return RegisterState(live, covered)

    def merge(self, other: RegisterState[T]) -> RegisterState[T]:
        """The state that knows what either knows."""
        covered = self.covered.join(other.covered)
        both = {**other.live, **self.live}
        return RegisterState(
            {dot: value for dot, value in both.items() if not covered.covers(dot)}, covered
        )
