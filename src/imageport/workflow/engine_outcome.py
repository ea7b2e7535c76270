"""From an engine report to "go on" or to the error that says why not."""

from __future__ import annotations

import dataclasses

from imageport.compose.contract import EngineReport
from imageport.errors import EngineFailed, FirstBootFailed, GuestRefused, VerdictFailed

_SHOWN = 5


def require_ok(report: EngineReport, image: str) -> EngineReport:
    """Return the report, or raise what it says.

    Raises:
        EngineFailed: the engine itself broke.
        GuestRefused: the guest must not be touched, with every reason.
        FirstBootFailed: first boot reported failure.
        VerdictFailed: the image would not boot or stream, with every failed item.
    """
    if report.error:
        raise EngineFailed(
            f"Cannot {report.action} '{image}': {report.error}",
            hint="The engine's log is with this error.",
            engine_id=report.engine_id,
        )
    if report.refusals:
        reasons = "; ".join(f"{item.code}: {item.reason}" for item in report.refusals)
        raise GuestRefused(
            f"Cannot {report.action} '{image}': {reasons}",
            hint=" ".join(dict.fromkeys(item.hint for item in report.refusals if item.hint)),
            refusals=[dataclasses.asdict(item) for item in report.refusals],
        )
    if report.first_boot and report.first_boot.get("state") not in {"", "done", None}:
        raise FirstBootFailed(
            f"Cannot finish the first boot of '{image}': it reported "
            f"{report.first_boot.get('state')}.",
            hint="Its log is with this error; correct what it names and start again.",
            **report.first_boot,
        )
    _require_verdict(report, image)
    return report


def _require_verdict(report: EngineReport, image: str) -> None:
    failed = [item for item in report.verdict if not item.passed]
    if failed or not report.ok:
        named = "; ".join(f"{item.name}: {item.evidence}" for item in failed[:_SHOWN])
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise VerdictFailed(
            f"Cannot accept '{image}' after {report.action}: "
            f"{named or 'the engine was not satisfied'}{more}.",
            hint="Correct the image at its source (the items say what), then start again.",
            items=[dataclasses.asdict(item) for item in failed],
        )
