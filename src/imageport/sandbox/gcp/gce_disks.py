# References: Compute Engine REST v1, "disks"; "About Persistent Disk" (sizes).
"""Disks: empty or made from an image, and who uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from imageport.model import GIB
from imageport.sandbox.gcp.account import ZONE
from imageport.sandbox.gcp.gce_compute import FILE, Compute, check_key
from imageport.sandbox.gcp.gce_images import check_features, copy_bytes, find_source
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_machine_types import DISK_TYPES, LARGEST_DISK_GIB
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    already_exists,
    in_use,
    invalid,
    not_ready,
)
from imageport.sandbox.gcp.gce_names import (
    check_architecture,
    check_described,
    check_name,
    link,
    name_of,
    path_of,
)
from imageport.sandbox.gcp.gce_operations import Work
from imageport.sandbox.gcp.gce_quotas import check_quota
from imageport.sandbox.gcp.gce_table import PRIVATE, shown
from imageport.sandbox.machines.sparse_files import create_sparse

DEFAULT_BLANK_GIB: Final = 500
_KEPT: Final = ("description", "labels", "type", "sizeGb", "sourceImage", "guestOsFeatures")
_MORE: Final = ("diskEncryptionKey", "architecture", "name")


def insert(compute: Compute, request: GceRequest) -> Json:
    """Answer POST: a disk that is CREATING until its bytes are there."""
    body = request.body
    path = f"projects/{request.project}/zones/{request.zone}/disks/{check_name(body)}"
    disk, work = new_disk(compute, path, body)
    compute.table.put(path, disk)
    return compute.begin(request, "insert", path, work).document()


def new_disk(compute: Compute, path: str, body: Json) -> tuple[Json, Work]:
    """Return the document of a new disk and what makes it; it is not in the table yet."""
    unknown = set(body) - {*_KEPT, *_MORE}
    if unknown:
        text = f"The sandbox makes no disks with {', '.join(sorted(unknown))}."
        raise GceRefusal(400, "invalid", text)
    check_described(body)
    check_architecture(body)
    if body.get("labels"):
        compute.check("compute.disks.setLabels", path)
    kind = _check_type(body)
    if compute.table.get(path) is not None:
        raise already_exists(path)
    disk = compute.new("disk", path, {name: body[name] for name in _KEPT if name in body})
    disk |= {"status": "CREATING", "type": link(kind), "zone": link(f"{_zone_of(path)}")}
    disk["guestOsFeatures"] = check_features(body)
    disk[PRIVATE][FILE] = f"disk-{disk['id']}"
    if "diskEncryptionKey" in body:
        disk["diskEncryptionKey"] = check_key(body["diskEncryptionKey"], path)
    source = image = None
    if body.get("sourceImage"):
        source, image = find_source(compute, body["sourceImage"], "resource.sourceImage")
    disk["sizeGb"] = str(_check_size(body, name_of(kind), image))
    check_room(compute, [disk])

    def finish() -> None:
        _finish(compute, path, disk)

    def failed() -> None:
        remove(compute, path)

    if source is None or image is None:
        disk["architecture"] = body.get("architecture", "X86_64")
        return disk, Work(finish, failed)
    features = [*image.get("guestOsFeatures", []), *disk["guestOsFeatures"]]
    disk |= {
        "sourceImage": link(source),
        "sourceImageId": image["id"],
        "guestOsFeatures": list({one["type"]: one for one in features}.values()),
        "architecture": image["architecture"],
    }
    origin, target = compute.file(image), compute.file(disk)
    warnings = _size_warnings(int(disk["sizeGb"]), int(image["diskSizeGb"]))
    return disk, Work(finish, failed, lambda: copy_bytes(origin, target), warnings)


def check_room(compute: Compute, disks: Iterable[Json]) -> None:
    """Refuse with 403 new disks that together are beyond a quota."""
    wanted: Counter[str] = Counter()
    for disk in disks:
        wanted[DISK_TYPES[name_of(disk["type"])][1]] += int(disk["sizeGb"])
    for metric, size_gib in wanted.items():
        check_quota(compute, metric, size_gib)


def get(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a disk."""
    return shown(compute.table.require(_path(request)))


def list_disks(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the disks of a zone."""
    path = f"projects/{request.project}/zones/{request.zone}/disks"
    return page_of(request, "diskList", path, (item for _, item in compute.table.below(path)))


def delete(compute: Compute, request: GceRequest) -> Json:
    """Answer DELETE: refused while a machine has the disk, even one that is off."""
    path = _path(request)
    disk = compute.table.require(path)
    for user in disk.get("users", []):
        raise in_use(path, path_of(user, "users"))
    if disk["status"] != "READY" or compute.is_read(path):
        raise not_ready(path)
    disk["status"] = "DELETING"
    compute.table.put(path, disk)

    def failed() -> None:
        disk["status"] = "READY"
        compute.table.put(path, disk)

    return compute.begin(
        request, "delete", path, Work(lambda: remove(compute, path), failed)
    ).document()


def remove(compute: Compute, path: str) -> None:
    """Remove a disk at once; one that is gone is no error."""
    disk = compute.table.get(path)
    if disk is not None:
        compute.file(disk).unlink(missing_ok=True)
        compute.table.drop(path)


def set_users(compute: Compute, path: str, machine: str, *, used: bool) -> None:
    """Note that a machine has a disk, or has it no more."""
    disk = compute.table.get(path)
    if disk is None:
        return
    users = [item for item in disk.get("users", []) if item != link(machine)]
    disk["users"] = [*users, link(machine)] if used else users
    if not disk["users"]:
        del disk["users"]
    compute.table.put(path, disk)


def _finish(compute: Compute, path: str, disk: Json) -> None:
    """Give the disk its size, which may be beyond its image's, and say that it is there."""
    file = compute.file(disk)
    size_bytes = int(disk["sizeGb"]) * GIB
    if file.exists():
        with file.open("r+b") as opened:
            opened.truncate(size_bytes)
    else:
        create_sparse(file, size_bytes)
    disk["status"] = "READY"
    compute.table.put(path, disk)


def _check_type(body: Json) -> str:
    """Return the path of the disk type."""
    given = str(body.get("type", "")) or f"zones/{ZONE}/diskTypes/pd-standard"
    path = path_of(given, "resource.type", f"zones/{ZONE}")
    if "/diskTypes/" not in path or name_of(path) not in DISK_TYPES:
        text = f"Disk type with name '{name_of(path)}' does not exist in zone '{ZONE}'."
        raise invalid("resource.type", given, text)
    return path


def _check_size(body: Json, kind: str, image: Json | None) -> int:
    least = DISK_TYPES[kind][0]
    asked = int(body.get("sizeGb", 0))
    if image is not None:
        whole = int(image["diskSizeGb"])
        if asked and asked < whole:
            text = f"Requested disk size cannot be smaller than the image size ({whole} GB)"
            raise invalid("resource.sizeGb", asked, text)
        asked = asked or max(whole, least)
    asked = asked or DEFAULT_BLANK_GIB
    if not least <= asked <= LARGEST_DISK_GIB:
        text = f"Disk size has to be from {least} to {LARGEST_DISK_GIB} GB for {kind}."
        raise invalid("resource.sizeGb", asked, text)
    return asked


def _size_warnings(size_gib: int, image_gib: int) -> tuple[Json, ...]:
    """Return what Google says beside the success of an operation: no reason to give up."""
    if size_gib == image_gib:
        return ()
    text = (
        f"Disk size: '{size_gib} GB' is larger than image size: '{image_gib} GB'. You might need "
        "to resize the root repartition manually if the operating system does not support "
        "automatic resizing."
    )
    return ({"code": "DISK_SIZE_LARGER_THAN_IMAGE_SIZE", "message": text},)


def _zone_of(path: str) -> str:
    return "/".join(path.split("/")[:4])


def _path(request: GceRequest) -> str:
    return f"projects/{request.project}/zones/{request.zone}/disks/{request.fields['disk']}"
