"""The readiness verdict: would this disk boot and stream where it is going? Each with evidence.

After composing it is judged from the disk read afresh (or, for a plan, from what it would be);
after the one boot from what Windows made of it.
"""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob, VerdictItem
from imageport.compose.verdict import boot, citrix, cloud, drivers, first_boot, guest, source
from imageport.compose.verdict.evidence import Check, Evidence, When
from imageport.errors import ImageportError

CHECKS: tuple[Check, ...] = (
    *boot.CHECKS,
    *drivers.CHECKS,
    *source.CHECKS,
    *citrix.CHECKS,
    *guest.CHECKS,
    *cloud.CHECKS,
    *first_boot.CHECKS,
)


def judge(evidence: Evidence, job: EngineJob, target: CloudTarget) -> list[VerdictItem]:
    """Return every item; an item that cannot be judged has failed, with the reason."""
    has_booted = job.action is Action.VERIFY
    now = When.AFTER_BOOT if has_booted else When.BEFORE_BOOT
    return _items({When.BOTH, now}, evidence, job, target)


def judge_the_end(evidence: Evidence, job: EngineJob, target: CloudTarget) -> list[VerdictItem]:
    """Return the items about what is left once our own folder was taken away."""
    return _items({When.AT_THE_END}, evidence, job, target)


def _items(
    when: set[When], evidence: Evidence, job: EngineJob, target: CloudTarget
) -> list[VerdictItem]:
    return [
        _item(check, evidence, job, target)
        for check in CHECKS
        if check.when in when and (not check.clouds or target.name in check.clouds)
    ]


def _item(check: Check, evidence: Evidence, job: EngineJob, target: CloudTarget) -> VerdictItem:
    try:
        finding = check.judge(evidence, job, target)
    except ImageportError as error:
        return VerdictItem(check.name, passed=False, evidence=error.message)
    return VerdictItem(check.name, not finding.problems, finding.text())
