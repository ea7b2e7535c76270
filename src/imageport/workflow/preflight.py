"""Preflight: everything that would stop a run later, found before anything is created."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from imageport.citrix.vdisk_store import VdiskStore
from imageport.cloud import CostLine
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport, Inspection
from imageport.compose.site_engine import run_site_engine
from imageport.errors import GuestRefused, PermissionMissing
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState
from imageport.payload import unpacked_payload
from imageport.progress import Stage
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.engine_outcome import require_ok
from imageport.workflow.facts import opened_source
from imageport.workflow.place import Workplace


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What was found, and what the run is going to cost and change."""

    image: str
    source_key: str
    size_bytes: int
    data_bytes: int
    inspection: Inspection
    engine_id: str
    planned_changes: int
    estimate: tuple[CostLine, ...]
    warnings: tuple[str, ...]


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
        GuestRefused: with every reason at once, missing permissions among them.
        PermissionMissing: the image is fine, the credentials are not; names every action.
    """
    stage = Stage("preflight", place.events, total=3, unit="steps")
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, disk):
        data = sum(e.length_bytes for e in disk.extents() if e.state is ExtentState.DATA)
        stage.advance(1, f"{disk.format_name}, {data // MIB} of {disk.size_bytes // MIB} MiB used")
        report = _plan(place, disk, choices, payload)
        disk.check_unchanged()
    stage.advance(1, _guest_line(report))
    missing = [f"{gap.action} ({gap.needed_for})" for gap in place.cloud.check_permissions()]
    _raise_problems(report, facts.image, missing)
    stage.advance(1, "every permission that the run needs is granted")
    estimate = tuple(place.cloud.estimate(data, facts.size_bytes))
    stage.finish(f"about {sum(line.usd for line in estimate):.2f} USD")
    return PreflightReport(
        image=facts.image,
        source_key=facts.source_key,
        size_bytes=facts.size_bytes,
        data_bytes=data,
        inspection=report.inspection,
        engine_id=report.engine_id,
        planned_changes=len(report.changes),
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
    with unpacked_payload(payload) as folder:
        return run_site_engine(
            disk,
            job,
            payload=folder,
            deadline_seconds=choices.engine_deadline_seconds,
            events=place.events,
            cancelled=place.cancelled,
        )


def _raise_problems(report: EngineReport, image: str, missing: list[str]) -> None:
    try:
        require_ok(report, image)
    except GuestRefused as refused:
        if missing:
            refused.message += f" Permissions missing as well: {', '.join(missing)}."
            refused.fields["permissions"] = missing
        raise
    if missing:
        raise PermissionMissing(
            f"Cannot start '{image}': the credentials lack {', '.join(missing)}.", actions=missing
        )


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
