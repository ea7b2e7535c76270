"""What preflight raises when several things are wrong."""

import pytest

from imageport.cloud import PlaceProblem
from imageport.compose.contract import Action, EngineReport, Refusal
from imageport.errors import GuestRefused, InputError, PermissionMissing
from imageport.workflow.preflight_outcome import require_startable

FINE = EngineReport(action=Action.PLAN, ok=True)
HIBERNATED = EngineReport(
    action=Action.PLAN,
    ok=False,
    refusals=(Refusal("hibernated", "the guest is hibernated", "Shut it down."),),
)
QUOTA = PlaceProblem("cores left in here", "2", "4", "Ask for more.")
SIZE = PlaceProblem("machine type 'D2'", "none in here", "one that the region offers")


def test_nothing_wrong_raises_nothing() -> None:
    require_startable(FINE, "gold", [], [])


def test_a_place_that_does_not_fit_is_refused_with_every_problem_at_once() -> None:
    with pytest.raises(InputError) as caught:
        require_startable(FINE, "gold", [], [QUOTA, SIZE])
    assert "Bad cores left in here: found 2, needed 4." in caught.value.message
    assert "machine type 'D2'" in caught.value.message
    assert caught.value.hint == "Ask for more."
    assert len(caught.value.fields["problems"]) == 2


def test_missing_permissions_tell_of_the_place_too() -> None:
    with pytest.raises(PermissionMissing) as caught:
        require_startable(FINE, "gold", ["a/b/write (upload)"], [SIZE])
    assert caught.value.fields["actions"] == ["a/b/write (upload)"]
    assert "machine type 'D2'" in caught.value.message


def test_a_refused_guest_tells_of_permissions_and_place_too() -> None:
    with pytest.raises(GuestRefused) as caught:
        require_startable(HIBERNATED, "gold", ["a/b/write (upload)"], [QUOTA])
    assert caught.value.fields["permissions"] == ["a/b/write (upload)"]
    assert caught.value.fields["problems"] == [str(QUOTA)]
    assert "hibernated" in caught.value.message
