"""Work for several targets at the same time in one run; one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from imageport.cloud import Cancelled
from imageport.workflow.fan_out import Outcome, side_by_side
from imageport.workflow.shared_source import SharedSource
from tasks._branch import Branch, working_for

Made = TypeVar("Made")


def in_branches(
    names: Sequence[str],
    work: Callable[[int], Made],
    source: SharedSource | None = None,
    *,
    at_once: int = 0,
) -> list[Outcome[Made]]:
    """Call ``work`` with the number of each branch and return how each ended.

    All go at once, or no more than ``at_once``. ``names`` are the targets. The tasks that ``work``
    calls find their branch by `current_branch`. Each branch has one of the readers of ``source``;
    when it ends, however it does, it keeps no other waiting. When this thread is told to end, the
    branches end first.
    """

    def branch(number: int, ending: Cancelled) -> Made:
        reader = None if source is None else source.readers[number]
        with working_for(Branch(names[number], ending, reader)):
            try:
                return work(number)
            finally:
                if reader is not None:
                    reader.leave()

    return side_by_side(names, branch, at_once=at_once)
