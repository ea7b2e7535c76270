"""From an engine report to "go on" or to the error that says why not."""

from __future__ import annotations

import pytest

from imageport.compose.contract import Action, EngineReport, Refusal, VerdictItem
from imageport.errors import (
    EngineFailed,
    FirstBootFailed,
    GuestRefused,
    ImageportError,
    VerdictFailed,
)
from imageport.workflow.engine_outcome import require_ok

REFUSAL = Refusal(code="hibernated", reason="hiberfil.sys is in use", hint="Shut it down.")
FAILED = VerdictItem(name="boot_drivers", passed=False, evidence="nvme: Start=3")
PASSED = VerdictItem(name="esp", passed=True, evidence="found")


def report(**facts: object) -> EngineReport:
    return EngineReport(**{"action": Action.VERIFY, "ok": False, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (report(error="no appliance", refusals=(REFUSAL,)), EngineFailed, "no appliance"),
        (report(refusals=(REFUSAL,), verdict=(FAILED,)), GuestRefused, "hibernated: hiberfil"),
        (report(ok=True, first_boot={"state": "failed"}), FirstBootFailed, "reported failed"),
        (report(verdict=(PASSED, FAILED)), VerdictFailed, "nvme: Start=3"),
        (report(ok=True, verdict=(FAILED,)), VerdictFailed, "nvme: Start=3"),
        (report(verdict=(PASSED,)), VerdictFailed, "not satisfied"),
        (report(verdict=(FAILED,) * 7), VerdictFailed, "and 2 more"),
    ],
    ids=["engine", "refusal", "first-boot", "verdict", "ok-but-failed", "silent-no", "many"],
)
def test_each_report_that_is_not_good_has_its_own_error(
    found: EngineReport, kind: type[ImageportError], words: str
):
    with pytest.raises(kind, match=words):
        require_ok(found, "gold")


@pytest.mark.parametrize("state", [{}, {"state": "done"}, {"state": ""}])
def test_a_good_report_is_handed_on(state: dict[str, str]):
    found = report(ok=True, verdict=(PASSED,), first_boot=state)
    assert require_ok(found, "gold") is found
