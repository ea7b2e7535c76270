# References: Cloud Storage, "Composite objects"; JSON API, "Objects: compose" (preconditions).
"""Joining any number of objects by joins of at most 32, every one checked by its CRC32C.

What each join gives is predicted, and its name says so: what a killed call left behind is taken if
it is that, and anything else never stands in the way. A wrong byte is found at the join that
brought it in, not in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from imageport.clouds.gcp.checksum_combination import crc32c_of_parts
from imageport.clouds.waiting import retried
from imageport.errors import VerificationFailed

MOST_SOURCES: Final = 32
"""Of one compose request."""
THREADS: Final = 32
"""A join takes some tenths of a second in the store and nothing here: 2,000 of them, for 30 GiB of
data, take half a minute."""


class Part(NamedTuple):
    """An object that is joined, and what is known of it."""

    key: str
    size_bytes: int
    crc32c: int
    generation: int = 0
    """Which version of it; 0 takes whatever is there, to be found wrong afterwards."""


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


class _Join(NamedTuple):
    result: Part
    """What it gives, as far as that is known beforehand."""
    parts: tuple[Part, ...]


class ComposeTree:
    """The joins that make one object of ``parts``, from the leaves to the whole.

    Args:
        parts: In order; one may occur several times.
        key: Of the whole.
        folder: What the keys of all that lies between parts and whole start with; whoever asks for
            the whole deletes it.
    """

    def __init__(self, parts: Sequence[Part], key: str, folder: str) -> None:
        if not parts:
            raise ValueError("Bad join: found no part, needed one.")
        self._levels: list[list[_Join]] = []
        while not self._levels or len(parts) > 1:
            groups = list(_groups(parts))
            between = f"{folder}{len(self._levels)}-" if len(groups) > 1 else ""
            joins = [_join(group, number, key, between) for number, group in enumerate(groups)]
            self._levels.append(joins)
            parts = [join.result for join in joins]
        self.whole: Part = parts[0]
        """What all joins together give, as far as that is known beforehand."""

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
        made: dict[str, Part] = {}

        def make(join: _Join) -> Part:
            pulse()
            parts = [made.get(part.key, part) for part in join.parts]
            wanted = join.result
            before = there.get(wanted.key, wanted).generation
            return _checked(retried(lambda: composer.compose(wanted.key, parts, before)), wanted)

        with ThreadPoolExecutor(THREADS, thread_name_prefix="gcs-join") as pool:
            for level in self._missing(there, made):
                try:
                    made.update((part.key, part) for part in pool.map(make, level))
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        return made[self.whole.key]

    def _missing(self, there: Mapping[str, Part], made: dict[str, Part]) -> list[list[_Join]]:
        """Return the joins that have to be made, leaves first; note in ``made`` what is there.

        What stands below a join that is there is not looked for.
        """
        needed, missing = {self.whole.key}, []
        for level in reversed(self._levels):
            to_make = []
            for join in level:
                wanted = join.result
                found = there.get(wanted.key) if wanted.key in needed else None
                if found is not None and _differs(found, wanted) is None:
                    made[wanted.key] = found
                elif wanted.key in needed:
                    to_make.append(join)
            needed = {part.key for join in to_make for part in join.parts}
            missing.append(to_make)
        return missing[::-1]


def _groups(parts: Sequence[Part]) -> Iterator[tuple[Part, ...]]:
    """Cut into as few groups as a request allows, of as many parts each as the others."""
    count = -(-len(parts) // MOST_SOURCES)
    ends = [len(parts) * number // count for number in range(count + 1)]
    return (tuple(parts[start:end]) for start, end in pairwise(ends))


def _join(parts: tuple[Part, ...], number: int, key: str, between: str) -> _Join:
    """Return the join of one group; ``between`` is empty where it gives the whole."""
    crc32c = crc32c_of_parts((part.crc32c, part.size_bytes) for part in parts)
    name = f"{between}{number:05}-{crc32c:08x}" if between else key
    return _Join(Part(name, sum(part.size_bytes for part in parts), crc32c), parts)


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
