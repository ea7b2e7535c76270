# References: Compute Engine REST v1, "images"; "Create custom images" (source disks in use).
"""Images: made of an archive or a disk, listed, labelled, deleted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from imageport.model import GIB
from imageport.sandbox.gcp.account import BUCKET, PROJECT, REGION
from imageport.sandbox.gcp.gce_archive import unpack
from imageport.sandbox.gcp.gce_bodies import choices
from imageport.sandbox.gcp.gce_compute import FILE, Compute, check_key
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_messages import (
    GceRefusal,
    GceRequest,
    Json,
    OperationFailure,
    already_exists,
    in_use,
    invalid,
    not_found,
    not_ready,
    required,
)
from imageport.sandbox.gcp.gce_names import (
    check_architecture,
    check_described,
    check_name,
    link,
    path_of,
)
from imageport.sandbox.gcp.gce_operations import Work
from imageport.sandbox.gcp.gce_quotas import check_quota
from imageport.sandbox.gcp.gce_table import PRIVATE, shown
from imageport.sandbox.machines.file_extents import copy_sparse

SOURCES: Final = ("rawDisk", "sourceDisk", "sourceImage", "sourceSnapshot")
MULTI_REGIONS: Final = ("eu", "us", "asia")
_OBJECT: Final = re.compile(r"https://storage\.googleapis\.com/([^/]+)/(.+)")
_KEPT: Final = ("description", "family", "labels", "architecture")
"""Members of a body that a new image simply has."""
_MORE: Final = ("name", "guestOsFeatures", "storageLocations", "imageEncryptionKey")


def images_path(project: str) -> str:
    """Return the collection of a project's images."""
    return f"projects/{project}/global/images"


def insert(compute: Compute, request: GceRequest) -> Json:
    """Answer POST: an image that is PENDING until its bytes are there."""
    body = request.body
    path = f"{images_path(request.project)}/{check_name(body)}"
    _check_members(compute, path, body)
    features = check_features(body)
    locations = _check_locations(body)
    given = [name for name in SOURCES if body.get(name)]
    if len(given) != 1:
        raise invalid("resource.sourceType", given, f"Needs one of {', '.join(SOURCES)}.")
    if compute.table.get(path) is not None:
        raise already_exists(path)
    check_quota(compute, "IMAGES", 1)
    image = compute.new("image", path, {name: body[name] for name in _KEPT if name in body})
    image |= {"status": "PENDING", "sourceType": "RAW", "storageLocations": locations}
    image[PRIVATE][FILE] = f"image-{image['id']}"
    if "imageEncryptionKey" in body:
        image["imageEncryptionKey"] = check_key(body["imageEncryptionKey"], path)
    image["guestOsFeatures"] = features
    make = {"rawDisk": _of_archive, "sourceDisk": _of_disk}.get(given[0])
    if make is None:
        raise GceRefusal(400, "invalid", f"The sandbox makes no images of {given[0]}.")
    work = make(compute, request, path, image)
    image.setdefault("architecture", "X86_64")
    compute.table.put(path, image)
    return compute.begin(request, "insert", path, work).document()


def get(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of an image."""
    return shown(compute.table.require(_path(request, "image")))


def get_from_family(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the newest image of a family."""
    family = request.fields["family"]
    newest = newest_of_family(compute, request.project, family)
    if newest is None:
        raise not_found(f"{images_path(request.project)}/family/{family}")
    return shown(compute.table.require(newest))


def newest_of_family(compute: Compute, project: str, family: str) -> str | None:
    """Return the path of a family's newest image that is ready."""
    found = [
        (str(image["creationTimestamp"]), path)
        for path, image in compute.table.below(images_path(project))
        if image.get("family") == family and image["status"] == "READY"
    ]
    return max(found)[1] if found else None


def list_images(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of all images of a project."""
    path = images_path(request.project)
    items = (image for _, image in compute.table.below(path))
    return page_of(request, "imageList", path, items)


def delete(compute: Compute, request: GceRequest) -> Json:
    """Answer DELETE; disks that were made from the image stay."""
    path = _path(request, "image")
    image = compute.table.require(path)
    if image["status"] == "PENDING" or compute.is_read(path):
        raise not_ready(path)
    status, image["status"] = image["status"], "DELETING"
    compute.table.put(path, image)

    def finish() -> None:
        compute.file(image).unlink(missing_ok=True)
        compute.table.drop(path)

    def failed() -> None:
        image["status"] = status
        compute.table.put(path, image)

    return compute.begin(request, "delete", path, Work(finish, failed)).document()


def find_source(compute: Compute, text: str, field: str) -> tuple[str, Json]:
    """Return path and document of the image that a disk is to be made of."""
    path = path_of(text, field)
    found = re.fullmatch(r"projects/([^/]+)/global/images/family/([^/]+)", path)
    named = newest_of_family(compute, found[1], found[2]) if found else path
    image = compute.table.get(named or "")
    if image is None or named is None:
        raise not_found(path)
    if image["status"] != "READY":
        raise not_ready(named)
    if named.startswith(f"projects/{PROJECT}/"):
        compute.check("compute.images.useReadOnly", named)
    return named, image


def check_features(body: Json) -> list[Json]:
    """Return the guest OS features of an image or disk."""
    known = choices("GuestOsFeature", "Type")
    names = [str(item.get("type", "")) for item in body.get("guestOsFeatures", [])]
    for name in names:
        if name not in known:
            text = f"Must be one of {', '.join(sorted(known))}."
            raise invalid("resource.guestOsFeatures.type", name, text)
    return [{"type": name} for name in dict.fromkeys(names)]


def _check_members(compute: Compute, path: str, body: Json) -> None:
    unknown = set(body) - {*_KEPT, *_MORE, *SOURCES}
    if unknown:
        text = f"The sandbox makes no images with {', '.join(sorted(unknown))}."
        raise GceRefusal(400, "invalid", text)
    check_described(body)
    check_architecture(body)
    if body.get("family"):
        check_name(body, "family")
    if body.get("labels"):
        compute.check("compute.images.setLabels", path)


def _path(request: GceRequest, field: str) -> str:
    return f"{images_path(request.project)}/{request.fields[field]}"


def _check_locations(body: Json) -> list[str]:
    locations = list(body.get("storageLocations", ["eu"]))
    if len(locations) > 1 or locations[0] not in (REGION, *MULTI_REGIONS):
        text = "Needs one region or multi-region that exists."
        raise invalid("resource.storageLocations", ",".join(locations), text)
    return locations


def _of_archive(compute: Compute, request: GceRequest, path: str, image: Json) -> Work:
    raw = request.body["rawDisk"]
    source = str(raw.get("source", ""))
    if not source:
        raise required("resource.rawDisk.source")
    found = _OBJECT.fullmatch(source)
    if found is None:
        text = "The URL of an object has to begin with https://storage.googleapis.com/."
        raise invalid("resource.rawDisk.source", source, text)
    if raw.get("containerType", "TAR") != "TAR":
        raise invalid("resource.rawDisk.containerType", raw["containerType"], "Must be TAR.")
    name = unquote(found[2])
    compute.check("storage.objects.get", f"{found[1]}/{name}")
    objects = compute.emulator.objects
    opened = objects.open(name, lambda _found: None) if found[1] == BUCKET else None
    if opened is None:
        raise GceRefusal(404, "notFound", f"The resource '{source}' was not found")
    stored, archive = opened
    image |= {
        "rawDisk": {"source": source, "containerType": "TAR"},
        "archiveSizeBytes": str(stored.size_bytes),
    }
    size: list[int] = []
    refused: list[OperationFailure] = []

    def before() -> None:
        try:
            with archive:
                size.append(unpack(archive, compute.file(image)))
            now = objects.get(name)
            if now is None or now.generation != stored.generation:
                text = f"The resource '{source}' was not found"
                raise OperationFailure(404, "RESOURCE_NOT_FOUND", text)
        except OperationFailure as failure:
            refused.append(failure)
            raise

    def failed() -> None:
        if refused:
            # What Google could not read stays to be looked at, and holds its name.
            image["status"] = "FAILED"
            compute.table.put(path, image)
            return
        _undo(compute, path, image)

    return Work(lambda: _ready(compute, path, image, size[0]), failed, before)


def _of_disk(compute: Compute, request: GceRequest, path: str, image: Json) -> Work:
    text = str(request.body["sourceDisk"])
    source = path_of(text, "resource.sourceDisk")
    disk = compute.table.get(source)
    if disk is None:
        unknown = "The referenced disk resource cannot be found."
        raise invalid("resource.sourceDisk", text, unknown)
    compute.check("compute.disks.useReadOnly", source)
    if disk["status"] != "READY":
        raise not_ready(source)
    if not request.fields.get("forceCreate"):
        for user in disk.get("users", []):
            machine = path_of(user, "users")
            if compute.table.require(machine)["status"] != "TERMINATED":
                raise in_use(source, machine)
    features = [*disk.get("guestOsFeatures", []), *image["guestOsFeatures"]]
    image |= {
        "guestOsFeatures": list({item["type"]: item for item in features}.values()),
        "sourceDisk": link(source),
        "sourceDiskId": disk["id"],
        "architecture": disk.get("architecture", "X86_64"),
    }
    size_bytes = int(disk["sizeGb"]) * GIB
    return Work(
        lambda: _ready(compute, path, image, size_bytes),
        lambda: _undo(compute, path, image),
        lambda: copy_bytes(compute.file(disk), compute.file(image)),
    )


def copy_bytes(source: Path, target: Path) -> None:
    """Copy a disk to an image or back, sparsely; what came with the project holds nothing."""
    if source.exists():
        with source.open("rb") as file:
            copy_sparse(file.fileno(), target, source.stat().st_size)


def _ready(compute: Compute, path: str, image: Json, size_bytes: int) -> None:
    image["diskSizeGb"] = str(size_bytes // GIB)
    image.setdefault("archiveSizeBytes", str(compute.file(image).stat().st_blocks * 512))
    image["status"] = "READY"
    compute.table.put(path, image)


def _undo(compute: Compute, path: str, image: Json) -> None:
    compute.file(image).unlink(missing_ok=True)
    compute.table.drop(path)
