"""Removal on the SYSTEM hive of a real Windows 10 with VMware Tools.

The hive is not part of this repository: it comes from public test data and is found through
``IMAGEPORT_TESTDATA``, a folder that has ``hives/SYSTEM_WIN_10_1709.xz``. It is dirty, without its
logs: the tests work on a copy whose sequence numbers were made equal.
"""

from __future__ import annotations

import lzma
import os
import re
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import EngineOptions, Inspection
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import Registry
from imageport.compose.step import Context
from imageport.compose.steps.source.all_steps import STEPS
from imageport.compose.steps.source.winsock_catalog import winsock_entries
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.sandbox.sample.hives import base_block_checksum

TESTDATA = os.environ.get("IMAGEPORT_TESTDATA", "")
HIVE = Path(TESTDATA) / "hives/SYSTEM_WIN_10_1709.xz"
pytestmark = pytest.mark.skipif(
    not TESTDATA or not HIVE.exists(), reason="IMAGEPORT_TESTDATA has no SYSTEM_WIN_10_1709.xz"
)


@pytest.fixture(scope="module")
def real_hive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = bytearray(lzma.decompress(HIVE.read_bytes()))
    struct.pack_into("<I", data, 8, struct.unpack_from("<I", data, 4)[0])
    struct.pack_into("<I", data, 508, base_block_checksum(bytes(data[:512])))
    path = tmp_path_factory.mktemp("real") / "SYSTEM"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def removed(real_hive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("removed")
    path = folder / "SYSTEM"
    path.write_bytes(real_hive.read_bytes())
    with ExitStack() as stack:
        context = context_of(path, folder, stack)
        for step in STEPS:
            if step.reason(context):
                context.recorder.begin(step.name, step.tier)
                step.run(context)
        assert {change.step for change in context.recorder.changes} == {"remove_vmware_tools"}
        context.registry.hives["SYSTEM"].commit()
    return path


def context_of(path: Path, folder: Path, stack: ExitStack) -> Context:
    registry = Registry({"SYSTEM": stack.enter_context(Hive(path, writable=True))})
    files = PendingFiles(LocalFiles(folder))
    return Context(EngineOptions(), TARGETS["aws"], Inspection(), registry, files)


def exported(path: Path, key: str) -> str:
    done = subprocess.run(
        ["hivexregedit", "--export", path, key], capture_output=True, check=True
    ).stdout.decode("utf-8", "replace")
    return re.sub(
        r"=hex\([127]\):([0-9a-f,]*)",
        lambda match: "=" + bytes.fromhex(match[1].replace(",", "")).decode("utf-16-le", "replace"),
        done,
    )


OWN_NAMES = re.compile(
    r"VMTools|VGAuth|vm3d|vmci|vsock\.|vsock\]|vmhgfs|vmmemctl|vmmouse|vmusbmouse|vmrawdsk|vmwefifw",
    re.IGNORECASE,
)


@pytest.mark.parametrize("place", ["Services", "Control\\NetworkProvider", "Control\\Video"])
def test_hivex_finds_no_name_of_the_tools_where_windows_would_start_them(
    real_hive: Path, removed: Path, place: str
) -> None:
    key = f"\\ControlSet001\\{place}"
    assert OWN_NAMES.search(exported(real_hive, key))
    lines = [
        line
        for line in exported(removed, key).splitlines()
        # Windows' own record of which programs users ran lately (bam) is left to age.
        if OWN_NAMES.search(line) and "\\HarddiskVolume" not in line
    ]
    assert lines == []


def test_no_package_of_vmwares_is_left_in_the_driver_database(
    real_hive: Path, removed: Path
) -> None:
    assert "VMware, Inc." in exported(real_hive, "\\DriverDatabase\\DriverPackages")
    left = exported(removed, "\\DriverDatabase")
    assert "VMware" not in left
    assert "VEN_15AD&DEV_0740" not in left


def test_winsocks_catalogue_has_no_gap_and_says_how_many_there_are(
    real_hive: Path, removed: Path
) -> None:
    for path, count in ((real_hive, 16), (removed, 14)):
        with Hive(path) as hive:
            registry = Registry({"SYSTEM": hive})
            entries = [
                e for e in winsock_entries(registry, "ControlSet001") if "Proto" in e.catalogue
            ]
            place = "ControlSet001\\Services\\WinSock2\\Parameters\\Protocol_Catalog9"
            for width in ("", "64"):
                names = [entry.name for entry in entries if entry.width == width]
                assert names == [f"{number:012d}" for number in range(1, count + 1)]
                assert registry.number("SYSTEM", place, f"Num_Catalog_Entries{width}") == count
            has_vsock = any(entry.library == "vsocklib.dll" for entry in entries)
            assert has_vsock is (path == real_hive)


def test_the_network_is_asked_in_the_same_order_but_for_the_tools(removed: Path) -> None:
    with Hive(removed) as hive:
        registry = Registry({"SYSTEM": hive})
        place = "ControlSet001\\Control\\NetworkProvider\\Order"
        assert registry.text("SYSTEM", place, "ProviderOrder") == (
            "P9NP,RDPNP,LanmanWorkstation,webclient"
        )


def test_windows_own_services_are_all_there(real_hive: Path, removed: Path) -> None:
    names = {}
    for path in (real_hive, removed):
        with Hive(path) as hive:
            services = hive.key("ControlSet001\\Services")
            assert services is not None
            names[path] = {key.name for key in services.children()}
    gone = names[real_hive] - names[removed]
    assert names[removed] <= names[real_hive]
    assert sorted(gone, key=str.lower) == [
        "pvscsi",  # a key without a driver: the machine had another controller
        "VGAuthService",
        "vm3dmp",
        "vm3dmp-debug",
        "vm3dmp-stats",
        "vm3dmp_loader",
        "vmci",
        "vmhgfs",
        "VMMemCtl",
        "vmmouse",
        "VMRawDsk",
        "VMTools",
        "VMUsbMouse",
        "vmvss",
        "vmwefifw",
        "vmxnet3ndis6",
        "vsock",
    ]


def test_removing_from_it_again_changes_nothing(removed: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        context = context_of(removed, tmp_path, stack)
        assert [step.name for step in STEPS if step.reason(context)] == []
        for step in STEPS:
            step.run(context)
        assert [c for c in context.recorder.changes if c.step == "remove_vmware_tools"] == []
