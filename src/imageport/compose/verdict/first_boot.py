"""Verdict items about the one boot: ready to happen, and afterwards what came of it."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.first_boot.plan import (
    FOLDER,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    SERVICE,
    Held,
    read_plan,
)
from imageport.compose.first_boot.programs import needed_programs
from imageport.compose.first_boot.result import read_first_boot
from imageport.compose.first_boot.script import IMAGE_PATH
from imageport.compose.first_boot.undo import UNDO_FILE, read_undo
from imageport.compose.hives.registry import service_path
from imageport.compose.verdict.evidence import Check, Evidence, Finding, When
from imageport.compose.volumes.guest_files import GuestFiles

_AUTOMATIC = 2
_HIVE = "SYSTEM"


def first_boot_facts(files: GuestFiles) -> dict[str, str]:
    """Return what first boot reported, for the report."""
    return read_first_boot(files).facts()


def ready(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The service, its script and its plan are in place."""
    finding = Finding()
    plan = read_plan(evidence.files)
    needed = [f"{FOLDER}/firstboot.cmd", UNDO_FILE, *needed_programs(plan)]
    missing = [path for path in needed if not evidence.files.exists(path)]
    finding.problems += [f"{path.removeprefix(FOLDER + '/')} is missing" for path in missing]
    for control_set in evidence.registry.control_sets:
        path = service_path(control_set, SERVICE)
        image = evidence.registry.text("SYSTEM", path, "ImagePath")
        start = evidence.registry.start_of(control_set, SERVICE)
        if image != IMAGE_PATH or start != _AUTOMATIC:
            finding.problems.append(f"{control_set}: service {SERVICE} is not complete")
    finding.facts.append(
        f"{len(plan.steps)} steps, {plan.attempts} attempts, {plan.deadline_seconds} s"
    )
    return finding


def done(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """First boot says it is done, and no required step failed."""
    result = read_first_boot(evidence.files)
    told = f"state {result.state} after {result.attempts} attempt(s)"
    finding = Finding(facts=[f"{told} and {result.restarts or 0} restart(s)"])
    if result.state != "done":
        because = f" ({result.reason})" if result.reason else ""
        finding.problems.append(f"first boot is {result.state}{because}")
    for step in read_plan(evidence.files).steps:
        outcome = result.steps.get(f"{step.number:02d}", "not reported")
        what = f"step {step.number:02d} {step.verb}: {outcome}"
        if step.required and outcome != "ok":
            finding.problems.append(what)
        elif outcome != "ok":  # of a boot that failed it is told too, unless it never came to it
            has_failed = result.state != "done" and outcome != "not reported"
            (finding.problems if has_failed else finding.facts).append(f"optional {what}")
    return finding


def services_restored(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """What was held for the one boot is as it was before, in every control set."""
    finding = Finding()
    current = evidence.registry.current_control_set
    for step in read_plan(evidence.files).steps:
        if step.verb == RESTORE_SERVICE:
            name, wanted = step.arguments
            found = evidence.registry.start_of(current, name)
            _note(finding, f"{name} Start", found, wanted)
        elif step.verb == RESTORE_VALUE:
            key, name, wanted = step.arguments
            value = evidence.registry.number("SYSTEM", f"{current}\\{key}", name)
            _note(finding, name, value, wanted.removeprefix("dword:"))
    if not finding.problems:
        finding.problems += [_still(item) for item in _still_held(evidence)]
    return finding


def _still_held(evidence: Evidence) -> list[Held]:
    """Return what is not as it was before, in whichever control set; a key that went is at rest."""
    registry = evidence.registry
    return [
        item
        for item in read_undo(evidence.files)
        if item.hive == _HIVE
        and registry.key(_HIVE, item.key) is not None
        and registry.value(_HIVE, item.key, item.name) != item.before
    ]


def _still(item: Held) -> str:
    before = item.before.render() if item.before else "absent"
    return f"{item.key} {item.name} is not {before} again"


def service_removed(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The first-boot service is gone from every control set: it never runs again."""
    sets = [
        name for name in evidence.registry.control_sets if evidence.registry.service(name, SERVICE)
    ]
    if sets:
        return Finding(problems=[f"service {SERVICE} is still in {', '.join(sets)}"])
    return Finding(facts=[f"service {SERVICE} is gone"])


def no_trace(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The first-boot folder is gone again."""
    if evidence.files.exists(FOLDER):
        return Finding(problems=[f"folder {FOLDER} is still there"])
    return Finding(facts=[f"folder {FOLDER} is gone"])


def _note(finding: Finding, what: str, found: int | None, wanted: str) -> None:
    text = "absent" if found is None else str(found)
    if text == wanted:
        finding.facts.append(f"{what} is {wanted} again")
    else:
        finding.problems.append(f"{what} is {text}, needed {wanted}")


CHECKS = (
    Check("first_boot_ready", ready, When.BEFORE_BOOT),
    Check("first_boot_done", done, When.AFTER_BOOT),
    Check("services_restored", services_restored, When.AFTER_BOOT),
    Check("service_removed", service_removed, When.AFTER_BOOT),
    Check("no_trace", no_trace, When.AT_THE_END),
)
