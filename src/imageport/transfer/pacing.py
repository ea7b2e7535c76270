"""How many puts are in flight, how large and how fast: up slowly, down at once (AIMD).

Nobody tells us the limits: they differ by account, region and what else runs. The target declares
where to start and what it never bears; its refusals and the time that puts take do the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from imageport.model import BLOCK_BYTES
from imageport.transfer import link_speed
from imageport.transfer.block_target import TargetTraits
from imageport.transfer.retrying import Stop

CUT = 0.65
"""What one refusal leaves; azcopy's pacer uses the same factor."""
DEAD_BAND_SECONDS = 1.0
"""Refusals of requests that were in flight together count once."""
GROWTH_PER_SECOND = 0.10
"""The rate grows by a tenth a second after a cut."""
LEAST_BLOCKS_PER_SECOND = 2.0
BURST_SECONDS = 0.1
"""How much of an unused rate may be made up for at once."""
GROW_RUN_AFTER = 4
"""Puts in a row that a run of twice the size must be predicted to bear before it is tried."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Leave to start one request."""

    blocks: int
    """Most blocks to put; fewer than were asked for when puts of that size take too long."""
    waited_seconds: float
    started: float
    shared: float
    """Puts in flight, summed over time, until the start."""


class Bucket:
    """A rate: a start may overdraw it, the next one then waits."""

    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        """0 = no limit."""
        self._level = 0.0
        self._filled = now

    def seconds_to_start(self, now: float) -> float:
        """Return how long the next start has to wait."""
        if self.per_second <= 0:
            return 0.0
        self._level += (now - self._filled) * self.per_second
        self._level = min(self._level, self.per_second * BURST_SECONDS)
        self._filled = now
        return max(0.0, -self._level / self.per_second)

    def take(self, amount: float) -> None:
        """Count one start."""
        if self.per_second > 0:
            self._level -= amount

    def set_rate(self, per_second: float, now: float) -> None:
        """Go on at another rate; nothing unused is made up for."""
        self.seconds_to_start(now)
        self.per_second = per_second
        self._level = min(self._level, 0.0)
        self._filled = now


class Pacer:
    """Lets puts start; shared by all workers of a transfer."""

    def __init__(
        self, traits: TargetTraits, stop: Stop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = float(max(1, traits.initial_in_flight))
        """Puts that may be in flight."""
        self.run_blocks = max(1, traits.put_blocks)
        """Most blocks of one put."""
        self.in_flight = 0
        self.cuts = 0
        self._most_blocks = self.run_blocks
        self._max_limit = float(max(self.limit, traits.max_in_flight))
        self._max_rate = traits.max_requests_per_second
        self._stop = stop
        self._clock = clock
        self._changed = threading.Condition()
        now = clock()
        self._requests = Bucket(traits.max_requests_per_second, now)
        self._bytes = Bucket(traits.max_bytes_per_second, now)
        self._grown = now
        self._link = link_speed.LinkSpeed()
        self._shared = 0.0
        self._shared_until = now
        self._bearing = 0
        self._last_cut = float("-inf")
        self._window_start = now
        self._window_done = 0
        self._done_per_second = 0.0

    @property
    def rate(self) -> float:
        """Return the starts per second; 0 = no limit known."""
        return self._requests.per_second

    def enter(self, blocks: int = 1) -> Turn:
        """Wait until one more request may start; returns early when the transfer ends.

        ``blocks`` is what the caller would put; 0 for a request that sends none.
        """
        entered = self._clock()
        with self._changed:
            while not self._stop.is_set() and (wait := self.seconds_to_wait()) > 0:
                self._changed.wait(wait)
            now = self._clock()
            self._share(now)
            allowed = min(blocks, self.run_blocks)
            self._requests.take(1)
            self._bytes.take(allowed * BLOCK_BYTES)
            self.in_flight += 1
            return Turn(allowed, now - entered, now, self._shared)

    def leave(self, turn: Turn, *, throttled: bool, succeeded: bool) -> None:
        """Say how a request that entered ended."""
        with self._changed:
            now = self._clock()
            self._share(now)
            self.in_flight -= 1
            self._learn(turn, now, succeeded=succeeded)
            if throttled:
                self._cut(now)
            elif succeeded:
                self._grow(now)
            self._fit_link()
            self._changed.notify_all()

    def seconds_to_wait(self) -> float:
        """Return how long a start has to wait as things are now; 0 = not at all."""
        if self.in_flight >= int(self.limit):
            return 0.2
        now = self._clock()
        self._grow_rate(now)
        return max(self._requests.seconds_to_start(now), self._bytes.seconds_to_start(now))

    def _learn(self, turn: Turn, now: float, *, succeeded: bool) -> None:
        seconds = now - turn.started
        if turn.blocks == 0 or seconds <= 0:
            return
        crowd = (self._shared - turn.shared) / seconds
        learn = self._link.succeeded if succeeded else self._link.failed
        learn(turn.blocks * BLOCK_BYTES, crowd, turn.started, now)

    def _fit_link(self) -> None:
        """Keep the predicted time of a put bearable: first by fewer puts, then by smaller ones."""
        slow = link_speed.SLOW_SECONDS
        while self.run_blocks > 1 and self._seconds_alone(self.run_blocks) > slow:
            self.run_blocks //= 2
            self._bearing = 0
        if alone := self._seconds_alone(self.run_blocks):
            self.limit = max(1.0, min(self.limit, slow / alone))

    def _seconds_alone(self, blocks: int) -> float:
        return self._link.seconds_alone(blocks * BLOCK_BYTES)

    def _cut(self, now: float) -> None:
        self._bearing = 0
        if now - self._last_cut < DEAD_BAND_SECONDS:
            return
        self._last_cut = now
        self.cuts += 1
        self.limit = max(1.0, self.limit * CUT)
        self._measure(now)
        known = [rate for rate in (self.rate, self._done_per_second) if rate > 0]
        # Without a measurement the first cut sets a rate that the next ones correct.
        rate = CUT * min(known, default=self.limit * 10)
        self._requests.set_rate(max(LEAST_BLOCKS_PER_SECOND / self.run_blocks, rate), now)
        self._grown = now

    def _grow(self, now: float) -> None:
        self._window_done += 1
        self._measure(now)
        # Doubling per round until the first refusal, then one more per round.
        step = 0.5 if self.cuts == 0 else 1.0 / self.limit
        self.limit = min(self._max_limit, self.limit + step)
        doubled = min(self._most_blocks, self.run_blocks * 2)
        if doubled == self.run_blocks:
            return
        bearable = self._seconds_alone(doubled) <= link_speed.SLOW_SECONDS / 2
        self._bearing = self._bearing + 1 if bearable else 0
        if self._bearing >= GROW_RUN_AFTER:
            self.run_blocks, self._bearing = doubled, 0

    def _grow_rate(self, now: float) -> None:
        passed, self._grown = now - self._grown, now
        if self.cuts and self.rate > 0:
            grown = self.rate * (1 + GROWTH_PER_SECOND * passed)
            self._requests.per_second = min(grown, self._max_rate) if self._max_rate else grown

    def _measure(self, now: float) -> None:
        span = now - self._window_start
        if span < DEAD_BAND_SECONDS:
            return
        self._done_per_second = self._window_done / span
        self._window_start, self._window_done = now, 0

    def _share(self, now: float) -> None:
        self._shared += self.in_flight * (now - self._shared_until)
        self._shared_until = now
