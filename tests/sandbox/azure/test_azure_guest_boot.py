"""A machine boots a real disk: OVMF starts its loader, the guest player judges it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP
from imageport.sandbox.machines.left_mounts import mounts_below
from imageport.sandbox.sample.build import build_raw_sample

pytestmark = [pytest.mark.guest, pytest.mark.slow]
GIB = 1 << 30


@pytest.fixture(scope="session")
def raw_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_raw_sample(tmp_path_factory.mktemp("sample") / "sample.raw")


def test_a_disk_as_it_left_vmware_hangs_and_says_so_on_the_console(
    own_azure: Any, raw_sample: Path
):
    azure = own_azure()
    properties = {
        "osType": "Windows",
        "hyperVGeneration": "V2",
        "creationData": {"createOption": "Empty"},
        "diskSizeGB": -(-raw_sample.stat().st_size // GIB),
    }
    disk = azure.make_disk(body={"location": LOCATION, "properties": properties})
    copy = ["dd", f"if={raw_sample}", f"of={azure.path(disk)}", "bs=1M", "conv=sparse,notrunc"]
    subprocess.run(copy, check=True, capture_output=True)
    managed = {"id": azure.disk_id(disk)}
    entry = {"createOption": "Attach", "osType": "Windows", "managedDisk": managed}
    name = azure.make_machine(azure.machine_body(azure.isolated(), {"osDisk": entry}))
    azure.until(lambda: not azure.machine_facts(name)["busy"], 300)
    console = azure.console(name)
    # What a machine of VMware's has to have to boot at Azure is not there.
    assert "STOP" in console, console
    assert azure.power(name) == "running"
    azure.compute.virtual_machines.begin_power_off(RESOURCE_GROUP, name).result()
    azure.delete_machine(name)
    assert not mounts_below(azure.service._root)
