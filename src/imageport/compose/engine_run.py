"""What each action does, in order; one launch of libguestfs per job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from imageport.compose.cloud_target import CloudTarget, cloud_target
from imageport.compose.contract import (
    Action,
    Change,
    EngineJob,
    EngineReport,
    Inspection,
    Refusal,
    Tier,
)
from imageport.compose.drivers.driver_packages import DriverPackage, find_packages
from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.first_boot.vm_agent import VmAgentPackage, find_vm_agent
from imageport.compose.guest import WINDOWS_MOUNT, Guest, open_guest
from imageport.compose.hives.registry import (
    Registry,
    open_copies,
    open_registry,
)
from imageport.compose.inspection import describe_partitions, inspect
from imageport.compose.installers import InstallerPackage, find_installers
from imageport.compose.pending_volumes import PendingVolumes, keep_hives
from imageport.compose.recorder import Recorder
from imageport.compose.refusals import (
    driver_refusals,
    guest_refusals,
    with_fast_startup_told,
)
from imageport.compose.step import Context, Facts
from imageport.compose.steps.order import option_refusals, plan_refusals, run_steps, step_refusals
from imageport.compose.survey import Survey, survey, write_refusals
from imageport.compose.uefi_disk import (
    inspection_after,
    plan_conversion,
)
from imageport.compose.verdict.evidence import Evidence
from imageport.compose.verdict.first_boot import first_boot_facts
from imageport.compose.verdict.judge import judge, judge_the_end
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.mounted_files import MountedFiles

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """What one run carries around."""

    job: EngineJob
    target: CloudTarget
    payload: Path | None
    packages: tuple[DriverPackage, ...]
    vm_agent: VmAgentPackage | None
    installers: tuple[InstallerPackage, ...]
    folder: Path
    log: Log


def run_job(job: EngineJob, payload: Path | None, log: Log) -> EngineReport:
    """Do the job; every error is an `ImageportError`."""
    target = cloud_target(job.options.cloud)
    packages: list[DriverPackage] = []
    vm_agent: VmAgentPackage | None = None
    installers: list[InstallerPackage] = []
    refusals = option_refusals(job.options)
    if job.action is not Action.VERIFY:  # nothing is added then, so no payload is needed
        packages, problems = find_packages(payload, job.options.drivers, job.options.cloud)
        vm_agent, missing = find_vm_agent(payload, job.options.azure_vm_agent)
        installers, wrong = find_installers(payload, job.options)
        refusals += problems + missing + wrong
    log("starting libguestfs")
    with (
        tempfile.TemporaryDirectory(prefix="imageport-engine-") as folder,
        open_guest(job.disk.path, writable=job.may_write) as guest,
    ):
        log("looking at the disk")
        found = tuple(packages), vm_agent, tuple(installers)
        work = _Work(job, target, payload, *found, Path(folder), log)
        return _run(guest, work, refusals)


def _run(guest: Guest, work: _Work, refusals: list[Refusal]) -> EngineReport:
    found = survey(guest, work.job, work.folder)
    found.refusals[:0] = refusals
    bare = Inspection(disk_guid=guest.table.disk_guid, partitions=describe_partitions(guest.table))
    if not found.can_open_registry or found.windows is None:
        return _refused(work, bare, found)
    # A dirty hive without its logs may be looked into: the report says more than the refusal.
    writable = work.job.action in {Action.PLAN, Action.COMPOSE} and not found.hives.damage
    with open_copies(found.hives, writable=writable) as registry:
        inspection = inspect(registry, found.windows, guest.table)
        found.refusals = with_fast_startup_told(found.refusals, registry)
        found.refusals += guest_refusals(inspection, work.job)
        if work.job.action is not Action.VERIFY:
            found.refusals += driver_refusals(
                registry, found.windows, work.packages, work.job, work.target
            )
            found.uefi = plan_conversion(guest, found, work.job)
            facts = _facts(work, found, inspection, registry, found.windows, found.boot_files)
            found.refusals += step_refusals(facts)
        if work.job.action is Action.INSPECT or found.refusals:
            return _refused(work, inspection, found)
        if work.job.action is Action.VERIFY:
            evidence = _evidence(
                guest, found, registry, found.windows, found.boot_files, inspection
            )
            return _verify(guest, work, found, evidence)
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


def _facts(
    work: _Work,
    found: Survey,
    inspection: Inspection,
    registry: Registry,
    files: GuestFiles,
    boot_files: GuestFiles | None,
) -> Facts:
    return Facts(
        options=work.job.options,
        target=work.target,
        inspection=inspection,
        registry=registry,
        files=files,
        boot_files=boot_files,
        payload=work.payload,
        packages=work.packages,
        vm_agent=work.vm_agent,
        uefi=found.uefi,
        installers=work.installers,
    )


def _compose(
    guest: Guest, work: _Work, found: Survey, registry: Registry, inspection: Inspection
) -> EngineReport:
    """Plan and compose: the same steps on copies; compose then writes what they recorded."""
    pending = PendingVolumes.over(found)
    before, inspection = inspection, inspection_after(inspection, found.layout)
    firmware = inspection.firmware
    facts = _facts(work, found, inspection, registry, pending.windows, pending.boot)
    context = Context(**{item.name: getattr(facts, item.name) for item in fields(facts)})
    work.log("running the steps")
    notes = run_steps(context)
    found.refusals += plan_refusals(context.plan)
    if found.refusals:
        return _refused(work, before, found)
    changes = context.recorder.changes
    keep_hives(registry, changes, pending.windows, pending.boot, firmware)
    files: GuestFiles = pending.windows
    boot_files: GuestFiles | None = pending.boot
    if work.job.action is Action.COMPOSE:
        refused = write_refusals(guest, found)
        if refused or found.partition is None:
            found.refusals += refused
            return _refused(work, before, found)
        work.log("writing the changes")
        files, boot_files = pending.apply(guest, found)
    work.log("judging the result")
    again = work.folder / "judged"
    again.mkdir()
    with open_registry(
        files, again, writable=False, boot_files=boot_files, firmware=firmware
    ) as after:
        evidence = _evidence(guest, found, after, files, boot_files, inspection)
        verdict = judge(evidence, work.job, work.target)
    return EngineReport(
        action=work.job.action,
        ok=all(item.passed for item in verdict),
        inspection=inspection if work.job.action is Action.COMPOSE else before,
        steps=tuple(notes),
        changes=tuple(changes),
        verdict=tuple(verdict),
    )


def _evidence(
    guest: Guest,
    found: Survey,
    registry: Registry,
    files: GuestFiles,
    boot_files: GuestFiles | None,
    inspection: Inspection,
) -> Evidence:
    table, windows = guest.table, found.partition
    if found.layout is not None:  # what it will be, or is already
        table, windows = found.layout.after, found.layout.windows
    return Evidence(registry, files, boot_files, table, inspection, windows)


def _verify(guest: Guest, work: _Work, found: Survey, evidence: Evidence) -> EngineReport:
    verdict = judge(evidence, work.job, work.target)
    told = first_boot_facts(evidence.files)
    changes: list[Change] = []
    if work.job.options.leave_no_trace and all(item.passed for item in verdict):
        work.log("taking the first-boot folder away")
        found.refusals += write_refusals(guest, found)
        if not found.refusals:
            changes, files = _take_folder_away(guest, found, evidence.registry)
            verdict += judge_the_end(replace(evidence, files=files), work.job, work.target)
    return EngineReport(
        action=work.job.action,
        ok=all(item.passed for item in verdict) and not found.refusals,
        inspection=evidence.inspection,
        refusals=tuple(found.refusals),
        changes=tuple(changes),
        verdict=tuple(verdict),
        first_boot=told,
    )


def _take_folder_away(
    guest: Guest, found: Survey, registry: Registry
) -> tuple[list[Change], GuestFiles]:
    """Remove our own folder from the unmounted volume; returns the files read afresh."""
    assert found.partition is not None  # noqa: S101 - a verdict was read from it
    guest.mount_writable(found.partition, WINDOWS_MOUNT)
    recorder = Recorder(registry, MountedFiles(guest.handle, WINDOWS_MOUNT))
    recorder.begin("leave_no_trace", Tier.RECOMMENDED)
    recorder.remove(FOLDER)
    guest.handle.sync()
    guest.unmount(WINDOWS_MOUNT)
    guest.mount(found.partition, WINDOWS_MOUNT)
    return recorder.changes, MountedFiles(guest.handle, WINDOWS_MOUNT)
