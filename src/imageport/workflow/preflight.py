"""Preflight: everything that would stop a run later, found before anything is created."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from imageport.citrix.vdisk_store import VdiskStore
from imageport.cloud import CostLine
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport, Inspection
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState
from imageport.progress import Stage
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.facts import opened_source
from imageport.workflow.place import Workplace
from imageport.workflow.preflight_outcome import require_startable
from imageport.workflow.site_job import run_at_site


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What was found, and what the run is going to cost and change."""

    image: str
    source_key: str
    size_bytes: int
    data_bytes: int
    plan: EngineReport
    """What the engine found, and what it would change."""
    estimate: tuple[CostLine, ...]
    warnings: tuple[str, ...]

    @property
    def inspection(self) -> Inspection:
        """Return what the guest is."""
        return self.plan.inspection

    @property
    def planned_changes(self) -> int:
        """Return how many places would be changed."""
        return len(self.plan.changes)


def preflight(
    place: Workplace,
    store: VdiskStore,
    vdisk: str,
    choices: PrepareChoices,
    *,
    payload: Path | None = None,
    accept_lock: bool = False,
) -> PreflightReport:
    """Inspect the vDisk at the site and ask the cloud; changes nothing anywhere.

    Raises:
        GuestRefused: with every reason at once, missing permissions and a place that does not
            fit among them.
        PermissionMissing: the image is fine, the credentials are not; names every action.
        InputError: image and credentials are fine, the place is not: sizes, names, quotas.
    """
    stage = Stage("preflight", place.events, total=4, unit="steps")
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, disk):
        data = sum(e.length_bytes for e in disk.extents() if e.state is ExtentState.DATA)
        stage.advance(1, f"{disk.format_name}, {data // MIB} of {disk.size_bytes // MIB} MiB used")
        report = _plan(place, disk, choices, payload)
        disk.check_unchanged()
    stage.advance(1, _guest_line(report))
    gaps = [gap for gap in place.cloud.check_permissions() if not gap.optional]
    missing = [f"{gap.action} ({gap.needed_for})" for gap in gaps]
    stage.advance(1, f"{len(missing)} permissions are missing" if missing else "all permitted")
    problems = place.cloud.check_place(facts.image, facts.size_bytes)
    require_startable(report, facts.image, missing, problems)
    stage.advance(1, f"{place.cloud.scope} has room and machines for it")
    estimate = tuple(place.cloud.estimate(data, facts.size_bytes))
    stage.finish(f"about {sum(line.usd for line in estimate):.2f} USD")
    return PreflightReport(
        image=facts.image,
        source_key=facts.source_key,
        size_bytes=facts.size_bytes,
        data_bytes=data,
        plan=report,
        estimate=estimate,
        warnings=_warnings(report),
    )


def payload_sha256(payload: Path | None) -> str:
    """Return the digest of the operator's payload; "" without one."""
    if payload is None:
        return ""
    with payload.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plan(
    place: Workplace, disk: VirtualDisk, choices: PrepareChoices, payload: Path | None
) -> EngineReport:
    job = EngineJob(
        action=Action.PLAN,
        disk=EngineDisk(path=""),
        options=choices.engine,
        run=place.run,
        payload_sha256=payload_sha256(payload),
    )
    return run_at_site(place, disk, job, choices, payload)


def _guest_line(report: EngineReport) -> str:
    guest = report.inspection
    return (
        f"{guest.product_name or 'unknown guest'} {guest.build}, {guest.firmware}, "
        f"from {guest.source_platform or 'unknown'}, PVS target {guest.pvs_target_version or '-'}"
    )


def _warnings(report: EngineReport) -> tuple[str, ...]:
    found = []
    if report.inspection.domain:
        found.append(
            f"The image is joined to {report.inspection.domain}; first boot sees no domain "
            "controller and does not need one."
        )
    return tuple(found)
