"""The pacer under a clock of our own: up slowly, down at once."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from imageport.errors import CloudThrottled, CloudUnavailable, InputError, ResourceGone
from imageport.transfer.block_target import TargetTraits
from imageport.transfer.pacing import CUT, Pacer
from imageport.transfer.retrying import RetryPolicy, Stop, retried

QUICK = RetryPolicy(first_pause_seconds=0.0005, longest_pause_seconds=0.001)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def traits(**changes: Any) -> TargetTraits:
    return TargetTraits("t", unwritten_reads_zero=True, **changes)


def test_it_starts_as_declared_and_grows_to_the_declared_limit_only():
    pacer = Pacer(traits(initial_in_flight=4, max_in_flight=16), Stop())
    assert pacer.limit == 4
    for _number in range(200):
        pacer.leave(pacer.enter(), throttled=False, succeeded=True)
    assert pacer.limit == 16


def test_refusals_of_one_moment_cut_once_and_later_ones_cut_again():
    clock = Clock()
    pacer = Pacer(traits(initial_in_flight=16, max_in_flight=16), Stop(), clock)
    turns = [pacer.enter() for _number in range(10)]
    for turn in turns[:5]:
        pacer.leave(turn, throttled=True, succeeded=False)
    assert pacer.limit == 16 * CUT
    clock.now += 1.5
    pacer.leave(turns[5], throttled=True, succeeded=False)
    assert pacer.limit == 16 * CUT * CUT


def test_it_never_stops_altogether():
    clock = Clock()
    pacer = Pacer(traits(initial_in_flight=2, max_in_flight=16), Stop(), clock)
    for _number in range(50):
        clock.now += 2
        pacer.leave(pacer.enter(), throttled=True, succeeded=False)
    assert pacer.limit == 1
    assert pacer.rate > 0


def test_a_failure_that_is_no_refusal_changes_nothing():
    pacer = Pacer(traits(initial_in_flight=8), Stop())
    pacer.leave(pacer.enter(), throttled=False, succeeded=False)
    assert (pacer.limit, pacer.in_flight) == (8, 0)


def test_starts_keep_to_the_declared_rate():
    pacer = Pacer(traits(max_requests_per_second=200), Stop())
    started = time.monotonic()
    for _number in range(100):
        pacer.leave(pacer.enter(), throttled=False, succeeded=True)
    assert time.monotonic() - started > (100 - 1 - 20) / 200


def test_the_limit_holds_between_threads():
    pacer = Pacer(traits(initial_in_flight=3, max_in_flight=3), Stop())
    most, lock, inside = 0, threading.Lock(), 0

    def work() -> None:
        nonlocal most, inside
        for _number in range(20):
            turn = pacer.enter()
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= 1
            pacer.leave(turn, throttled=False, succeeded=True)

    threads = [threading.Thread(target=work) for _number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_whoever_waits_is_let_go_when_the_transfer_ends():
    stop = Stop()
    pacer = Pacer(traits(initial_in_flight=1, max_in_flight=1), stop)
    pacer.enter()
    waiting = threading.Thread(target=pacer.enter)
    waiting.start()
    stop.end()
    waiting.join(5)
    assert not waiting.is_alive()


def failing(*errors: Exception):
    left = list(errors)
    calls = []

    def call() -> str:
        calls.append(1)
        if left:
            raise left.pop(0)
        return "done"

    return call, calls


def test_a_retryable_error_is_tried_again():
    call, calls = failing(CloudUnavailable("1"), CloudUnavailable("2"))
    assert retried(call, Stop(), policy=QUICK) == "done"
    assert len(calls) == 3


def test_a_fatal_error_is_not_tried_again():
    call, calls = failing(InputError("no"))
    try:
        retried(call, Stop(), policy=QUICK)
    except InputError:
        assert len(calls) == 1
    else:
        raise AssertionError


def test_eight_failures_are_enough_but_refusals_for_speed_do_not_count():
    call, calls = failing(*[CloudUnavailable(str(number)) for number in range(20)])
    try:
        retried(call, Stop(), policy=QUICK)
    except CloudUnavailable:
        assert len(calls) == 8
    call, calls = failing(*[CloudThrottled(str(number)) for number in range(20)])
    assert retried(call, Stop(), policy=QUICK) == "done"


def test_an_object_that_the_cloud_does_not_know_yet_is_waited_for():
    def not_yet() -> CloudUnavailable:
        error = CloudUnavailable("Cannot find 'snap-1': not yet.")
        error.__cause__ = ResourceGone("Cannot find 'snap-1'.")
        return error

    call, _calls = failing(*[not_yet() for _number in range(20)])
    assert retried(call, Stop(), policy=QUICK) == "done"


def test_the_time_is_limited_for_all_of_them():
    policy = RetryPolicy(budget_seconds=0.05, first_pause_seconds=0.01)
    call, _calls = failing(*[CloudThrottled(str(number)) for number in range(10_000)])
    started = time.monotonic()
    try:
        retried(call, Stop(), policy=policy)
    except CloudThrottled:
        assert time.monotonic() - started < 5
    else:
        raise AssertionError


def test_waiting_for_a_turn_is_no_part_of_the_time():
    policy = RetryPolicy(budget_seconds=0.0, first_pause_seconds=0.0)
    waited = 0.0

    def call_after_a_long_wait() -> str:
        nonlocal waited
        waited += 1000.0
        return call()

    call, calls = failing(*[CloudUnavailable(str(number)) for number in range(5)])
    assert retried(call_after_a_long_wait, Stop(), policy=policy, waited=lambda: waited) == "done"
    assert len(calls) == 6
    call, calls = failing(CloudUnavailable("1"))
    with pytest.raises(CloudUnavailable):
        retried(call, Stop(), policy=policy, waited=lambda: waited)
    assert len(calls) == 1
