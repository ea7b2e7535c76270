"""MCS to PVS by a plain script: a master image of a real vcsim, exported, prepared, published."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imageport.compose.contract import EngineReport
from imageport.errors import GuestRefused
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from imageport.workflow.preflight import preflight
from tests.end_to_end.lab_clouds import LAB_CLOUDS
from tests.end_to_end.master_laboratory import MASTER, MasterLaboratory, open_master_laboratory
from tests.end_to_end.story import Story, cut_windows_volume, run, timed

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=sorted(LAB_CLOUDS))
def laboratory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MasterLaboratory]:
    root = tmp_path_factory.mktemp(f"master-{request.param}")
    with open_master_laboratory(
        root, lambda path: build_sample(path, Variant.MCS_SMALL), request.param
    ) as opened:
        opened.exported = timed(opened, "export", lambda: opened.export("run-0"))
        yield opened


INSTALLED = (
    "program files/citrix/provisioning services/",
    *(f"windows/system32/drivers/{name}.sys" for name in ("bnistack6", "cfsdep2", "cvhdmp")),
)
"""What the installer that the report names brings at first boot."""


def contents(root: Path) -> dict[str, str]:
    """Return path → SHA-256 of every file, paths as Windows compares them."""
    return {
        path.relative_to(root).as_posix().lower(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class TestMcsToPvs(Story):
    """From a machine of a vCenter; what is exported first is then a vDisk as any."""

    def test_virt_inspector_recognises_the_published_windows(
        self, laboratory: MasterLaboratory
    ) -> None:
        super().test_virt_inspector_recognises_the_published_windows(laboratory)

    def test_qemu_finds_the_export_equal_to_the_masters_disk(
        self, laboratory: MasterLaboratory
    ) -> None:
        run(
            "qemu-img", "compare", "-f", "raw", "-F", "vhdx",
            laboratory.flat_file, laboratory.source_file,
        )  # fmt: skip

    def test_nothing_of_the_export_is_left_in_the_vcenter(
        self, laboratory: MasterLaboratory
    ) -> None:
        assert laboratory.vcenter.leases() == []
        with laboratory.hypervisor() as vcenter:
            assert vcenter.find_vm(MASTER.path).snapshots == ()

    def test_the_upload_took_its_digests_from_the_export(
        self, laboratory: MasterLaboratory
    ) -> None:
        uploaded = laboratory.story["uploaded"]
        assert uploaded.image_digest == laboratory.exported.image_digest

    def test_an_unchanged_master_is_not_exported_again(self, laboratory: MasterLaboratory) -> None:
        again = laboratory.export("run-9")
        assert again.source_key == laboratory.exported.source_key
        assert [path.name for path in laboratory.share("exports").glob("*.vhdx")] == ["gold.vhdx"]

    def test_without_target_software_and_installer_preflight_refuses(
        self, laboratory: MasterLaboratory
    ) -> None:
        choices = laboratory.choices()
        bare = replace(choices, engine=replace(choices.engine, installers=()))
        with pytest.raises(GuestRefused, match="pvs_target_missing"):
            preflight(laboratory.place("run-8"), laboratory.source_store(), "gold", bare)

    def test_nothing_but_what_the_report_names_differs_from_the_master(
        self, laboratory: MasterLaboratory, windows_volume: Path, tmp_path: Path
    ) -> None:
        flat = cut_windows_volume(laboratory.flat_file, tmp_path / "master.raw")
        master = tmp_path / "master"
        master.mkdir()
        run("ntfs-3g", "-o", "ro", flat, master)
        try:
            before, after = contents(master), contents(windows_volume)
        finally:
            run("umount", master)
        report = EngineReport.from_json(laboratory.story["prepared"].details["composed"])
        named = {change.path.lower().replace("\\", "/").lstrip("/") for change in report.changes}
        differing = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        unnamed = {
            path
            for path in differing - named
            if not path.startswith(("windows/system32/config/", *INSTALLED))
            and not any(path.startswith(f"{folder}/") for folder in named)
        }
        assert differing & named
        assert unnamed == set()
