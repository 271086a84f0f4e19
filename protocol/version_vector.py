"""Dots and contexts: which writes of a register a writer had seen.

A *dot* names one write: the actor and its count for that register, from 1. A *context* is a set of
dots, written as a version vector (per actor, everything up to n) less exceptions. The exceptions
matter: one device may hold two versions of which a program had opened only one, and a plain vector
would bury the other.

Source: dotted version vectors, Preguica et al. (2010), with the exceptions of WinFS (Malkhi, 2005).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.ids import ActorId
from protocol.limits import MAX_CONTEXT_ACTORS, MAX_CONTEXT_EXCEPTIONS, MAX_COUNTER


class Dot(NamedTuple):
    """One write of a register: the ``n``-th of ``actor``, from 1."""

    actor: ActorId
    n: int


class Order(Enum):
    """How two contexts stand to each other."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Context:
    """A set of dots.

    Attributes:
        vector: per actor, the greatest n in the set.
        exceptions: dots below the vector that are not in the set.

    The two are in normal form: the top of each actor is in the set, exceptions lie below it. Two
    contexts are equal when their sets are.
    """

    vector: Mapping[ActorId, int] = field(default_factory=dict)
    exceptions: frozenset[Dot] = frozenset()

    def covers(self, dot: Dot) -> bool:
        """Whether the dot is in the set."""
        return dot.n <= self.vector.get(dot.actor, 0) and dot not in self.exceptions

    def join(self, other: Context) -> Context:
        """The union of the two sets."""
        if not other.vector:
            return self
        if not self.vector:
            return other
        vector = dict(self.vector)
        for actor, n in other.vector.items():
            if n > vector.get(actor, 0):
                vector[actor] = n
        excepted = self.exceptions | other.exceptions
        if not excepted:
            return Context(vector)
        exceptions = frozenset(
            dot for dot in excepted if not self.covers(dot) and not other.covers(dot)
        )
        # A dot above one side's top and excepted by the other is in neither: it stays excepted. Dots
        # between the two tops are covered by the higher side unless it excepts them.
        return Context(vector, exceptions)

    def add(self, dots: Iterable[Dot]) -> Context:
        """The set with these dots added."""
        vector = dict(self.vector)
        exceptions = set(self.exceptions)
        for dot in dots:
            top = vector.get(dot.actor, 0)
            if dot.n > top:
                gap = dot.n - top - 1
                if len(exceptions) + gap > MAX_CONTEXT_EXCEPTIONS:
                    raise RemoteProtocolError(f"a context with over {gap} exceptions")
                exceptions.update(Dot(dot.actor, n) for n in range(top + 1, dot.n))
                vector[dot.actor] = dot.n
            else:
                exceptions.discard(dot)
        return Context(vector, frozenset(exceptions))

    def without(self, dot: Dot) -> Context:
        """The set less one dot."""
        if not self.covers(dot):
            return self
        vector = dict(self.vector)
        exceptions = set(self.exceptions)
        if vector[dot.actor] != dot.n:
            return Context(vector, frozenset(exceptions | {dot}))
        top = dot.n - 1
        while Dot(dot.actor, top) in exceptions:
            exceptions.discard(Dot(dot.actor, top))
            top -= 1
        if top:
            vector[dot.actor] = top
        else:
            del vector[dot.actor]
        return Context(vector, frozenset(exceptions))

    def contains(self, other: Context) -> bool:
        """Whether every dot of the other set is in this one."""
        for actor, n in other.vector.items():
            if n > self.vector.get(actor, 0):
                return False
        return all(
            dot in other.exceptions or dot.n > other.vector.get(dot.actor, 0)
            for dot in self.exceptions
        )

    def compare(self, other: Context) -> Order:
        """The order of the two sets by inclusion; `Order.BEFORE` says that this one is smaller."""
        is_above = self.contains(other)
        is_below = other.contains(self)
        if is_above and is_below:
            return Order.EQUAL
        if is_above:
            return Order.AFTER
        return Order.BEFORE if is_below else Order.CONCURRENT

    def to_value(self) -> list[codec.Value]:
        """The canonical value: ``[[actor, n] ..., sorted], [[actor, n] excepted ..., sorted]``."""
        return [
            [[actor, n] for actor, n in sorted(self.vector.items())],
            [list(dot) for dot in sorted(self.exceptions)],
        ]

    @classmethod
    def from_value(cls, value: codec.Value) -> Context:
        """Read `to_value`.

        Raises:
            RemoteProtocolError: not a context in normal form, or over its bounds.
        """
        vector_value, exceptions_value = codec.as_tuple(value, "context", 2)
        if vector_value == [] == exceptions_value:
            return EMPTY_CONTEXT
        pairs = codec.as_list(vector_value, "context vector", MAX_CONTEXT_ACTORS)
        dots = [_dot(pair) for pair in pairs]
        vector = {dot.actor: dot.n for dot in dots}
        excepted_pairs = codec.as_list(
            exceptions_value, "context exceptions", MAX_CONTEXT_EXCEPTIONS
        )
        excepted = [_dot(pair) for pair in excepted_pairs]
        if len(vector) != len(dots) or dots != sorted(dots):
            raise RemoteProtocolError("context vector is not sorted by distinct actors")
        if excepted != sorted(set(excepted)):
            raise RemoteProtocolError("context exceptions are not sorted and distinct")
        if any(dot.n >= vector.get(dot.actor, 0) for dot in excepted):
            raise RemoteProtocolError("context excepts a dot that is not below its vector")
        return cls(vector, frozenset(excepted))


EMPTY_CONTEXT = Context()


def _dot(value: codec.Value) -> Dot:
    actor, n = codec.as_tuple(value, "dot", 2)
    return Dot(
        ActorId(codec.as_bytes(actor, "actor", 16, 16)), codec.as_int(n, 1, MAX_COUNTER, "n")
    )


def dot_to_value(dot: Dot | None) -> codec.Value:
    """The canonical value of a dot, or nil."""
    return None if dot is None else [dot.actor, dot.n]


def dot_from_value(value: codec.Value) -> Dot | None:
    """Read `dot_to_value`; `RemoteProtocolError` when it is neither a dot nor nil."""
    return None if value is None else _dot(value)
