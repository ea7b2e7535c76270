"""What each action does, in order; one launch of libguestfs per job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imageport.compose.cloud_target import CloudTarget, cloud_target
from imageport.compose.contract import Action, EngineJob, EngineReport, Inspection, Refusal
from imageport.compose.drivers.driver_packages import DriverPackage, find_packages
from imageport.compose.first_boot.vm_agent import VmAgentPackage, find_vm_agent
from imageport.compose.guest import WINDOWS_MOUNT, Guest, open_guest
from imageport.compose.hives.registry import Registry, hive_path, open_registry
from imageport.compose.inspection import describe_partitions, inspect
from imageport.compose.refusals import driver_refusals, guest_refusals
from imageport.compose.step import Context
from imageport.compose.steps.order import option_refusals, run_steps, step_refusals
from imageport.compose.survey import Survey, survey, write_refusals
from imageport.compose.verdict.evidence import Evidence
from imageport.compose.verdict.first_boot import first_boot_facts
from imageport.compose.verdict.judge import judge
from imageport.compose.volumes.guest_files import GuestFiles, PendingFiles
from imageport.compose.volumes.mounted_files import MountedFiles

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """What one run carries around."""

    job: EngineJob
    target: CloudTarget
    packages: tuple[DriverPackage, ...]
    vm_agent: VmAgentPackage | None
    folder: Path
    log: Log


def run_job(job: EngineJob, payload: Path | None, log: Log) -> EngineReport:
    """Do the job; every error is an `ImageportError`."""
    target = cloud_target(job.options.cloud)
    packages: list[DriverPackage] = []
    vm_agent: VmAgentPackage | None = None
    refusals = option_refusals(job.options)
    if job.action is not Action.VERIFY:  # nothing is added then, so no payload is needed
        packages, problems = find_packages(payload, job.options.drivers, job.options.cloud)
        vm_agent, missing = find_vm_agent(payload, job.options.azure_vm_agent)
        refusals += problems + missing
    log("starting libguestfs")
    with (
        tempfile.TemporaryDirectory(prefix="imageport-engine-") as folder,
        open_guest(job.disk.path, writable=job.action is Action.COMPOSE) as guest,
    ):
        log("looking at the disk")
        work = _Work(job, target, tuple(packages), vm_agent, Path(folder), log)
        return _run(guest, work, refusals)


def _run(guest: Guest, work: _Work, refusals: list[Refusal]) -> EngineReport:
    found = survey(guest, work.job)
    found.refusals[:0] = refusals
    bare = Inspection(disk_guid=guest.table.disk_guid, partitions=describe_partitions(guest.table))
    if not found.can_open_registry or found.windows is None:
        return _refused(work, bare, found)
    writable = work.job.action in {Action.PLAN, Action.COMPOSE}
    with open_registry(found.windows, work.folder, writable=writable) as registry:
        inspection = inspect(registry, found.windows, guest.table)
        found.refusals += guest_refusals(inspection, work.job)
        if work.job.action is not Action.VERIFY:
            found.refusals += driver_refusals(registry, work.packages, work.job, work.target)
            found.refusals += step_refusals(work.job.options, registry, work.target)
        if work.job.action is Action.INSPECT or found.refusals:
            return _refused(work, inspection, found)
        if work.job.action is Action.VERIFY:
            return _verify(work, _evidence(guest, found, registry, found.windows, inspection))
        return _compose(guest, work, found, registry, inspection)


def _refused(work: _Work, inspection: Inspection, found: Survey) -> EngineReport:
    """Return a report without changes: inspected, or refused."""
    return EngineReport(
        action=work.job.action,
        ok=work.job.action is Action.INSPECT,
        inspection=inspection,
        refusals=tuple(found.refusals),
        first_boot=_first_boot(work, found),
    )


def _first_boot(work: _Work, found: Survey) -> dict[str, str]:
    """Return what first boot reported also when the disk is refused: it says why."""
    if work.job.action is not Action.VERIFY or found.windows is None:
        return {}
    return first_boot_facts(found.windows)


def _compose(
    guest: Guest, work: _Work, found: Survey, registry: Registry, inspection: Inspection
) -> EngineReport:
    """Plan and compose: the same steps on copies; compose then writes what they recorded."""
    assert found.windows is not None  # noqa: S101 - the caller looked; this is for the type checker
    pending = PendingFiles(found.windows)
    context = Context(
        work.job.options,
        work.target,
        inspection,
        registry,
        pending,
        work.packages,
        work.vm_agent,
    )
    work.log("running the steps")
    changes = run_steps(context)
    for name, hive in registry.hives.items():
        hive.commit()
        if any(change.path.startswith(f"HKLM\\{name}\\") for change in changes):
            pending.rewrite(hive_path(name), hive.path)
    files: GuestFiles = pending
    if work.job.action is Action.COMPOSE:
        refused = write_refusals(guest, found)
        if refused or found.partition is None:
            found.refusals += refused
            return _refused(work, inspection, found)
        files = _apply(guest, work, found, pending)
    work.log("judging the result")
    again = work.folder / "judged"
    again.mkdir()
    with open_registry(files, again, writable=False) as after:
        evidence = _evidence(guest, found, after, files, inspection)
        verdict = judge(evidence, work.job, work.target)
    return EngineReport(
        action=work.job.action,
        ok=all(item.passed for item in verdict),
        inspection=inspection,
        changes=tuple(changes),
        verdict=tuple(verdict),
    )


def _apply(guest: Guest, work: _Work, found: Survey, pending: PendingFiles) -> GuestFiles:
    """Write what the steps recorded; returns the volume read afresh."""
    assert found.partition is not None  # noqa: S101 - as above
    work.log("writing the changes")
    guest.mount_writable(found.partition, WINDOWS_MOUNT)
    pending.below = MountedFiles(guest.handle, WINDOWS_MOUNT)
    pending.apply()
    guest.handle.sync()
    return MountedFiles(guest.handle, WINDOWS_MOUNT)


def _evidence(
    guest: Guest, found: Survey, registry: Registry, files: GuestFiles, inspection: Inspection
) -> Evidence:
    windows_guid = found.partition.guid if found.partition else ""
    return Evidence(registry, files, found.esp, guest.table, inspection, windows_guid)


def _verify(work: _Work, evidence: Evidence) -> EngineReport:
    verdict = judge(evidence, work.job, work.target)
    return EngineReport(
        action=work.job.action,
        ok=all(item.passed for item in verdict),
        inspection=evidence.inspection,
        verdict=tuple(verdict),
        first_boot=first_boot_facts(evidence.files),
    )
