"""A master image as it stands in its hypervisor, and what of it lies in the export folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from imageport.citrix.names import check_vdisk_name, same_name
from imageport.citrix.vdisk_files import VdiskFiles
from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import NameTaken
from imageport.hypervisor import FrozenDisk, Hypervisor, Vm, VmDisk, VmSnapshot
from imageport.model import GenerationRole
from imageport.state.records import Generation
from imageport.state.store import StateStore
from imageport.workflow.facts import image_name
from imageport.workflow.place import SitePlace
from imageport.workflow.store_file import is_untouched


class ExportWay(StrEnum):
    """How the disk's bytes come."""

    AUTO = "auto"
    """Only what changed where the platform tells, else as a stream, else by ranges."""
    STREAM = "stream"
    """In one go, only what is allocated; a stream that was cut is read again from its start."""
    RANGES = "ranges"
    """In parts, which a killed run does not read again; where the platform offers it."""


@dataclass(frozen=True, slots=True)
class WantedMaster:
    """Which disk of which machine, as whom."""

    vm: str
    """Inventory path."""
    image: str = ""
    """Name of the vDisk; empty takes the machine's."""
    snapshot: str = ""
    """Name of a snapshot of the machine; empty takes one and removes it afterwards."""
    disk: str = ""
    """Label or key; empty is the boot disk."""
    way: ExportWay = ExportWay.AUTO


@dataclass(frozen=True, slots=True)
class ExportPlace(SitePlace):
    """One run at the source site: the hypervisor, and the folder that exports are written to."""

    hypervisor: Hypervisor
    store: VdiskStore


@dataclass(frozen=True, slots=True)
class Master:
    """What the hypervisor says of a wanted disk."""

    vm: Vm
    disk: VmDisk
    image: str
    """The vDisk's name, checked."""
    snapshot: VmSnapshot | None
    """None when one has to be taken."""


def export_target(site: str) -> str:
    """Return what the catalogue calls the place of a site's exports."""
    return f"export/{site}"


def look_up(hypervisor: Hypervisor, wanted: WantedMaster) -> Master:
    """Find machine, snapshot and disk.

    Raises:
        VmMissing, InputError: names what there is.
    """
    vm = hypervisor.find_vm(wanted.vm)
    snapshot = vm.snapshot(wanted.snapshot) if wanted.snapshot else None
    return Master(vm, vm.disk(wanted.disk), check_vdisk_name(wanted.image or vm.name), snapshot)


def exports_of(place: ExportPlace, image: str) -> list[Generation]:
    """Return what was exported of an image and still lies there as it was written; newest last."""
    found = place.state.catalogue.list(
        image=image_name(image), target=export_target(place.site), role=GenerationRole.SOURCE
    )
    return [item for item in found if is_untouched(place.store, item.publications[-1])]


def newest_export(place: ExportPlace, image: str) -> Generation | None:
    """Return the export that the folder gives now: none when a later version hides it.

    An older one may lie there still: its run was killed before it could go, or somebody reads it.
    """
    disks = VdiskFiles.look_up(place.store.folder, image).disks
    for generation in exports_of(place, image):
        if disks and same_name(generation.publications[-1].file_name, disks[-1].name):
            return generation
    return None


def exported_as(place: ExportPlace, image: str, key: str) -> Generation | None:
    """Return the newest export if it is of the very content that a `FrozenDisk.key` names."""
    newest = newest_export(place, image)
    known = newest is not None and key and key in newest.details.get("keys", ())
    return newest if known else None


def images_without_machine(state: StateStore, target: str, site: str) -> list[str]:
    """Return the images that were ever prepared for a target and are no exports of the site."""
    made = state.catalogue.list(target=target, role=GenerationRole.PREPARED)
    exported = state.catalogue.list(target=export_target(site), role=GenerationRole.SOURCE)
    return sorted({one.image for one in made} - {one.image for one in exported})


def refuse_foreign(place: ExportPlace, image: str) -> None:
    """Raise `NameTaken` when the folder has a file of this vDisk that is not as an export left it.

    Devices would be given the export as its next version, and it would go when that is whole.
    """
    found = VdiskFiles.look_up(place.store.folder, image)
    listed = place.state.catalogue.list(image=image_name(image), role=GenerationRole.SOURCE)
    written = [item.publications[-1] for item in listed if item.publications]
    own = {one.file_name.casefold() for one in written if is_untouched(place.store, one)}
    foreign = [disk.name for disk in found.disks if disk.name.casefold() not in own]
    if foreign:
        raise NameTaken(
            f"Cannot export to '{place.store.location}/{image}': {', '.join(foreign)} is there "
            "and was not exported, or was changed since.",
            hint="Give the image another name, move the file away, or name an export folder of its "
            "own in the site.",
        )


def described(frozen: FrozenDisk) -> dict[str, str | int]:
    """Return what the catalogue keeps of an exported disk, to ask later what changed since."""
    return {
        "hypervisor_id": frozen.hypervisor_id,
        "vm_id": frozen.vm.id,
        "vm": frozen.vm.location,
        "snapshot_id": frozen.snapshot.id,
        "snapshot": frozen.snapshot.name,
        "disk_key": frozen.disk.key,
        "disk": frozen.disk.label,
        "size_bytes": frozen.size_bytes,
        "change_id": frozen.change_id,
    }
