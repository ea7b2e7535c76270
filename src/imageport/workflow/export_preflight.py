"""Before an export: all that would stop it or what follows, asked of hypervisor, folder and cloud.

The guest itself is inspected once it lies at the site, before anything is created in a cloud: a
hypervisor gives no way to look into a disk that is not as long as exporting it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imageport.cloud import PermissionGap, PlaceProblem
from imageport.compose.contract import EngineOptions
from imageport.compose.installers import find_installers
from imageport.compose.report_page import page_text
from imageport.compose.steps.order import option_refusals
from imageport.errors import (
    HypervisorError,
    HypervisorRefused,
    ImageportError,
    InputError,
    PermissionMissing,
)
from imageport.hypervisor import Vm
from imageport.model import GIB
from imageport.payload import unpacked_payload
from imageport.progress import Stage
from imageport.workflow.master import (
    ExportPlace,
    Master,
    WantedMaster,
    exported_as,
    look_up,
    newest_export,
    refuse_foreign,
)
from imageport.workflow.place import Workplace

STAGE = "preflight"


@dataclass(frozen=True, slots=True)
class MasterFacts:
    """Which content a master image has, as far as that can be told without a snapshot."""

    image: str
    key: str
    """`FrozenDisk.key` of the named snapshot's disk; empty when one has to be taken."""
    exported_id: str


@dataclass(frozen=True, slots=True)
class MasterReport:
    """What was found before an export."""

    image: str
    product: str
    master: Master
    warnings: tuple[str, ...]

    def page(self) -> str:
        """Return it in Markdown; every disk is listed, the chosen one marked."""
        vm, disk = self.master.vm, self.master.disk
        snapshot = self.master.snapshot.name if self.master.snapshot else "one is taken and removed"
        lines = [
            f"# {page_text(vm.location)}",
            "",
            f"- {page_text(self.product)}; firmware {vm.firmware}",
            f"- snapshot: {page_text(snapshot)}",
            "",
            "| disk | GiB | where | |",
            "|---|---|---|---|",
        ]
        for one in vm.disks:
            notes = [
                note
                for note, fits in (("exported", one.key == disk.key), ("boots", one.is_boot))
                if fits
            ]
            lines.append(
                f"| {page_text(one.label)} | {one.size_bytes / GIB:.1f} | {page_text(one.place)} "
                f"| {', '.join(notes)} |"
            )
        return "\n".join([*lines, "", *(f"- Note: {page_text(text)}" for text in self.warnings)])


def identify(place: ExportPlace, wanted: WantedMaster) -> MasterFacts:
    """Return which content the machine's named snapshot has; changes nothing."""
    master = look_up(place.hypervisor, wanted)
    if master.snapshot is None:
        return MasterFacts(master.image, "", "")
    key = place.hypervisor.freeze(master.vm, master.snapshot, master.disk).key
    found = exported_as(place, master.image, key)
    known = found is not None and bool(found.source_key)
    return MasterFacts(master.image, key, found.id if found is not None and known else "")


def preflight_master(
    place: ExportPlace,
    target: Workplace,
    wanted: WantedMaster,
    options: EngineOptions = EngineOptions(),  # noqa: B008 - frozen
    payload: Path | None = None,
) -> MasterReport:
    """Ask for privileges, state, room and the target's place; changes nothing anywhere.

    What is wrong with the options, or with the files of the payload (a zip) that they name, is
    told before hours of export, too.

    Raises:
        HypervisorRefused: privileges are missing; names each, and all else that is wrong.
        PermissionMissing: the same for the cloud.
        InputError: all is permitted, something does not fit.
    """
    stage = Stage(STAGE, place.events, total=3, unit="steps")
    product = place.hypervisor.product()
    master = look_up(place.hypervisor, wanted)
    stage.advance(1, f"{product}: {master.vm.location}, {_disk_line(master)}")
    takes = master.snapshot is None
    gaps = place.hypervisor.check_permissions(master.vm, takes_snapshot=takes)
    stage.advance(1, _gap_line(gaps))
    problems = _problems(place, master)
    other, other_id = _other_machine(place, master)
    if other and not wanted.image and _is_there(place, other, other_id):
        problems.append(
            f"the newest export of '{master.image}' is of '{other}', another machine: name the "
            "image, so that neither takes the other's place"
        )
    lacking = [gap for gap in target.cloud.check_permissions() if not gap.optional]
    fits = target.cloud.check_place(master.image, master.disk.size_bytes)
    problems += _option_problems(options, payload)
    _require(master, gaps, lacking, [*problems, *map(str, fits)], _hints(fits))
    stage.advance(1, f"{target.cloud.scope} has room and machines for it")
    stage.finish()
    warnings = _warnings(place, master.vm, master)
    if other:
        warnings += (f"The export takes the place of one of '{other}', another machine.",)
    return MasterReport(master.image, product, master, warnings)


def _problems(place: ExportPlace, master: Master) -> list[str]:
    found = []
    if master.vm.is_running and master.snapshot is None:
        found.append(
            f"Bad state of '{master.vm.location}': found it running, needed it shut down, or the "
            "name of a snapshot that was taken while it was: a disk that Windows is writing is "
            "refused later."
        )
    try:
        refuse_foreign(place, master.image)
    except ImageportError as error:
        found.append(error.message)
    return found


def _other_machine(place: ExportPlace, master: Master) -> tuple[str, str]:
    """Return location and id of the machine of the newest export, if that is another; or nothing.

    Machines of one name in two folders have one image name, too.
    """
    newest = newest_export(place, master.image)
    facts = newest.details.get("frozen", {}) if newest is not None else {}
    if facts.get("vm_id", master.vm.id) == master.vm.id:
        return "", ""
    return str(facts["vm"]), str(facts["vm_id"])


def _is_there(place: ExportPlace, location: str, vm_id: str) -> bool:
    """Tell whether a machine is where it was; one that was built anew has another id."""
    with contextlib.suppress(HypervisorError, InputError):
        return place.hypervisor.find_vm(location).id == vm_id
    return False


def _option_problems(options: EngineOptions, payload: Path | None) -> list[str]:
    """Return what the engine would refuse whatever the guest is."""
    refused = option_refusals(options)
    with unpacked_payload(payload) as folder:
        refused += find_installers(folder, options)[1]
    return [refusal.reason for refusal in refused]


def _require(
    master: Master,
    gaps: list[PermissionGap],
    lacking: list[PermissionGap],
    problems: list[str],
    hint: str,
) -> None:
    privileges = [f"{gap.action} ({gap.needed_for})" for gap in gaps if not gap.optional]
    actions = [f"{gap.action} ({gap.needed_for})" for gap in lacking]
    told = []
    if privileges:
        told.append(f"the hypervisor's user lacks {', '.join(privileges)}")
    if actions:
        told.append(f"the cloud's credentials lack {', '.join(actions)}")
    told += problems
    if not told:
        return
    message = f"Cannot export '{master.vm.location}': {'; '.join(told)}."
    facts: dict[str, Any] = {"privileges": privileges, "permissions": actions, "problems": problems}
    if privileges:
        raise HypervisorRefused(
            message, hint="Grant the named privileges to the user of the connection block.", **facts
        )
    if actions:
        raise PermissionMissing(message, **facts)
    raise InputError(message, hint=hint, **facts)


def _hints(problems: list[PlaceProblem]) -> str:
    return " ".join(dict.fromkeys(item.hint for item in problems if item.hint))


def _warnings(place: ExportPlace, vm: Vm, master: Master) -> tuple[str, ...]:
    found = []
    others = [disk.label for disk in vm.disks if disk.key != master.disk.key]
    if others:
        found.append(f"The machine has other disks, which stay behind: {', '.join(others)}.")
    free, size = place.store.folder.free_bytes(), master.disk.size_bytes
    if free < size:
        found.append(
            f"The export folder has {free / GIB:.1f} GiB free, the disk {size / GIB:.1f} GiB: only "
            "what is allocated is written, but a full disk would not fit."
        )
    return tuple(found)


def _disk_line(master: Master) -> str:
    count = len(master.vm.disks)
    return f"{master.disk.label} of {count} disk{'s' if count > 1 else ''}"


def _gap_line(gaps: list[PermissionGap]) -> str:
    missing = [gap.action for gap in gaps if not gap.optional]
    return f"missing: {', '.join(missing)}" if missing else "all privileges are there"
