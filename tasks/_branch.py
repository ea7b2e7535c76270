"""Several targets in one run: what the work for one of them shares with the others.

A run for one target has none of it. Tasks look here instead of taking parameters, which Prefect
would store and make keys of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from imageport.cloud import Cancelled, never
from imageport.errors import TransferCancelled
from imageport.workflow.shared_source import SourceReader


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several targets that a run brings an image to at once."""

    name: str = ""
    """Tells its reports from those of the others; empty in a run for one target."""
    ended: Cancelled = never
    """True once the run ends before its branches did."""
    source: SourceReader | None = None
    """The image, opened and read once for all branches."""

    def check_wanted(self, what: str) -> None:
        """Raise `TransferCancelled` once the run ends: what its branches did not begin, they leave.

        A run for one target is interrupted where it is; its branches have threads of their own.
        """
        if self.ended():
            raise TransferCancelled(f"Cannot {what}: the run was ended.")

    def leave_source(self) -> None:
        """Let no other branch wait for this one to read; may be called twice."""
        if self.source is not None:
            self.source.leave()


_current: ContextVar[Branch | None] = ContextVar("branch", default=None)
_ALONE = Branch()


def current_branch() -> Branch:
    """Return what the calling task works for."""
    return _current.get() or _ALONE


@contextmanager
def working_for(branch: Branch) -> Iterator[None]:
    """Let all tasks that are called within work for ``branch``."""
    token = _current.set(branch)
    try:
        yield
    finally:
        _current.reset(token)
