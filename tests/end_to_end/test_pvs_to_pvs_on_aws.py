"""The main job by a plain script, then checked with tools that are not ours.

One long story in order: each test uses what the ones before it made.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from imageport.citrix.vdisk_store import IfExists
from imageport.compose.contract import EngineReport
from imageport.errors import NameTaken
from imageport.progress import EventKind
from imageport.sandbox.firmware import boot_firmware
from imageport.workflow.preflight import preflight
from imageport.workflow.prepare import prepare
from imageport.workflow.publish import publish
from imageport.workflow.upload import stats_of, upload
from imageport.workflow.verify import verify_publication
from tests.end_to_end.laboratory import Laboratory

pytestmark = [pytest.mark.guest, pytest.mark.timeout(1200)]

STORY: dict[str, Any] = {}
"""What one chapter leaves for the next."""

NTFS_FIRST_BYTE_PARTITION = 3


def run(*argv: object, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LIBGUESTFS_BACKEND": "direct", **env},
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def test_preflight_accepts_the_vdisk_and_says_what_it_is(laboratory: Laboratory) -> None:
    place = laboratory.place("run-1")
    report = preflight(
        place,
        laboratory.store("source-store"),
        "gold",
        laboratory.choices(),
        payload=laboratory.payload(),
    )
    assert report.inspection.product_name.startswith("Windows 11")
    assert report.inspection.source_platform == "vmware"
    assert report.planned_changes > 0
    assert report.estimate
    STORY["preflight"] = report


def test_upload_reads_only_what_is_allocated(laboratory: Laboratory) -> None:
    found = STORY["preflight"]
    uploaded = upload(
        laboratory.place("run-1"),
        laboratory.store("source-store"),
        "gold",
        source_key=found.source_key,
    )
    stats = stats_of(uploaded)
    with laboratory.store("source-store").folder.open_read("gold.vhdx") as file:
        allocated = sum(length for _, length in file.allocated_ranges())
    assert 0 < stats.bytes_read <= allocated * 1.01
    assert stats.bytes_sent <= allocated * 1.01
    STORY["uploaded"] = uploaded


def test_a_second_upload_of_the_same_content_moves_nothing(laboratory: Laboratory) -> None:
    before = len(laboratory.events)
    again = upload(
        laboratory.place("run-2"),
        laboratory.store("source-store"),
        "gold",
        source_key=STORY["preflight"].source_key,
    )
    assert again.id == STORY["uploaded"].id
    notes = [event.note for event in laboratory.events[before:] if event.note]
    assert any("nothing had to move" in note for note in notes)


def test_prepare_composes_boots_once_and_judges(laboratory: Laboratory) -> None:
    prepared = prepare(
        laboratory.place("run-1"),
        STORY["uploaded"].id,
        laboratory.choices(),
        payload=laboratory.payload(),
    )
    verified = EngineReport.from_json(prepared.details["verified"])
    assert verified.first_boot["state"] == "done"
    assert all(item.passed for item in verified.verdict)
    assert "imageport-firstboot: done" in prepared.details["console"]
    STORY["prepared"] = prepared


def test_publish_writes_a_new_vdisk_into_the_second_store(laboratory: Laboratory) -> None:
    place = laboratory.place("run-1-publish")
    store = laboratory.store("target-store")
    publication = publish(place, STORY["prepared"].id, store, "gold-aws")
    assert publication.file_name == "gold-aws.vhdx"
    checked = verify_publication(place, STORY["prepared"].id, store, publication.file_name)
    assert checked.blocks_checked > 0
    STORY["publication"] = publication


def test_only_what_the_catalogue_holds_is_left_in_the_cloud(laboratory: Laboratory) -> None:
    place = laboratory.place("run-1")
    kept = {STORY["uploaded"].handle["snapshot_id"], STORY["prepared"].handle["snapshot_id"]}
    assert {resource.id for resource in place.cloud.list_ours("site-a")} == kept
    assert not [
        path
        for path in laboratory.share("target-store").iterdir()
        if path.suffix not in {".vhdx", ".xml"}
    ]


def test_publishing_again_moves_nothing_and_another_image_is_never_replaced(
    laboratory: Laboratory,
) -> None:
    place = laboratory.place("run-3")
    store = laboratory.store("target-store")
    before = len(laboratory.events)
    again = publish(place, STORY["prepared"].id, store, "gold-aws")
    assert again == STORY["publication"]
    assert all(event.kind is not EventKind.ADVANCED for event in laboratory.events[before:])
    (laboratory.share("target-store") / "taken.vhdx").write_bytes(b"somebody's")
    with pytest.raises(NameTaken):
        publish(place, STORY["prepared"].id, store, "taken", if_exists=IfExists.REFUSE)
    taken = laboratory.share("target-store") / "taken.vhdx"
    assert taken.read_bytes() == b"somebody's"
    taken.unlink()


def test_qemu_finds_the_published_file_sound_and_equal_to_the_prepared_disk(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    published = laboratory.share("target-store") / "gold-aws.vhdx"
    run("qemu-img", "check", "-f", "vhdx", published)
    prepared = tmp_path / "prepared.raw"
    snapshot = STORY["prepared"].handle["snapshot_id"]
    with (
        laboratory.place("check").cloud.open_snapshot(snapshot) as disk,
        prepared.open("wb") as out,
    ):
        out.truncate(disk.size_bytes)
        for extent in disk.extents():
            if extent.state.value == "data":
                for offset, piece in disk.read_many([(extent.offset_bytes, extent.length_bytes)]):
                    out.seek(offset)
                    out.write(piece)
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", prepared, published)


def test_the_published_vdisk_boots_under_ovmf_with_empty_nvram(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    raw = tmp_path / "published.raw"
    run(
        "qemu-img", "convert", "-f", "vhdx", "-O", "raw",
        laboratory.share("target-store") / "gold-aws.vhdx", raw,
    )  # fmt: skip
    result = boot_firmware(raw, tmp_path / "serial.txt", 240.0)
    assert result.powered_off, result.serial_text
    STORY["raw"] = raw
