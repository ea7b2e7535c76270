"""Images of the emulated Compute Engine: archives are opened, sources looked at."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from imageport.model import GIB
from imageport.sandbox.gcp import gce_images
from imageport.sandbox.gcp.account import BUCKET, KMS_KEY, PROJECT, REGION, ZONE
from imageport.sandbox.gcp.gce_archive import unpack
from tests.sandbox.gcp.gce_lab import GceLab, packed, raw_disk, refused

PARTS = {0: b"first" * 200, 700_000: b"middle", GIB - 5: b"last!"}


def image(lab: GceLab, name: str) -> Any:
    return lab.ask("Images", "get", "global", image=name)


def insert(lab: GceLab, body: dict[str, Any], **given: Any) -> Any:
    return lab.ask("Images", "insert", "global", image_resource=body, **given)


def holds(path: Path, parts: dict[int, bytes]) -> bool:
    with path.open("rb") as file:
        return all(
            file.seek(at) == at and file.read(len(data)) == data for at, data in parts.items()
        )


def test_what_gnu_tar_packs_becomes_an_image_and_a_disk_with_the_same_bytes(
    gce: GceLab, tmp_path: Path
):
    raw_disk(tmp_path, PARTS)
    data = gzip.compress(packed(tmp_path), 1)
    body = gce.image_body(
        gce.put(data), storage_locations=[REGION], labels={"team": "desktop"},
        guest_os_features=[{"type_": "WINDOWS"}, {"type_": "GVNIC"}],
    )  # fmt: skip
    assert not insert(gce, body).error.errors
    found = image(gce, body["name"])
    assert (found.status, found.disk_size_gb, found.archive_size_bytes) == ("READY", 1, len(data))
    assert list(found.storage_locations) == [REGION]
    file = gce.file("images", body["name"])
    assert (file.stat().st_size, holds(file, PARTS)) == (GIB, True)
    assert file.stat().st_blocks * 512 < GIB // 100
    path = gce.disk(source_image=f"global/images/{body['name']}", size_gb=2, guest_os_features=[])
    disk = gce.ask("Disks", "get", disk=path.rsplit("/", 1)[-1])
    assert {item.type_ for item in disk.guest_os_features} == {"WINDOWS", "GVNIC"}
    file = gce.file("disks", disk.name)
    assert (file.stat().st_size, holds(file, {700_000: b"middle"})) == (2 * GIB, True)


def test_an_archive_may_come_in_several_gzip_members(gce: GceLab, tmp_path: Path):
    raw_disk(tmp_path, PARTS)
    whole = packed(tmp_path)
    data = b"".join(gzip.compress(whole[at : at + 3000], 1) for at in range(0, len(whole), 3000))
    body = gce.image_body(gce.put(data))
    assert not insert(gce, body).error.errors
    assert holds(gce.file("images", body["name"]), PARTS)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_an_archive_stays_until_its_image_is_made(
    gce: GceLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
):
    raw_disk(tmp_path, PARTS)
    body = gce.image_body(gce.put(gzip.compress(packed(tmp_path), 1)))
    key = body["raw_disk"]["source"].partition(f"/{BUCKET}/")[2]

    def unpack_meanwhile(archive: BinaryIO, disk: Path) -> int:
        size_bytes = unpack(archive, disk)
        if change == "deleted":
            assert gce.gcs.ask("DELETE", gce.gcs.at(key)).status == 204
        else:
            assert gce.gcs.put(key, b"x").status == 200
        return size_bytes

    monkeypatch.setattr(gce_images, "unpack", unpack_meanwhile)
    done = insert(gce, body)
    assert [item.code for item in done.error.errors] == ["RESOURCE_NOT_FOUND"]
    assert image(gce, body["name"]).status == "FAILED"


def _renamed(folder: Path) -> bytes:
    raw_disk(folder, PARTS).rename(folder / "image.raw")
    return packed(folder, "image.raw")


def _odd_size(folder: Path) -> bytes:
    raw_disk(folder, PARTS, GIB + 512)
    return packed(folder)


def _two_members(folder: Path) -> bytes:
    raw_disk(folder, PARTS)
    (folder / "more.txt").write_text("more")
    return packed(folder, "disk.raw", "more.txt")


def _of_format(name: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        raw_disk(folder, PARTS)
        return packed(folder, options=(f"--format={name}", "-S"))

    return make


def _empty(_folder: Path) -> bytes:
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").close()
    return file.getvalue()


def _with_field(at: int, field: bytes) -> Callable[[Path], bytes]:
    """Change a field of the header, whose checksum is right all the same."""

    def make(folder: Path) -> bytes:
        raw_disk(folder, PARTS)
        data = bytearray(packed(folder))
        data[at : at + len(field)] = field
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        return bytes(data)

    return make


def _of_size(size_bytes: int) -> Callable[[Path], bytes]:
    return _with_field(483, b"\x80" + size_bytes.to_bytes(11, "big"))


BAD_TARS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "another name": (_renamed, "was named 'image.raw'. It should be named 'disk.raw'."),
    "no whole GiB": (_odd_size, "no whole number of GiB"),
    "two members": (_two_members, "more than disk.raw"),
    "larger than a disk can be": (_of_size(65537 * GIB), "beyond that of any disk"),
    "larger than a number can be": (_of_size(GIB << 50), "beyond that of any disk"),
    "posix format": (_of_format("posix"), "Supported formats are: GNU and OLDGNU."),
    "gnu without its magic": (lambda folder: _of_format("gnu")(folder).replace(
        b"ustar  \0", b"ustar\00000", 1), "format is not supported"),
    "nothing": (_empty, "format is not supported"),
    # The first offset, 8 GiB - 1.
    "a map that is wrong": (_with_field(386, b"07777777777\0"), "map of sparse parts"),
    "no end": (
        lambda folder: _of_format("oldgnu")(folder).rstrip(b"\0") + bytes(3), "it has no end"),
    "something behind it": (lambda folder: _of_format("oldgnu")(folder) + b"x" * 20480,
        "after the end"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TARS)
def test_an_archive_that_is_none_makes_an_image_that_failed(gce: GceLab, tmp_path: Path, case: str):
    make, text = BAD_TARS[case]
    _fails(gce, gzip.compress(make(tmp_path), 1), text)


@pytest.mark.parametrize("cut", [0, 20, -9, -3])
def test_a_stream_that_is_not_whole_is_refused(gce: GceLab, tmp_path: Path, cut: int):
    raw_disk(tmp_path, PARTS)
    _fails(gce, gzip.compress(packed(tmp_path), 1)[:cut], "The tar archive ")


def test_a_wrong_checksum_is_seen(gce: GceLab, tmp_path: Path):
    raw_disk(tmp_path, PARTS)
    data = bytearray(gzip.compress(packed(tmp_path), 1))
    data[-6] ^= 1
    _fails(gce, bytes(data), "gzip")


def _fails(gce: GceLab, data: bytes, text: str) -> None:
    body = gce.image_body(gce.put(data))
    done = insert(gce, body)
    [error] = done.error.errors
    assert (error.code, done.http_error_status_code) == ("INVALID_IMAGE_FILE", 400)
    assert text in error.message
    assert image(gce, body["name"]).status == "FAILED"
    with refused(409, "alreadyExists"):
        insert(gce, body)
    gce.made("Images", "delete", "global", image=body["name"])


URL = f"https://storage.googleapis.com/{BUCKET}/x"
REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "name": ({"name": "Bad_Name"}, 400, "invalid", "Must be a match of regex"),
    "no name": ({"name": ""}, 400, "required", "resource.name"),
    "no source": ({}, 400, "invalid", "sourceType"),
    "two sources": ({"raw_disk": {"source": URL}, "source_disk": "zones/z/disks/d"},
        400, "invalid", "sourceType"),
    "gs url": ({"raw_disk": {"source": f"gs://{BUCKET}/x"}}, 400, "invalid", "has to begin with"),
    "no object": ({"raw_disk": {"source": URL}}, 404, "notFound", "was not found"),
    "another bucket": ({"raw_disk": {"source": "https://storage.googleapis.com/else/x"}},
        404, "notFound", "was not found"),
    "container": ({"raw_disk": {"source": URL, "container_type": "ZIP"}},
        400, "invalid", "Must be TAR"),
    "no disk": ({"source_disk": f"zones/{ZONE}/disks/none"}, 400, "invalid", "cannot be found"),
    "url": ({"source_disk": "disks/none"}, 400, "invalid", "malformed"),
    "location": ({"storage_locations": ["nowhere"]}, 400, "invalid", "storageLocations"),
    "two locations": ({"storage_locations": ["eu", "us"]}, 400, "invalid", "storageLocations"),
    "label key": ({"labels": {"Team": "x"}}, 400, "invalid", "labels"),
    "label value": ({"labels": {"team": "a b"}}, 400, "invalid", "labels"),
    "description": ({"description": "x" * 2049}, 400, "invalid", "2048"),
    "feature": ({"guest_os_features": [{"type_": "MAGIC"}]}, 400, "invalid", "MAGIC"),
    "family": ({"family": "Gold_2"}, 400, "invalid", "resource.family"),
    "architecture": ({"architecture": "MIPS"}, 400, "invalid", "X86_64, ARM64"),
    "more than the sandbox can": ({"licenses": ["x"]}, 400, "invalid", "licenses"),
    "key": ({"raw_disk": {"source": URL}, "image_encryption_key": {"kms_key_name": "k"}},
        400, "invalid", "useToEncrypt"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_body_that_makes_no_image_is_refused(gce: GceLab, case: str):
    facts, status, reason, text = REFUSED[case]
    with refused(status, reason, text):
        insert(gce, gce.image_body(**facts))


def test_members_that_google_does_not_know_are_refused(gce: GceLab):
    gcs = gce.gcs
    path = f"/compute/v1/projects/{PROJECT}/global/images"
    for body in (b'{"name": "x", "rawdisk": {}}', b'{"name": 5}', b"[]", b"no json", b""):
        assert gcs.ask("POST", path, body).status == 400
    for query in ("?maxresults=5", "?project=other", "?maxResults=x"):
        assert gcs.ask("GET", path + query).status == 400
    assert gcs.ask("GET", f"{path}?prettyPrint=false").status == 200
    assert gcs.ask("PATCH", path).status == 405
    assert gcs.ask("GET", "/compute/v1/projects/other/global/images").status == 404
    assert gcs.ask("GET", f"/compute/v1/projects/{PROJECT}/global/magic").status == 404


def test_a_disk_becomes_an_image_with_its_features_and_key(gce: GceLab):
    disk = gce.disk()
    body = gce.image_body(
        source_disk=disk, guest_os_features=[{"type_": "MULTI_IP_SUBNET"}],
        image_encryption_key={"kms_key_name": KMS_KEY}, family="gold",
    )  # fmt: skip
    assert not insert(gce, body).error.errors
    found = gce.ask("Images", "get_from_family", "global", family="gold")
    assert found.name == body["name"]
    assert found.source_disk.endswith(disk)
    assert found.image_encryption_key.kms_key_name == f"{KMS_KEY}/cryptoKeyVersions/1"
    features = {item.type_ for item in found.guest_os_features}
    assert features == {"WINDOWS", "UEFI_COMPATIBLE", "GVNIC", "MULTI_IP_SUBNET"}
    assert holds(gce.file("images", body["name"]), {0: b"a disk that boots"})


def test_a_disk_that_a_running_machine_has_is_imaged_by_force_alone(gce: GceLab):
    disk = gce.disk()
    machine = gce.machine(disks=[
        gce.machine_body()["disks"][0], {"source": disk, "mode": "READ_ONLY"},
    ])  # fmt: skip
    body = gce.image_body(source_disk=disk)
    with refused(400, "resourceInUseByAnotherResource", f"instances/{machine}"):
        insert(gce, body)
    assert not insert(gce, body, force_create=True).error.errors
    gce.made("Instances", "stop", instance=machine)
    assert not insert(gce, body | {"name": gce.name()}).error.errors
    gce.made("Instances", "delete", instance=machine)


def test_lists_are_filtered_and_come_in_pages(gce: GceLab):
    disk = gce.disk()
    names = [gce.name("listed") for _ in range(3)]
    for name in names:
        insert(gce, {"name": name, "source_disk": disk, "labels": {"site": "listed"}})
    images = gce.client("Images")
    request = {"project": PROJECT, "filter": 'labels.site="listed"', "max_results": 1}
    pager = images.list(request)
    assert [len(page.items) for page in pager.pages] == [1, 1, 1]
    assert sorted(item.name for item in images.list(request)) == sorted(names)
    one = {"project": PROJECT, "filter": f"(labels.site = listed) AND (name != {names[0]})"}
    assert sorted(item.name for item in images.list(one)) == sorted(names[1:])
    assert list(images.list({"project": PROJECT, "filter": "name = nothing"})) == []
    with refused(400, "invalid", "filter"):
        list(images.list({"project": PROJECT, "filter": "name is x"}, retry=None))
    assert [item.family for item in images.list(project="debian-cloud")] == ["debian-12"]


def test_labels_are_changed_by_whoever_read_them_last(gce: GceLab):
    body = gce.image_body(source_disk=gce.disk(), labels={"a": "1"})
    insert(gce, body)
    found = image(gce, body["name"])
    labels = {"labels": {"a": "2"}, "label_fingerprint": found.label_fingerprint}
    given = {"resource": body["name"], "global_set_labels_request_resource": labels}
    gce.made("Images", "set_labels", "global", **given)
    assert image(gce, body["name"]).labels == {"a": "2"}
    with refused(412, "conditionNotMet", "Labels fingerprint"):
        gce.ask("Images", "set_labels", "global", **given)


def test_a_deleted_image_is_gone_with_its_bytes(gce: GceLab):
    body = gce.image_body(source_disk=gce.disk())
    insert(gce, body)
    file = gce.file("images", body["name"])
    gce.made("Images", "delete", "global", image=body["name"])
    assert not file.exists()
    with refused(404, "notFound", f"projects/{PROJECT}/global/images/{body['name']}"):
        image(gce, body["name"])
    with refused(404, "notFound"):
        gce.ask("Images", "delete", "global", image=body["name"])
    insert(gce, body)


def test_labels_need_a_permission_of_their_own(gce: GceLab):
    body = gce.image_body(source_disk=gce.disk(), labels={"team": "desktop"})
    gce.knobs.denied = ["compute.images.setLabels"]
    with refused(403, "forbidden", f"images/{body['name']}"):
        insert(gce, body)


def test_the_quota_of_images_is_kept(gce: GceLab):
    disk = gce.disk()
    gce.knobs.quotas = {"IMAGES": 0.0}
    with refused(403, "quotaExceeded", "Quota 'IMAGES' exceeded.  Limit: 0.0 globally."):
        insert(gce, gce.image_body(source_disk=disk))
