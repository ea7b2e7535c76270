"""How long a put will take, told from how long the last ones took: for links that are slow.

A link is shared by the puts in flight, so a put of ``n`` bytes among ``k`` takes ``n * k`` times a
cost that is the link's own. Servers give up on a put that takes too long (page endpoints answer
500 OperationTimedOut), and sending the same again among as many never ends: azcopy's issues 701,
1219, 2788 and 2882 are of this kind.
"""

from __future__ import annotations

SLOW_SECONDS = 20.0
"""No put may be predicted to take longer: half a minute is the shortest server limit known."""
NEW_WEIGHT = 0.25
"""What one measurement counts against all before it."""
UNFINISHED_FACTOR = 4.0
"""How much longer than it was waited for a put is taken to need when none got through meanwhile."""


class LinkSpeed:
    """The cost of a byte in seconds, for one put alone; not for several threads at once."""

    def __init__(self) -> None:
        self.seconds_per_byte = 0.0
        """0 = nothing known yet."""
        self._last_success = float("-inf")

    def succeeded(self, size_bytes: int, crowd: float, started: float, now: float) -> None:
        """Learn from a put that shared the link with ``crowd`` puts, itself among them."""
        found = (now - started) / (size_bytes * crowd)
        if self._last_success == float("-inf"):
            self.seconds_per_byte = found
        else:
            self.seconds_per_byte += NEW_WEIGHT * (found - self.seconds_per_byte)
        self._last_success = now

    def failed(self, size_bytes: int, crowd: float, started: float, now: float) -> None:
        """Learn from a put that did not end in time.

        Only if it took long and no other got through meanwhile: what fails at once, or alone,
        says nothing about the link.
        """
        if now - started < SLOW_SECONDS or self._last_success >= started:
            return
        found = UNFINISHED_FACTOR * (now - started) / (size_bytes * crowd)
        self.seconds_per_byte = max(self.seconds_per_byte, found)

    def seconds_alone(self, size_bytes: int) -> float:
        """Return the predicted seconds of a put with the link to itself; 0 if nothing is known."""
        return size_bytes * self.seconds_per_byte
