"""How many puts are in flight and how fast they start: up slowly, down at once (AIMD).

Nobody tells us the limits: they differ by account, region and what else runs. The target declares
where to start and what it never bears; its refusals do the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from imageport.transfer.block_target import TargetTraits
from imageport.transfer.retrying import Stop

CUT = 0.65
"""What one refusal leaves; azcopy's pacer uses the same factor."""
DEAD_BAND_SECONDS = 1.0
"""Refusals of requests that were in flight together count once."""
GROWTH_PER_SECOND = 0.10
"""The rate grows by a tenth a second after a cut."""
LEAST_PER_SECOND = 2.0
BURST_SECONDS = 0.1
"""How much of an unused rate may be made up for at once."""


class Pacer:
    """Lets puts start; shared by all workers of a transfer."""

    def __init__(
        self, traits: TargetTraits, stop: Stop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = float(max(1, traits.initial_in_flight))
        """Puts that may be in flight."""
        self.rate = traits.max_requests_per_second
        """Starts per second; 0 = no limit known."""
        self.in_flight = 0
        self.cuts = 0
        self._max_limit = float(max(self.limit, traits.max_in_flight))
        self._max_rate = traits.max_requests_per_second
        self._stop = stop
        self._clock = clock
        self._changed = threading.Condition()
        self._tokens = 1.0
        self._refilled = clock()
        self._last_cut = float("-inf")
        self._window_start = clock()
        self._window_done = 0
        self._done_per_second = 0.0

    def enter(self) -> None:
        """Wait until one more put may start; returns early when the transfer ends."""
        with self._changed:
            while not self._stop.is_set():
                if self.in_flight < int(self.limit):
                    wait = self._seconds_to_token()
                    if wait <= 0:
                        break
                else:
                    wait = 0.2
                self._changed.wait(wait)
            self._tokens -= 1
            self.in_flight += 1

    def leave(self, *, throttled: bool, succeeded: bool) -> None:
        """Say how a put that entered ended."""
        with self._changed:
            self.in_flight -= 1
            if throttled:
                self._cut()
            elif succeeded:
                self._grow()
            self._changed.notify_all()

    def _cut(self) -> None:
        now = self._clock()
        if now - self._last_cut < DEAD_BAND_SECONDS:
            return
        self._last_cut = now
        self.cuts += 1
        self.limit = max(1.0, self.limit * CUT)
        self._measure(now)
        known = [rate for rate in (self.rate, self._done_per_second) if rate > 0]
        # Without a measurement the first cut sets a rate that the next ones correct.
        self.rate = max(LEAST_PER_SECOND, CUT * min(known, default=self.limit * 10))
        self._tokens = min(self._tokens, 1.0)

    def _grow(self) -> None:
        now = self._clock()
        self._window_done += 1
        self._measure(now)
        # Doubling per round until the first refusal, then one more per round.
        step = 0.5 if self.cuts == 0 else 1.0 / self.limit
        self.limit = min(self._max_limit, self.limit + step)

    def _measure(self, now: float) -> None:
        span = now - self._window_start
        if span < DEAD_BAND_SECONDS:
            return
        self._done_per_second = self._window_done / span
        self._window_start, self._window_done = now, 0

    def _seconds_to_token(self) -> float:
        if self.rate <= 0:
            return 0.0
        now = self._clock()
        passed = now - self._refilled
        self._refilled = now
        if self.cuts:
            self.rate += self.rate * GROWTH_PER_SECOND * passed
            if self._max_rate:
                self.rate = min(self.rate, self._max_rate)
        most = 1.0 + self.rate * BURST_SECONDS
        self._tokens = min(most, self._tokens + passed * self.rate)
        return (1.0 - self._tokens) / self.rate if self._tokens < 1.0 else 0.0
