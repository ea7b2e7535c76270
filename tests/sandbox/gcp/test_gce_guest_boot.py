"""A machine boots a real disk: OVMF starts its loader, the guest player judges it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from imageport.model import GIB
from imageport.sandbox.gcp.account import ZONE
from imageport.sandbox.machines.left_mounts import mounts_below
from imageport.sandbox.sample.build import build_raw_sample
from tests.sandbox.gcp.gce_lab import FEATURES, GceLab, console, packed, until

pytestmark = [pytest.mark.guest, pytest.mark.slow]


@pytest.fixture(scope="session")
def raw_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = build_raw_sample(tmp_path_factory.mktemp("sample") / "disk.raw")
    with sample.open("r+b") as file:
        file.truncate(-(-sample.stat().st_size // GIB) * GIB)
    return sample


@pytest.mark.parametrize(
    ("kind", "driver"), [("n2-standard-2", "vioscsi"), ("c3-standard-4", "stornvme")]
)
def test_a_disk_as_it_left_vmware_hangs_and_says_so_on_the_console(
    gce: GceLab, isolated: str, raw_sample: Path, kind: str, driver: str
):
    features = [{"type_": item} for item in FEATURES]
    archive = gce.put(gzip.compress(packed(raw_sample.parent), 1))
    body = gce.image_body(archive, guest_os_features=features)
    gce.made("Images", "insert", "global", image_resource=body)
    disk = gce.disk(
        size_gb=0, source_image=f"global/images/{body['name']}", fill=b"",
        type_=f"zones/{ZONE}/diskTypes/pd-balanced",
    )  # fmt: skip
    machine_type = f"zones/{ZONE}/machineTypes/{kind}"
    machine = gce.machine(disk, tags={"items": [isolated]}, machine_type=machine_type)
    until(lambda: "STOP" in console(gce, machine).contents, 300)
    # What a machine of VMware's has to have to boot at Google is not there.
    assert driver in console(gce, machine).contents
    assert gce.status(machine) == "RUNNING"
    gce.made("Instances", "delete", instance=machine)
    assert not mounts_below(gce.root)
