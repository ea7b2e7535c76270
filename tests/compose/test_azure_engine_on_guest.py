"""The engine on a whole disk for Azure: composed, booted once by the guest player, verified.

Checked with tools that are not ours, as for AWS.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions, EngineReport
from imageport.compose.site_engine import run_site_engine
from imageport.compose.volumes.partition_table import HEAD_BYTES, parse_partition_table
from imageport.sandbox.guest_player.play import PlayedBoot, play
from imageport.sandbox.guest_player.programs import PlayerError
from imageport.sandbox.sample.build import build_raw_sample, cached_sample
from imageport.sandbox.sample.disk_image import clone_sparse, data_ranges
from imageport.sandbox.sample.recipe import DISK_GUID, WINDOWS, Variant
from imageport.sandbox.sample.vm_agent_package import FILE_NAME, write_vm_agent_package

# In the long form: the end-to-end test composes, boots and verifies for Azure in the short one.
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1500)]

OPTIONS = EngineOptions(
    cloud="azure",
    recommended=("cloud_time_server", "crash_dumps", "high_performance"),
    azure_vm_agent=f"azure/{FILE_NAME}",
)
FOLDER = "Windows/ImageportFirstBoot"


def a_job(action: Action, options: EngineOptions = OPTIONS) -> EngineJob:
    return EngineJob(action, EngineDisk("", str(DISK_GUID)), options, run="test")


def output(*argv: str | Path) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout


def windows_volume(raw: Path) -> Path:
    volume = raw.with_suffix(".ntfs")
    end = WINDOWS.first + WINDOWS.size
    with raw.open("rb") as reader, volume.open("wb") as writer:
        writer.truncate(WINDOWS.size)
        for at, length in data_ranges(raw):
            first, last = max(at, WINDOWS.first), min(at + length, end)
            for place in range(first, last, 1024 * 1024):
                data = os.pread(reader.fileno(), min(1024 * 1024, last - place), place)
                os.pwrite(writer.fileno(), data, place - WINDOWS.first)
    return volume


@dataclass(frozen=True, slots=True)
class Life:
    """One image composed for Azure, and one boot of it."""

    composed: EngineReport
    composed_disk: Path
    booted_disk: Path
    volume: Path
    boot: PlayedBoot | None


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("azure-payload")
    write_vm_agent_package(folder / "azure")
    return folder


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, payload: Path) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("azure-life")
    raw = build_raw_sample(folder / "disk.raw", Variant.SMALL)
    composed = run_site_engine(raw, a_job(Action.COMPOSE), payload=payload)
    booted = clone_sparse(raw, folder / "booted.raw")
    volume = windows_volume(raw)
    try:
        boot = play(booted, "", platform="azure")
    except PlayerError:
        boot = None  # needs root; what depends on it says so
    yield Life(composed, raw, booted, volume, boot)
    for path in (raw, booted, volume):
        path.unlink()


def test_every_verdict_item_passes_after_composing(life: Life) -> None:
    assert life.composed.ok, [item for item in life.composed.verdict if not item.passed]
    assert len(life.composed.verdict) >= 29
    assert {c.tier for c in life.composed.changes} == {"required", "recommended"}


@pytest.mark.parametrize("control_set", ["ControlSet001", "ControlSet002"])
@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("Services\\vmbus", "Start", "0"),
        ("Services\\storvsc", "Start", "0"),
        ("Services\\storvsc\\StartOverride", "0", ""),
        ("Services\\vpci", "Start", "0"),
        ("Services\\partmgr\\Parameters", "SanPolicy", "1"),
        ("Services\\W32Time\\TimeProviders\\NtpClient", "Enabled", "0"),
        ("Services\\W32Time\\TimeProviders\\VMICTimeProvider", "Enabled", "1"),
        ("Services\\pvscsi", "Start", "0"),
        ("Control\\CrashControl", "NMICrashDump", "1"),
        ("Control\\Terminal Server", "fDenyTSConnections", "1"),
    ],
)
def test_hivexget_reads_what_was_written(
    life: Life, tmp_path: Path, control_set: str, key: str, name: str, value: str
) -> None:
    hive = tmp_path / "SYSTEM"
    hive.write_bytes(output("ntfscat", life.volume, "Windows/System32/config/SYSTEM"))
    done = subprocess.run(
        ["hivexget", hive, f"\\{control_set}\\{key}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == value


def test_the_staged_agent_is_the_payloads_and_closed_to_users(life: Life, payload: Path) -> None:
    path = f"{FOLDER}/agent/{FILE_NAME}"
    staged = hashlib.sha256(output("ntfscat", life.volume, path)).digest()
    assert staged == hashlib.sha256((payload / "azure" / FILE_NAME).read_bytes()).digest()
    for name in (path, f"{FOLDER}/agent"):
        assert b"mode 0700" in output("ntfssecaudit", life.volume, f"/{name}")


def test_an_independent_player_boots_it_and_installs_the_agent(life: Life) -> None:
    if life.boot is None:
        pytest.skip("the guest player needs root on this machine")
    assert life.boot.outcome == "shutdown", life.boot.console_text
    assert "imageport-firstboot: done" in life.boot.console_text
    assert "netvsc (wnetvsc.inf)" in life.boot.console_text


@pytest.mark.slow
def test_the_same_image_boots_from_nvme_disks_too(life: Life, tmp_path: Path) -> None:
    disk = clone_sparse(life.composed_disk, tmp_path / "disk.raw")
    assert play(disk, "", platform="azure-nvme").outcome == "shutdown"


@pytest.mark.slow
def test_verify_accepts_the_booted_image_and_finds_the_agent(life: Life) -> None:
    if life.boot is None:
        pytest.skip("the guest player needs root on this machine")
    verified = run_site_engine(life.booted_disk, a_job(Action.VERIFY))
    assert verified.ok, [item for item in verified.verdict if not item.passed]
    evidence = {item.name: item.evidence for item in verified.verdict}
    assert "RdAgent Start 2, WindowsAzureGuestAgent Start 2" in evidence["vm_agent"]
    assert "is served by wnetvsc.inf in DRIVERS" in evidence["network_driver"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "options", "code"),
    [
        (Variant.MBR, EngineOptions(cloud="azure", provisioning="mcs"), "needs_uefi"),
        (Variant.WITHOUT_NETVSC, EngineOptions(cloud="azure"), "driver_missing"),
        (Variant.SMALL, EngineOptions(cloud="azure", azure_vm_agent="gone.msi"), "vm_agent"),
        (
            Variant.WITHOUT_HOST_TIME,
            EngineOptions(cloud="azure", recommended=("cloud_time_server",)),
            "no_host_time",
        ),
    ],
)
def test_compose_refuses_and_leaves_every_byte(
    tmp_path: Path, payload: Path, variant: Variant, options: EngineOptions, code: str
) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", variant)
    with raw.open("rb") as file:
        table = parse_partition_table(file.read(HEAD_BYTES), raw.stat().st_size)
    job = EngineJob(Action.COMPOSE, EngineDisk("", table.disk_guid), options, run="test")
    report = run_site_engine(raw, job, payload=payload)
    assert [item.code for item in report.refusals] == [code]
    assert not report.ok
    output("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, cached_sample(variant))


@pytest.mark.slow
def test_an_image_whose_storage_driver_was_stripped_fails_the_plan(tmp_path: Path) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", Variant.WITHOUT_STORVSC)
    report = run_site_engine(raw, a_job(Action.PLAN, EngineOptions(cloud="azure")))
    assert not report.ok
    assert [item.name for item in report.verdict if not item.passed] == ["boot_drivers"]
