"""Holds the server to what it acknowledged: records and their places in its journal.

Its word counts for little else, but what it took it must give, to this device and to all others. A
regress is an alarm with the records that prove it, and what it lost is sent again. Called by the
puller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from node.storage.journal import Journal

_EVIDENCE = 3  # records that show the same


class ServerHonesty:
    """Compares what the server gives with what it acknowledged.

    Concurrency: owned by the node's loop; no method awaits. Called in transactions.
    """

    def __init__(self, journal: Journal, now_ns: Callable[[], int]) -> None:
        self._journal = journal
        self._now_ns = now_ns

    def went_back(self) -> None:
        """The head of the server's journal lies before what was read, in the same journal epoch."""
        wires = self._journal.latest_acknowledged(_EVIDENCE)
        self._alarm(
            "rollback",
            "the server has gone back behind what it had acknowledged, without saying that it was "
            "restored from a backup; what it lost is sent again as far as it is here",
            wires,
        )

    def check_page(self, after: int, last: int, given: Collection[bytes]) -> None:
        """Note what was acknowledged at a position after ``after`` up to ``last`` and is not given.

        Args:
            given: the records that the server gave for these positions.
        """
        missed = [
            record
            for record, wire in self._journal.acknowledged_within(after, last)
            if wire not in given
        ]
        if missed:
            self._journal.note_missed(missed)

    def conclude(self) -> None:
        """The journal was read to its end: what was missed, and is needed still, is withheld.

        What later records have covered, or burials name, the server may have dropped.
        """
        lost = [(record, self._journal.wire(record)) for record in self._journal.take_missed()]
        wires = [wire for record, wire in lost if wire is not None]
        if not wires:
            return
        for record, _ in lost:
            self._journal.send_again(record)
        self._alarm(
            "withheld",
            "the server acknowledged changes and does not give them to other devices; they are sent "
            "again",
            wires[:_EVIDENCE],
        )

    def _alarm(self, kind: str, message: str, evidence: list[bytes]) -> None:
        self._journal.raise_alarm(kind, message, self._now_ns() // 1000, evidence)
