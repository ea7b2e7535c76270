"""What every stage works with: whose run this is, where its state lies, which cloud it targets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imageport.cloud import Cancelled, Cloud, never
from imageport.errors import ImageportError, LeaseLost
from imageport.progress import EventSink, silent
from imageport.state.leases import Lease
from imageport.state.store import StateStore

LEASE_SECONDS = 60.0
"""A killed worker's lease runs out before its run is started again (automation: 45 s + start)."""


@dataclass(frozen=True, slots=True)
class SitePlace:
    """One run at one site, and what its images are kept for.

    ``target`` names cloud, region and target site (``aws/eu-central-1/frankfurt``): generations
    of an image are kept per target. What is exported is kept for the site alone.
    """

    site: str
    target: str
    run: str
    state: StateStore
    events: EventSink = field(default=silent, kw_only=True)
    cancelled: Cancelled = field(default=never, kw_only=True)

    @contextmanager
    def holding(self, image: str) -> Iterator[Lease]:
        """Hold the lease of an image at this target; `LeaseHeld` when another run has it."""
        with self.state.lease(f"{image}@{self.target}", self.run, LEASE_SECONDS) as lease:
            yield lease

    def asked_under(self, lease: Lease) -> Cancelled:
        """Return what a long step asks: raises `LeaseLost` when another run took over."""

        def cancelled() -> bool:
            lease.check()
            return self.cancelled()

        return cancelled


@dataclass(frozen=True, slots=True)
class Workplace(SitePlace):
    """One run for one target cloud."""

    cloud: Cloud


def may_go_on(error: BaseException) -> bool:
    """Tell whether what is half made must stay: for another try, or for the run that took over.

    After everything else, a termination signal among it, nothing half-made outlives its run.
    """
    return isinstance(error, LeaseLost) or (isinstance(error, ImageportError) and error.retryable)
