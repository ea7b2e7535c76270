"""The main job by a plain script, then checked with tools that are not ours.

One long story in order: each test uses what the ones before it made. Both workflows tell it, from a
vDisk that lies in a store and from a master image that was exported into one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from imageport.citrix.vdisk_store import IfExists
from imageport.compose.contract import EngineReport
from imageport.errors import NameTaken
from imageport.model import MIB, TransferStats
from imageport.progress import EventKind
from imageport.sandbox.firmware import boot_firmware, probe_kvm
from imageport.workflow.preflight import preflight
from imageport.workflow.prepare import prepare
from imageport.workflow.publish import publish
from imageport.workflow.upload import stats_of, upload
from imageport.workflow.verify import verify_publication
from tests.end_to_end.laboratory import Laboratory


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


Made = TypeVar("Made")
STAGES = ("export", "preflight", "upload", "prepare", "publish")


def timed(laboratory: Laboratory, stage: str, call: Callable[[], Made]) -> Made:
    """Carry out a stage and note how long it took, for the last line of the story."""
    started = time.monotonic()
    made = call()
    laboratory.seconds[stage] = time.monotonic() - started
    return made


def cut_windows_volume(disk: Path, volume: Path) -> Path:
    """Copy the largest partition of a raw disk into a file of its own."""
    rows = [line.split() for line in run("sgdisk", "-p", disk).splitlines()]
    parts = [(int(row[1]), int(row[2])) for row in rows if row and row[0].isdecimal()]
    first, last = max(parts, key=lambda part: part[1] - part[0])
    run(
        "dd", f"if={disk}", f"of={volume}", "bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes",
        f"skip={first * 512}", f"count={(last - first + 1) * 512}",
    )  # fmt: skip
    return volume


class Story:
    """What every workflow does with an image that lies at the source site."""

    def test_preflight_accepts_the_vdisk_and_says_what_it_is(self, laboratory: Laboratory) -> None:
        source = laboratory.source_file
        laboratory.story["source_digest"] = run("sha256sum", source).split()[0]
        place = laboratory.place("run-1")
        report = timed(
            laboratory,
            "preflight",
            lambda: preflight(
                place,
                laboratory.source_store(),
                "gold",
                laboratory.choices(),
                payload=laboratory.payload(),
            ),
        )
        assert report.inspection.product_name.startswith("Windows 11")
        assert report.inspection.source_platform == "vmware"
        assert report.planned_changes > 0
        assert report.estimate
        laboratory.story["preflight"] = report

    def test_upload_reads_only_what_is_allocated(self, laboratory: Laboratory) -> None:
        found = laboratory.story["preflight"]
        uploaded = timed(
            laboratory,
            "upload",
            lambda: upload(
                laboratory.place("run-1"),
                laboratory.source_store(),
                "gold",
                source_key=found.source_key,
            ),
        )
        stats = stats_of(uploaded)
        with laboratory.source_store().folder.open_read("gold.vhdx") as file:
            allocated = sum(length for _, length in file.allocated_ranges())
        assert 0 < stats.bytes_read <= allocated * 1.01
        assert stats.bytes_sent <= allocated * 1.01
        laboratory.story["uploaded"] = uploaded

    def test_a_second_upload_of_the_same_content_moves_nothing(
        self, laboratory: Laboratory
    ) -> None:
        before = len(laboratory.events)
        again = upload(
            laboratory.place("run-2"),
            laboratory.source_store(),
            "gold",
            source_key=laboratory.story["preflight"].source_key,
        )
        assert again.id == laboratory.story["uploaded"].id
        notes = [event.note for event in laboratory.events[before:] if event.note]
        assert any("nothing had to move" in note for note in notes)

    def test_prepare_composes_boots_once_and_judges(self, laboratory: Laboratory) -> None:
        prepared = timed(
            laboratory,
            "prepare",
            lambda: prepare(
                laboratory.place("run-1"),
                laboratory.story["uploaded"].id,
                laboratory.choices(),
                payload=laboratory.payload(),
            ),
        )
        verified = EngineReport.from_json(prepared.details["verified"])
        assert verified.first_boot["state"] == "done"
        assert all(item.passed for item in verified.verdict)
        assert "imageport-firstboot: done" in prepared.details["console"]
        laboratory.story["prepared"] = prepared

    def test_publish_writes_a_new_vdisk_into_the_second_store(self, laboratory: Laboratory) -> None:
        place = laboratory.place("run-1-publish")
        store = laboratory.store("target-store")
        publication = timed(
            laboratory,
            "publish",
            lambda: publish(
                place, laboratory.story["prepared"].id, store, f"gold-{laboratory.cloud.name}"
            ),
        )
        assert publication.file_name == f"gold-{laboratory.cloud.name}.vhdx"
        checked = verify_publication(
            place, laboratory.story["prepared"].id, store, publication.file_name
        )
        assert checked.blocks_checked > 0
        laboratory.story["publication"] = publication

    def test_only_what_the_catalogue_holds_is_left_in_the_cloud(
        self, laboratory: Laboratory
    ) -> None:
        place = laboratory.place("run-1")
        kept = {
            laboratory.story["uploaded"].handle["snapshot_id"],
            laboratory.story["prepared"].handle["snapshot_id"],
        }
        assert {resource.id for resource in place.cloud.list_ours("site-a")} == kept
        assert not [
            path
            for path in laboratory.share("target-store").iterdir()
            if path.suffix not in {".vhdx", ".xml"}
        ]

    def test_publishing_again_moves_nothing_and_another_image_is_never_replaced(
        self,
        laboratory: Laboratory,
    ) -> None:
        place = laboratory.place("run-3")
        store = laboratory.store("target-store")
        before = len(laboratory.events)
        again = publish(
            place, laboratory.story["prepared"].id, store, f"gold-{laboratory.cloud.name}"
        )
        assert again == laboratory.story["publication"]
        assert all(event.kind is not EventKind.ADVANCED for event in laboratory.events[before:])
        (laboratory.share("target-store") / "taken.vhdx").write_bytes(b"somebody's")
        with pytest.raises(NameTaken):
            publish(
                place, laboratory.story["prepared"].id, store, "taken", if_exists=IfExists.REFUSE
            )
        taken = laboratory.share("target-store") / "taken.vhdx"
        assert taken.read_bytes() == b"somebody's"
        taken.unlink()

    def test_qemu_finds_the_published_file_sound_and_equal_to_the_prepared_disk(
        self, laboratory: Laboratory, tmp_path: Path
    ) -> None:
        published = laboratory.share("target-store") / f"gold-{laboratory.cloud.name}.vhdx"
        run("qemu-img", "check", "-f", "vhdx", published)
        prepared = tmp_path / "prepared.raw"
        snapshot = laboratory.story["prepared"].handle["snapshot_id"]
        with (
            laboratory.place("check").cloud.open_snapshot(snapshot) as disk,
            prepared.open("wb") as out,
        ):
            out.truncate(disk.size_bytes)
            for extent in disk.extents():
                if extent.state.value == "data":
                    for offset, piece in disk.read_many(
                        [(extent.offset_bytes, extent.length_bytes)]
                    ):
                        out.seek(offset)
                        out.write(piece)
        run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", prepared, published)

    def test_the_published_vdisk_boots_under_ovmf_with_empty_nvram(
        self, laboratory: Laboratory, tmp_path: Path
    ) -> None:
        raw = tmp_path / "published.raw"
        run(
            "qemu-img", "convert", "-f", "vhdx", "-O", "raw",
            laboratory.share("target-store") / f"gold-{laboratory.cloud.name}.vhdx", raw,
        )  # fmt: skip
        result = boot_firmware(raw, tmp_path / "serial.txt", 240.0)
        assert result.powered_off, result.serial_text
        laboratory.story["raw"] = raw

    def test_virt_inspector_recognises_the_published_windows(self, laboratory: Laboratory) -> None:
        backend = {} if probe_kvm() else {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
        text = run(
            "virt-inspector", "--format=raw", "-a", laboratory.story["raw"], "--no-icon", **backend
        )
        # Debian 12's libguestfs 1.48 calls every Windows 11 win10, as its registry does.
        assert "<name>windows</name>" in text
        assert "<product_name>Windows 1" in text
        assert "<arch>x86_64</arch>" in text

    @pytest.mark.parametrize("control_set", ["ControlSet001", "ControlSet002"])
    def test_hivexget_reads_boot_drivers_and_vmware_services_in_every_control_set(
        self, laboratory: Laboratory, windows_volume: Path, control_set: str
    ) -> None:
        system = windows_volume / "Windows" / "System32" / "config" / "SYSTEM"

        def value(service: str, name: str) -> str:
            return run("hivexget", system, f"\\{control_set}\\Services\\{service}", name).strip()

        services = run("hivexregedit", "--export", system, f"\\{control_set}\\Services")
        assert "vmtools" not in services.lower()
        assert "vsock" not in services.lower()
        for driver in laboratory.cloud.boot_drivers:
            assert value(driver, "Start") == "0"
            # A key of its own, which hivexget does not list among its parent's values.
            override = f"\\{control_set}\\Services\\{driver}\\StartOverride"
            asked = subprocess.run(["hivexget", system, override], capture_output=True, check=False)
            assert asked.returncode != 0, f"{driver}: {asked.stdout!r}"

    def test_hivexget_reads_the_new_controllers_of_the_vda(self, windows_volume: Path) -> None:
        software = windows_volume / "Windows" / "System32" / "config" / "SOFTWARE"
        found = run("hivexget", software, r"\Citrix\VirtualDesktopAgent", "ListOfDDCs")
        assert found.strip() == "ddc1.cloud.example"

    def test_no_hive_and_no_added_file_is_open_to_ordinary_users(
        self, laboratory: Laboratory, windows_volume: Path
    ) -> None:
        ours = "Windows/ImageportFirstBoot/plan.txt"
        for path in ("Windows/System32/config/SYSTEM", "Windows/System32/config/SOFTWARE", ours):
            assert (windows_volume / path).exists()
            text = run("ntfssecaudit", "-v", laboratory.story["volume"], "/" + path)
            assert "S-1-1-0" not in text, f"{path} grants Everyone something"
        assert "S-1-5-32-545" not in text, f"{ours} grants Users something"

    def test_foreign_and_own_digest_of_the_source_agree_that_it_was_never_written(
        self,
        laboratory: Laboratory,
    ) -> None:
        assert (
            run("sha256sum", laboratory.source_file).split()[0]
            == (laboratory.story["source_digest"])
        )

    def test_the_stages_add_up(self, laboratory: Laboratory) -> None:
        """Print the row of docs/clouds.md: ``pytest -s`` shows it."""
        up = stats_of(laboratory.story["uploaded"])
        down = TransferStats(**laboratory.story["publication"].stats)
        seconds = laboratory.seconds
        assert list(seconds)[-4:] == ["preflight", "upload", "prepare", "publish"]
        columns = [type(self).__name__.removeprefix("Test"), laboratory.cloud.name]
        columns += [f"{seconds[stage]:.0f}" if stage in seconds else "-" for stage in STAGES]
        columns += [str(figure // MIB) for figure in (up.bytes_read, up.bytes_sent)]
        columns += [str(figure // MIB) for figure in (down.bytes_read, down.bytes_sent)]
        sys.stdout.write(f"\n| {' | '.join(columns)} |\n")
