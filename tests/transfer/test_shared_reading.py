"""One reading for several: each gets what it asked for, nobody waits for ever, all is read once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_source import CountedSource

from imageport.errors import ShareUnreachable, SourceChanged, TransferCancelled
from imageport.model import BLOCK_BYTES
from imageport.transfer.shared_reading import SharedReading, SharedView

B = BLOCK_BYTES
PATIENCE_SECONDS = 20.0
"""So long no test of this file takes unless somebody waits for ever."""
Range = tuple[int, int]


def all_of(source: CountedSource) -> list[Range]:
    return [(0, source.size_bytes)]


def blocks_of(source: CountedSource, wanted: Callable[[int], bool]) -> list[Range]:
    return [(index * B, B) for index in range(source.blocks) if wanted(index)]


class Reader(threading.Thread):
    """Reads ranges through a view and compares every byte; ``pause`` is called per piece."""

    def __init__(
        self,
        source: CountedSource,
        view: SharedView,
        ranges: Iterable[Range],
        pause: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        super().__init__(daemon=True)
        self.view = view
        self.error: BaseException | None = None
        self.notes: list[str] = []
        self.cancelled = False
        self.covered: list[Range] = []
        self._source = source
        self._ranges = ranges
        self._pause = pause

    def run(self) -> None:
        try:
            with self.view.in_use(self._poll, self.notes.append):
                for offset, data in self.view.read_many(self._ranges):
                    assert data == self._source.content(offset, len(data)), offset
                    if self.covered and sum(self.covered[-1]) == offset:
                        first, length = self.covered.pop()
                        self.covered.append((first, length + len(data)))
                    else:
                        self.covered.append((offset, len(data)))
                    self._pause(offset)
        except BaseException as error:
            self.error = error

    def _poll(self) -> None:
        if self.cancelled:
            raise TransferCancelled("Cannot go on: it was cancelled.")


def finished(*readers: Reader) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for reader in readers:
        reader.join(max(0.0, deadline - time.monotonic()))
        assert not reader.is_alive(), "somebody waits for ever"


def start(*readers: Reader) -> None:
    for reader in readers:
        reader.start()


def joined(ranges: Iterable[Range]) -> list[Range]:
    found: list[Range] = []
    for offset, length in ranges:
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))
    return found


# --- how little is read -------------------------------------------------------------------------


@pytest.mark.parametrize("window_blocks", [1, 4, 64, 1000])
def test_three_that_want_all_of_it_read_it_once(window_blocks: int) -> None:
    source = CountedSource(200)
    with SharedReading(source, 3, window_bytes=window_blocks * B) as reading:
        readers = [Reader(source, view, all_of(source)) for view in reading.views]
        start(*readers)
        finished(*readers)
    assert [(one.error, one.covered) for one in readers] == [(None, all_of(source))] * 3
    assert source.bytes_read == reading.bytes_read == source.size_bytes
    assert [view.bytes_read_alone for view in reading.views] == [0, 0, 0]


def test_what_only_some_want_is_read_once_and_what_nobody_wants_never() -> None:
    source = CountedSource(120)
    with SharedReading(source, 3, window_bytes=8 * B) as reading:
        parts: list[Callable[[int], bool]] = [
            lambda n: n % 2 == 0,
            lambda n: n % 3 == 0,
            lambda n: n > 90 and n % 5 == 0,
        ]
        readers = [
            Reader(source, view, blocks_of(source, part))
            for view, part in zip(reading.views, parts, strict=True)
        ]
        start(*readers)
        finished(*readers)
    wanted = {n for n in range(120) if any(part(n) for part in parts)}
    assert source.reads == dict.fromkeys(wanted, 1)


def test_one_that_starts_late_finds_what_the_others_were_given() -> None:
    source = CountedSource(40)
    with SharedReading(source, 2, window_bytes=16 * B) as reading:
        first = Reader(source, reading.views[0], all_of(source))
        start(first)
        first.join(0.5)
        assert first.is_alive()  # a window ahead of one that has not begun
        late = Reader(source, reading.views[1], all_of(source))
        start(late)
        finished(first, late)
    assert (first.error, late.error, source.bytes_read) == (None, None, source.size_bytes)


def test_nobody_waits_for_one_that_left_before_it_began() -> None:
    source = CountedSource(60)
    with SharedReading(source, 2, window_bytes=8 * B) as reading:
        reading.views[1].close()
        reader = Reader(source, reading.views[0], all_of(source))
        start(reader)
        finished(reader)
    assert reader.error is None
    assert source.bytes_read == source.size_bytes


def test_a_second_round_reads_by_itself() -> None:
    source = CountedSource(20)
    with SharedReading(source, 1) as reading:
        view = reading.views[0]
        for _round in range(2):
            assert sum(len(data) for _, data in view.read_many(all_of(source))) == 20 * B
    assert view.bytes_read_alone == 20 * B
    assert reading.bytes_read == source.bytes_read == 40 * B


# --- who is slow, fails or stops ----------------------------------------------------------------


def test_one_that_stops_moving_is_let_go_and_reads_the_rest_by_itself() -> None:
    source = CountedSource(100)
    go_on = threading.Event()
    with SharedReading(source, 3, window_bytes=8 * B, hold_seconds=0.5) as reading:
        quick = [Reader(source, view, all_of(source)) for view in reading.views[:2]]
        stuck = Reader(
            source, reading.views[2], all_of(source),
            lambda offset: None if offset < 20 * B else stuck_until(go_on),
        )  # fmt: skip
        start(*quick, stuck)
        finished(*quick)
        go_on.set()
        finished(stuck)
    assert [one.error for one in (*quick, stuck)] == [None] * 3
    assert stuck.covered == all_of(source)
    assert [len(one.notes) for one in (*quick, stuck)] == [0, 0, 1]
    assert "reads by itself" in stuck.notes[0]
    assert 70 * B <= reading.views[2].bytes_read_alone <= 80 * B


def stuck_until(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


def test_one_that_is_slow_and_moves_is_waited_for() -> None:
    source = CountedSource(60)
    with SharedReading(source, 2, window_bytes=8 * B, hold_seconds=0.5) as reading:
        quick = Reader(source, reading.views[0], all_of(source))
        slow = Reader(source, reading.views[1], all_of(source), lambda _: time.sleep(0.02))
        start(quick, slow)
        finished(quick, slow)
    assert (quick.error, slow.error, slow.notes) == (None, None, [])
    assert source.bytes_read == source.size_bytes


def test_one_that_never_begins_is_let_go() -> None:
    source = CountedSource(60)
    with SharedReading(source, 2, window_bytes=8 * B, hold_seconds=0.3) as reading:
        reader = Reader(source, reading.views[0], all_of(source))
        start(reader)
        finished(reader)
        late = Reader(source, reading.views[1], all_of(source))
        start(late)
        finished(late)
    assert (reader.error, late.error) == (None, None)
    assert reading.views[1].bytes_read_alone == source.size_bytes


def test_one_that_waits_for_another_can_be_cancelled() -> None:
    source = CountedSource(60)
    with SharedReading(source, 2, window_bytes=8 * B) as reading:
        waiting = Reader(source, reading.views[0], all_of(source))
        start(waiting)
        waiting.join(0.4)
        assert waiting.is_alive()
        waiting.cancelled = True
        finished(waiting)
    assert isinstance(waiting.error, TransferCancelled)


def test_one_that_fails_holds_nobody_up() -> None:
    source = CountedSource(100)

    def fail(offset: int) -> None:
        if offset > 30 * B:
            raise RuntimeError("the target failed")

    with SharedReading(source, 2, window_bytes=8 * B) as reading:
        failing = Reader(source, reading.views[0], all_of(source), fail)
        other = Reader(source, reading.views[1], all_of(source))
        start(failing, other)
        finished(failing, other)
    assert isinstance(failing.error, RuntimeError)
    assert (other.error, other.covered) == (None, all_of(source))
    assert source.bytes_read == source.size_bytes


def test_ranges_that_raise_end_their_own_view_alone() -> None:
    source = CountedSource(100)

    def broken() -> Iterator[Range]:
        yield 0, 40 * B
        raise TransferCancelled("Cannot go on: it was cancelled.")

    with SharedReading(source, 2, window_bytes=8 * B) as reading:
        ended = Reader(source, reading.views[0], broken())
        other = Reader(source, reading.views[1], all_of(source))
        start(ended, other)
        finished(ended, other)
    assert isinstance(ended.error, TransferCancelled)
    assert (other.error, other.covered) == (None, all_of(source))


def test_a_source_that_fails_is_told_to_all_and_each_may_try_again_by_itself() -> None:
    source = CountedSource(100)

    def gone(offset: int) -> None:
        if offset >= 50 * B:
            raise ShareUnreachable("Cannot read 'counted': the server is gone.", server="s")

    source.before_piece = gone
    with SharedReading(source, 2, window_bytes=8 * B) as reading:
        readers = [Reader(source, view, all_of(source)) for view in reading.views]
        start(*readers)
        finished(*readers)
        errors = [one.error for one in readers]
        assert [type(error) for error in errors] == [ShareUnreachable] * 2
        assert errors[0] is not errors[1]  # each has a traceback of its own
        assert all(isinstance(e, ShareUnreachable) and e.fields["server"] == "s" for e in errors)
        source.before_piece = lambda _offset: None
        again = [Reader(source, view, all_of(source)) for view in reading.views]
        start(*again)
        finished(*again)
        assert [one.covered for one in again] == [all_of(source)] * 2


def test_a_source_that_fails_keeps_nothing_for_who_has_not_begun() -> None:
    source = CountedSource(20)

    def gone(offset: int) -> None:
        if offset >= 10 * B:
            raise ShareUnreachable("Cannot read 'counted': the server is gone.")

    source.before_piece = gone
    with SharedReading(source, 2) as reading:
        reader = Reader(source, reading.views[0], all_of(source))
        start(reader)
        finished(reader)
        assert isinstance(reader.error, ShareUnreachable)
        assert reading._window.blocks == 0


def test_a_reading_that_is_closed_leaves_views_that_read_by_themselves() -> None:
    source = CountedSource(30)
    reading = SharedReading(source, 1)
    reading.close()
    assert sum(len(data) for _, data in reading.views[0].read_many(all_of(source))) == 30 * B


# --- what else a view is ------------------------------------------------------------------------


def test_a_view_is_the_source_in_everything_else() -> None:
    source = CountedSource(3)
    with SharedReading(source, 1) as reading, reading.views[0] as view:
        assert view.read_at(B - 10, 20) == source.content(B - 10, 20)
        assert list(view.extents()) == list(source.extents())
        assert view.content_key() == source.content_key()
        assert (view.location, view.size_bytes, view.sector_bytes) == ("counted", 3 * B, 512)


def test_those_who_ask_at_once_whether_the_source_is_unchanged_cost_one_question() -> None:
    source = CountedSource(3, seconds_per_piece=0.3)
    with SharedReading(source, 4) as reading:
        threads = [threading.Thread(target=view.check_unchanged) for view in reading.views]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The first is asked for one; the second, begun after all had asked, for the others.
        assert source.checks == 2
        reading.views[0].check_unchanged()
        assert source.checks == 3
        source.changed = True
        for view in reading.views:
            with pytest.raises(SourceChanged):
                view.check_unchanged()
        assert source.checks == 4


# --- whatever the order -------------------------------------------------------------------------


def some_ranges(dice: random.Random, source: CountedSource) -> list[Range]:
    """Ascending, apart; whole blocks, parts of blocks, long runs."""
    found, offset = list[Range](), 0
    while offset < source.size_bytes:
        step = dice.choice([512, 4096, B // 2, B, 3 * B, 9 * B]) * dice.randint(1, 3)
        step = min(step, source.size_bytes - offset)
        if dice.random() < 0.6:
            found.append((offset, step))
        offset += step
        if dice.random() < 0.7:
            offset = min(source.size_bytes, -(-offset // B) * B)
    return found


def some_pause(dice: random.Random) -> Callable[[int], None]:
    kind, number = dice.choice(["quick", "slow", "dies", "halts"]), dice.randint(1, 30)
    left = iter(range(number))

    def pause(_offset: int) -> None:
        ended = next(left, None) is None
        if kind == "slow":
            time.sleep(0.001)
        elif kind == "dies" and ended:
            raise RuntimeError("died")
        elif kind == "halts" and ended:
            time.sleep(0.05)

    return pause


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 12), st.integers(0, 6))
def test_whatever_is_wanted_and_whoever_fails_all_end_with_what_they_asked_for(
    seed: int, views: int, window_blocks: int, ahead: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - schedules
    source = CountedSource(dice.randint(1, 60), ahead=ahead)
    hold = dice.choice([0.02, 60.0])
    with SharedReading(source, views, window_bytes=window_blocks * B, hold_seconds=hold) as reading:
        wanted = [some_ranges(dice, source) for _ in reading.views]
        readers = [
            Reader(source, view, ranges, some_pause(dice))
            for view, ranges in zip(reading.views, wanted, strict=True)
        ]
        for reader in dice.sample(readers, len(readers)):
            reader.start()
            if dice.random() < 0.3:
                time.sleep(0.01)
        finished(*readers)
    for reader, ranges in zip(readers, wanted, strict=True):
        if reader.error is None:
            assert reader.covered == joined(ranges)
        else:
            assert str(reader.error) == "died"
    assert reading.bytes_read == source.bytes_read


def slowly(pace: float, _offset: int) -> None:
    time.sleep(pace)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 12))
def test_blocks_wanted_whole_are_read_once_whatever_the_order(
    seed: int, views: int, window_blocks: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - schedules
    source = CountedSource(60)
    with SharedReading(source, views, window_bytes=window_blocks * B) as reading:
        chances = [dice.random() for _ in reading.views]
        wanted = [[n for n in range(60) if dice.random() < chance] for chance in chances]
        paces = [dice.choice([0, 0.001]) for _ in wanted]
        readers = [
            Reader(source, view, [(n * B, B) for n in some], partial(slowly, pace))
            for view, some, pace in zip(reading.views, wanted, paces, strict=True)
        ]
        start(*readers)
        finished(*readers)
    assert [reader.error for reader in readers] == [None] * views
    assert source.reads == dict.fromkeys({n for some in wanted for n in some}, 1)
