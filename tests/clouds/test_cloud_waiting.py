"""Waiting and trying again: bounded, cancellable, patient only where that helps."""

from __future__ import annotations

import pytest

from imageport.clouds import waiting
from imageport.clouds.waiting import retried, wait_for, wait_until
from imageport.errors import CloudRefused, CloudThrottled, CloudUnavailable, TransferCancelled


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(waiting.time, "sleep", sleep)


class Calls:
    """Raises its errors one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_a_failing_service_is_tried_six_times():
    calls = Calls(*[CloudUnavailable("x")] * 5)
    assert retried(calls) == "done"
    assert calls.count == 6
    with pytest.raises(CloudUnavailable):
        retried(Calls(*[CloudUnavailable("x")] * 6))


def test_throttling_is_waited_out_for_as_long_as_the_budget_lasts():
    assert retried(Calls(*[CloudThrottled("x")] * 40)) == "done"
    with pytest.raises(CloudThrottled):
        retried(Calls(*[CloudThrottled("x")] * 1000), budget_seconds=20)


def test_a_refusal_is_final():
    calls = Calls(CloudRefused("x"))
    with pytest.raises(CloudRefused):
        retried(calls)
    assert calls.count == 1


def test_waiting_ends_at_its_deadline_and_names_what_it_waited_for():
    assert wait_until(lambda: None, 10.0) is None
    with pytest.raises(CloudUnavailable, match="'vol-1': not there after 10 s"):
        wait_for("vol-1", lambda: None, 10.0)


def test_an_outage_while_waiting_is_no_end_and_a_refusal_is():
    assert wait_until(Calls(CloudUnavailable("x"), CloudThrottled("x")), 60.0) == "done"
    with pytest.raises(CloudRefused):
        wait_until(Calls(CloudRefused("x")), 60.0)


def test_a_cancelled_wait_ends_at_once_and_gives_signs_of_life_until_then():
    pulses: list[int] = []
    with pytest.raises(TransferCancelled):
        wait_until(
            lambda: None,
            60.0,
            cancelled=lambda: len(pulses) == 3,
            pulse=lambda: pulses.append(1),
        )
    assert len(pulses) == 3
