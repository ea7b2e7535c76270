# References: Cloud Storage, "Composite objects"; JSON API, "Objects: compose" (preconditions).
"""Joining any number of objects by joins of at most 32, every one checked by its CRC32C.

What each join gives is predicted, and its name says so: what a killed call left behind is taken if
it is that, and anything else never stands in the way. A wrong byte is found at the join that
brought it in, not in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, Protocol

from imageport.clouds.gcp.checksum_combination import crc32c_of_parts
from imageport.clouds.waiting import retried
from imageport.errors import VerificationFailed

MOST_SOURCES: Final = 32
"""Of one compose request."""
THREADS: Final = 32
"""A join takes some tenths of a second in the store and nothing here: 2,000 of them, for 30 GiB of
data, take half a minute."""
QUEUED: Final = 8 * THREADS
"""Joins that wait their turn at once: of 256 GiB there are 16,000."""


class Part(NamedTuple):
    """An object that is joined, and what is known of it."""

    key: str
    size_bytes: int
    crc32c: int
    generation: int = 0
    """Which version of it; 0 takes whatever is there, to be found wrong afterwards."""


class Parts(Protocol):
    """Parts in order, as a list or as what makes each when it is asked for."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, place: int, /) -> Part:
        """Return one."""


class Composer(Protocol):
    """The store that joins; called from several threads."""

    def compose(self, key: str, parts: Sequence[Part], generation: int) -> Part:
        """Join ``parts`` into ``key``, over what is there at ``generation``; 0 means nothing is.

        An object that is there already at another generation is returned as it is: somebody else,
        or a call whose answer was lost, made it.

        Raises:
            ResourceGone: one of the parts is not there (any more).
            CloudError: as the store answers; retryable ones are tried again here.
        """


class ComposeTree:
    """The joins that make one object of ``parts``, from the leaves to the whole.

    Args:
        parts: In order; one may occur several times. Asked for one by one when a join is planned
            and again when it is made, so that what makes them up as it goes takes no memory here.
        key: Of the whole.
        folder: What the keys of all that lies between parts and whole start with; whoever asks for
            the whole deletes it.
    """

    def __init__(self, parts: Parts, key: str, folder: str) -> None:
        if not len(parts):
            raise ValueError("Bad join: found no part, needed one.")
        self._parts = parts
        self._levels: list[list[Part]] = []
        """What the joins of each level give: as far as that is known beforehand, then as told."""
        while not self._levels or len(self._levels[-1]) > 1:
            number = len(self._levels)
            count = -(-len(self._below(number)) // MOST_SOURCES)
            between = f"{folder}{number}-" if count > 1 else ""
            self._levels.append([])
            for place in range(count):
                self._levels[number].append(
                    _result(self._sources(number, place, count), place, key, between)
                )

    @property
    def whole(self) -> Part:
        """Return what all joins together give, as far as that is known."""
        return self._levels[-1][0]

    @property
    def joins(self) -> int:
        """Return the number of requests that it takes."""
        return sum(len(level) for level in self._levels)

    def carry_out(
        self,
        composer: Composer,
        there: Mapping[str, Part],
        *,
        pulse: Callable[[], None] = lambda: None,
    ) -> Part:
        """Make the whole and return it, as the store tells it.

        Args:
            composer: Joins.
            there: What lies in the folder and under the key of the whole, by its key: an earlier,
                killed call's.
            pulse: Runs at every join.

        Raises:
            VerificationFailed: a join gave other bytes than its parts' checksums say.
            ResourceGone: a part is gone.
            CloudError: as the store answers.
        """

        def make(level: int, place: int) -> None:
            pulse()
            results = self._levels[level]
            wanted, parts = results[place], self._sources(level, place, len(results))
            before = there.get(wanted.key, wanted).generation
            found = retried(lambda: composer.compose(wanted.key, parts, before))
            results[place] = _checked(found, wanted)

        with ThreadPoolExecutor(THREADS, thread_name_prefix="gcs-join") as pool:
            for level, places in enumerate(self._missing(there)):
                for start in range(0, len(places), QUEUED):
                    some = places[start : start + QUEUED]
                    try:
                        for _done in pool.map(partial(make, level), some):
                            pass
                    except BaseException:
                        pool.shutdown(wait=True, cancel_futures=True)
                        raise
        return self.whole

    def _missing(self, there: Mapping[str, Part]) -> list[list[int]]:
        """Return the places in each level of the joins to be made, and take what is there.

        What stands below a join that is there is not looked for.
        """
        missing: list[list[int]] = [[] for _level in self._levels]
        needed = [0]
        for level in reversed(range(len(self._levels))):
            results = self._levels[level]
            for place in needed:
                found = there.get(results[place].key)
                if found is not None and _differs(found, results[place]) is None:
                    results[place] = found
                else:
                    missing[level].append(place)
            if level:
                below, count = len(self._levels[level - 1]), len(results)
                needed = [at for place in missing[level] for at in _span(below, place, count)]
        return missing

    def _below(self, level: int) -> Parts:
        """Return what the joins of a level join."""
        return self._levels[level - 1] if level else self._parts

    def _sources(self, level: int, place: int, count: int) -> tuple[Part, ...]:
        """Return the parts of one of the ``count`` joins of a level."""
        below = self._below(level)
        return tuple(below[at] for at in _span(len(below), place, count))


def _span(parts: int, place: int, count: int) -> range:
    """Return which of the parts one of ``count`` joins takes: as many as any other."""
    return range(parts * place // count, parts * (place + 1) // count)


def _result(parts: Sequence[Part], place: int, key: str, between: str) -> Part:
    """Return what a join gives; ``between`` is empty where it gives the whole."""
    crc32c = crc32c_of_parts((part.crc32c, part.size_bytes) for part in parts)
    name = f"{between}{place:05}-{crc32c:08x}" if between else key
    return Part(name, sum(part.size_bytes for part in parts), crc32c)


def _checked(found: Part, wanted: Part) -> Part:
    difference = _differs(found, wanted)
    if difference is not None:
        raise VerificationFailed(
            f"Bad object '{wanted.key}': found {difference}.",
            hint="Start again: it is joined anew. If it happens again, ask who else writes to "
            "this bucket.",
        )
    return found


def _differs(found: Part, wanted: Part) -> str | None:
    if found.size_bytes != wanted.size_bytes:
        return f"{found.size_bytes} bytes, needed {wanted.size_bytes} by its parts"
    if found.crc32c != wanted.crc32c:
        return f"CRC32C {found.crc32c:08x}, needed {wanted.crc32c:08x} by its parts"
    return None
