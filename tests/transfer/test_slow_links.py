"""Thin links: fewer puts, then smaller ones, before a server gives up on them; and back again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_disk import DATA, SyntheticDisk

from imageport.model import BLOCK_BYTES, MIB
from imageport.storage.memory import MemoryFolder
from imageport.transfer import link_speed, pacing
from imageport.transfer.block_target import TargetTraits
from imageport.transfer.journal import Journal
from imageport.transfer.memory_target import Faults, MemoryTarget, Shelf
from imageport.transfer.pacing import Pacer, Turn
from imageport.transfer.pipeline import TransferRequest, VerifyLevel, transfer
from imageport.transfer.retrying import Stop

B = BLOCK_BYTES
STEP_SECONDS = 0.05
MBIT = 1_000_000 / 8


def traits(**changes: Any) -> TargetTraits:
    return TargetTraits(
        "t",
        unwritten_reads_zero=True,
        **{"put_blocks": 8, "initial_in_flight": 8, "max_in_flight": 32, **changes},
    )


@dataclass
class Link:
    """A link that puts share, and a server that gives up on those that take too long."""

    pacer: Pacer
    bytes_per_second: float
    answer_seconds: float = 30.0
    latency_seconds: float = 0.03
    workers: int = 32
    timeouts: int = 0
    longest_put_seconds: float = 0.0
    most_in_flight: int = 0
    under_way: list[tuple[Turn, list[float]]] = field(default_factory=list)

    def deliver(self, clock: Clock, blocks: int, most_seconds: float) -> float:
        """Bring over so many blocks; return the seconds it took."""
        started, left = clock.now, blocks
        while left > 0 or self.under_way:
            while left > 0 and len(self.under_way) < self.workers:
                if self.pacer.seconds_to_wait() > 0:
                    break
                turn = self.pacer.enter(min(8, left))
                left -= turn.blocks
                self.under_way.append((turn, [turn.blocks * B]))
            self.most_in_flight = max(self.most_in_flight, len(self.under_way))
            left += self._pass(clock)
            assert clock.now - started < most_seconds, (self.timeouts, left)
        return clock.now - started

    def _pass(self, clock: Clock) -> int:
        """Let a moment pass; return the blocks of puts that were given up."""
        clock.now += STEP_SECONDS
        share = self.bytes_per_second * STEP_SECONDS / max(1, len(self.under_way))
        given_up = 0
        for turn, missing in list(self.under_way):
            missing[0] -= share
            seconds = clock.now - turn.started
            if seconds > self.answer_seconds:
                self.timeouts += 1
                given_up += turn.blocks
            elif missing[0] > 0 or seconds < self.latency_seconds:
                continue
            else:
                self.longest_put_seconds = max(self.longest_put_seconds, seconds)
            self.under_way.remove((turn, missing))
            late = seconds > self.answer_seconds
            self.pacer.leave(turn, throttled=late, succeeded=not late)
        return given_up


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def link(mbit: float, **changes: Any) -> tuple[Link, Clock]:
    clock = Clock()
    return Link(Pacer(traits(), Stop(), clock), mbit * MBIT, **changes), clock


@pytest.mark.parametrize("mbit", [0.3, 0.5, 1, 2, 3, 5, 8])
def test_a_thin_link_ends_its_timeouts_after_the_first_rounds(mbit: float):
    thin, clock = link(mbit)
    blocks = int(900 * mbit * MBIT / B)
    seconds = thin.deliver(clock, blocks, most_seconds=1500)
    # All of the first round, and at most two more while the size of a put is found.
    assert thin.timeouts <= 8 + 2
    assert seconds < 900 + 130
    # From then on puts are small enough.
    thin.timeouts, thin.longest_put_seconds = 0, 0.0
    thin.deliver(clock, blocks, most_seconds=1100)
    assert thin.timeouts == 0
    assert thin.longest_put_seconds <= 25


def test_puts_in_flight_are_lowered_before_runs_are_shortened():
    clock = Clock()
    pacer = Pacer(traits(), Stop(), clock)
    seen = []
    for seconds in (1, 5, 10, 15, 20, 25, 30, 60, 90, 120, 120, 120, 120, 120, 120):
        turn = pacer.enter(8)
        clock.now += seconds
        pacer.leave(turn, throttled=False, succeeded=True)
        seen.append((int(pacer.limit), pacer.run_blocks))
    limits = [limit for limit, blocks in seen if blocks == 8]
    assert limits[0] > 4
    assert limits[-1] == 1
    assert [blocks for _limit, blocks in seen] == sorted((b for _l, b in seen), reverse=True)
    assert {limit for limit, blocks in seen if blocks < 8} == {1}


def test_a_wide_link_gets_whole_runs_and_all_that_the_target_bears():
    wide, clock = link(1000)
    wide.deliver(clock, 4000, most_seconds=60)
    assert (wide.pacer.run_blocks, wide.most_in_flight, wide.timeouts) == (8, 32, 0)


def test_a_link_that_gets_better_gets_longer_runs_and_more_of_them_again():
    changing, clock = link(0.5)
    changing.deliver(clock, 40, most_seconds=1500)
    assert changing.pacer.run_blocks < 8
    changing.bytes_per_second = 200 * MBIT
    changing.deliver(clock, 1500, most_seconds=200)
    assert changing.pacer.run_blocks == 8
    assert changing.most_in_flight >= 8


def test_a_link_that_gets_worse_midway_is_followed():
    changing, clock = link(100)
    changing.deliver(clock, 1000, most_seconds=100)
    changing.bytes_per_second = 1 * MBIT
    changing.deliver(clock, 200, most_seconds=1500)
    # Those in flight when it happened, and half as many until the size of a put is found.
    assert changing.timeouts <= 32 + 16


def test_one_put_that_hangs_on_a_good_link_changes_nothing():
    clock = Clock()
    pacer = Pacer(traits(), Stop(), clock)
    hanging = pacer.enter(8)
    for _number in range(300):
        turn = pacer.enter(8)
        clock.now += 0.2
        pacer.leave(turn, throttled=False, succeeded=True)
    limit = pacer.limit
    pacer.leave(hanging, throttled=False, succeeded=False)
    assert (pacer.limit, pacer.run_blocks) == (limit, 8)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 50), st.floats(25, 120), st.floats(0.0, 1.0))
def test_any_link_ends_with_few_timeouts(mbit: float, answer_seconds: float, latency: float):
    some, clock = link(mbit, answer_seconds=answer_seconds, latency_seconds=latency)
    blocks = int(300 * mbit * MBIT / B)
    some.deliver(clock, blocks, most_seconds=1500)
    assert some.timeouts <= 32


# --- bytes a second -----------------------------------------------------------------------------


def test_bytes_keep_to_the_declared_rate_whatever_the_size_of_the_puts():
    for blocks in (1, 3, 8):
        clock = Clock()
        pacer = Pacer(traits(max_bytes_per_second=10 * MIB, max_in_flight=8), Stop(), clock)
        started, sent = clock.now, 0
        while clock.now - started < 60:
            if pacer.seconds_to_wait() > 0:
                clock.now += 0.01
                continue
            turn = pacer.enter(blocks)
            sent += turn.blocks * B
            pacer.leave(turn, throttled=False, succeeded=True)
        assert 0.97 * 600 * MIB < sent < 1.03 * 600 * MIB


def test_copies_from_the_parent_count_as_requests_and_not_as_bytes():
    clock = Clock()
    pacer = Pacer(traits(max_bytes_per_second=MIB), Stop(), clock)
    for _number in range(50):
        assert pacer.seconds_to_wait() == 0
        pacer.leave(pacer.enter(0), throttled=False, succeeded=True)
    limited = Pacer(traits(max_requests_per_second=10), Stop(), clock)
    limited.leave(limited.enter(0), throttled=False, succeeded=True)
    assert limited.seconds_to_wait() > 0


def test_a_refusal_after_many_puts_without_a_known_rate_delays_nothing_unduly():
    clock = Clock()
    pacer = Pacer(traits(), Stop(), clock)
    for _number in range(10_000):
        turn = pacer.enter(1)
        clock.now += 0.001
        pacer.leave(turn, throttled=False, succeeded=True)
    pacer.leave(pacer.enter(1), throttled=True, succeeded=False)
    assert pacer.seconds_to_wait() < 0.1


# --- whole transfers ----------------------------------------------------------------------------


def request(**changes: Any) -> TransferRequest:
    changes.setdefault("verify", VerifyLevel.FULL)
    return TransferRequest(Journal(MemoryFolder(), "one.journal"), "token", **changes)


def disk_of(blocks: int) -> SyntheticDisk:
    return SyntheticDisk([(blocks * B, DATA, 1)])


def test_two_megabits_and_a_server_that_gives_up_after_half_a_minute_end_without_a_loop(
    monkeypatch: pytest.MonkeyPatch,
):
    # Thirty times as fast as it would be: 2 Mbit/s, 30 s and 20 s become 60 Mbit/s, 1 s and 2/3 s.
    scale = 30
    monkeypatch.setattr(link_speed, "SLOW_SECONDS", 20 / scale)
    monkeypatch.setattr(pacing, "DEAD_BAND_SECONDS", 1 / scale)
    shelf = Shelf(Faults(link_bytes_per_second=2 * MBIT * scale, answer_seconds=30 / scale))
    target = MemoryTarget(shelf, put_blocks=8, initial_in_flight=8, max_in_flight=32)
    result = transfer(disk_of(64), target, request())
    assert "(L3)" in result.verified
    assert shelf.timeouts <= 8 + 4
    assert max(Counter(shelf.puts).values()) == 1
    assert result.stats.retries == shelf.timeouts


def test_a_target_throttled_to_a_tenth_does_no_work_twice():
    shelf = Shelf(Faults(throttle_per_second=16))
    target = MemoryTarget(shelf, put_blocks=8, initial_in_flight=8, max_in_flight=32)
    result = transfer(disk_of(40 * 8), target, request())
    assert "(L3)" in result.verified
    assert max(Counter(shelf.puts).values()) == 1
    assert result.stats.bytes_sent == 320 * B
    assert result.stats.requests == len(shelf.requests) + result.stats.retries
    assert result.stats.retries == shelf.refusals < 40


def test_all_workers_share_the_declared_bytes_a_second():
    shelf = Shelf()
    rate = 32 * MIB
    target = MemoryTarget(shelf, put_blocks=8, max_bytes_per_second=rate)
    stats = transfer(disk_of(128 + random.randrange(8)), target, request()).stats  # noqa: S311
    assert stats.seconds > (stats.bytes_sent - 8 * B) / rate - pacing.BURST_SECONDS
