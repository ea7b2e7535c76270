"""Fan-out: one vDisk to several targets at once, read once.

Every target has its own upload, under its own lease and with its own journal, in a thread of its
own; what they share is the reading of the source. One that fails stops no other.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from imageport.citrix.vdisk_store import VdiskStore
from imageport.cloud import Cancelled
from imageport.errors import ImageportError, InputError
from imageport.model import GenerationRole, TransferStats
from imageport.state.records import Generation
from imageport.transfer.shared_reading import SharedView
from imageport.workflow.facts import SourceFacts
from imageport.workflow.place import Workplace
from imageport.workflow.shared_source import SharedSource
from imageport.workflow.upload import stats_of, upload_opened

Made = TypeVar("Made")
_QUERY = re.compile(r"\?[^\s'\"]*=[^\s'\"]*")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Made]):
    """How the work for one target ended: with what it made, or with an error."""

    target: str
    made: Made | None
    error: Exception | None
    seconds: float

    @property
    def words(self) -> str:
        """Return what went wrong, with the code to look it up by and what to do; or nothing.

        Errors that are not ours may quote a URL, and what gives access stands behind its "?".
        """
        if isinstance(self.error, ImageportError):
            hint = f" {self.error.hint}" if self.error.hint else ""
            return f"{self.error.message} [{self.error.code}]{hint}"
        said = _QUERY.sub("?…", str(self.error))
        return f"{type(self.error).__name__}: {said}" if self.error else ""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Generation U at one target, and what it took."""

    generation: Generation
    stats: TransferStats
    """Of this run; nothing where the target had this very content. What was read for others as
    well is in the figures of each."""
    bytes_read_alone: int
    """What was read of the source for this target only."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """What became of one vDisk at all targets, in the order in which they were given."""

    outcomes: tuple[Outcome[Uploaded], ...]
    bytes_read: int
    """Of the source, for all of them."""


def upload_to_many(
    places: Sequence[Workplace],
    store: VdiskStore,
    vdisk: str,
    *,
    source_key: str,
    accept_lock: bool = False,
    keep_parent: bool = True,
) -> FanOut:
    """Upload a vDisk to all targets at once, reading what several of them need once.

    Each target is as after `upload` for it alone: one that was killed goes on from its journal, one
    that has this content gets and reads nothing. When this thread is told to end, by a signal or
    otherwise, all uploads are cancelled and have ended when the exception goes on.

    Raises:
        InputError: there is no target, or one is given twice.
        SourceChanged: the vDisk is no longer the one that preflight saw.
    """
    _check_apart(places)
    opened_store = contextlib.nullcontext(store)  # the caller's, and stays open
    with SharedSource(lambda: opened_store, vdisk, len(places), accept_lock=accept_lock) as source:
        source.check_is(source_key)

        def work(number: int, ending: Cancelled) -> Uploaded:
            place, reader = _ended_by(places[number], ending), source.readers[number]
            try:
                with reader.opened() as (facts, view):
                    before = _ids_at(place, facts)
                    generation = upload_opened(
                        place, facts, view,
                        source_key=source_key, keep_parent=keep_parent, known_of=reader.known_of,
                    )  # fmt: skip
                return _outcome(generation, view, made_now=generation.id not in before)
            finally:
                reader.leave()

        outcomes = side_by_side([place.target for place in places], work)
        return FanOut(tuple(outcomes), source.bytes_read)


def side_by_side(
    targets: Sequence[str], work: Callable[[int, Cancelled], Made], *, at_once: int = 0
) -> list[Outcome[Made]]:
    """Call ``work`` with the number of each target and return how each ended.

    All go at once, or no more than ``at_once``. The second argument tells whether it is to end
    early, as when this thread was told to: then all have ended, or never begin, when the exception
    goes on. Threads see the context variables of this one.
    """
    ending = threading.Event()

    def timed(number: int) -> Outcome[Made]:
        started = time.monotonic()
        made, failed = None, None
        try:
            made = work(number, ending.is_set)
        except Exception as error:  # whatever it is: it is this target's outcome, and no other's
            failed = error
        return Outcome(targets[number], made, failed, time.monotonic() - started)

    threads = min(len(targets), at_once or len(targets)) or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="target") as pool:
        try:
            futures: list[Future[Outcome[Made]]] = [
                pool.submit(contextvars.copy_context().run, timed, number)
                for number in range(len(targets))
            ]
            return [future.result() for future in futures]
        except BaseException:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_apart(places: Sequence[Workplace]) -> None:
    counted = Counter(place.target for place in places)
    twice = sorted(target for target, count in counted.items() if count > 1)
    if not places or twice:
        found = f"{' and '.join(twice)} more than once" if twice else "none"
        raise InputError(f"Bad targets: found {found}, needed each once and at least one.")


def _ended_by(place: Workplace, ending: Cancelled) -> Workplace:
    return replace(place, cancelled=lambda: ending() or place.cancelled())


def _ids_at(place: Workplace, facts: SourceFacts) -> set[str]:
    listed = place.state.catalogue.list(
        image=facts.image, target=place.target, role=GenerationRole.UPLOADED
    )
    return {generation.id for generation in listed}


def _outcome(generation: Generation, view: SharedView, *, made_now: bool) -> Uploaded:
    stats = stats_of(generation) if made_now else TransferStats()
    return Uploaded(generation, stats, view.bytes_read_alone)
