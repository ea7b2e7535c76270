"""The engine on a whole disk: planned, composed, booted once by the guest player, verified.

Checked with tools that are not ours: hivexget reads what we wrote into the hives, ntfssecaudit the
descriptors, ntfscat the files, qemu-img what was left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions, EngineReport
from imageport.compose.site_engine import run_site_engine
from imageport.errors import ShareUnreachable
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import Extent, ExtentState
from imageport.sandbox.guest_player.play import PlayedBoot, play
from imageport.sandbox.guest_player.programs import PlayerError
from imageport.sandbox.sample.build import build_raw_sample, cached_sample
from imageport.sandbox.sample.disk_image import data_ranges
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.sample.recipe import DISK_GUID, WINDOWS, Variant
from imageport.storage.local import LocalFolder

# The stories of both workflows compose and judge a whole guest in the short form, too.
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1500)]

OPTIONS = EngineOptions(list_of_ddcs=("ddc.new.example",), drivers=("ena",))
SYSTEM_AND_ADMINISTRATORS = "01000490480000005800000000000000140000000200340002000000"


def a_job(action: Action, guid: str = str(DISK_GUID)) -> EngineJob:
    return EngineJob(action, EngineDisk("", guid), OPTIONS, run="test")


def windows_volume(raw: Path) -> Path:
    """Copy the Windows partition into a file of its own, for tools that take no offset."""
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


def output(*argv: str | Path) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True).stdout


@dataclass(frozen=True, slots=True)
class Life:
    """One image through plan, compose, one boot and verify."""

    planned: EngineReport
    composed: EngineReport
    composed_volume: Path
    boot: PlayedBoot | None
    verified: EngineReport
    disk: Path
    """As the boot left it."""


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload")
    write_ena_package(folder / "ena")
    return folder


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, payload: Path) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("life")
    source = cached_sample(Variant.SMALL)
    with LocalFolder(source.parent) as place, open_disk(place.open_read(source.name)) as disk:
        planned = run_site_engine(disk, a_job(Action.PLAN), payload=payload)
    raw = build_raw_sample(folder / "disk.raw", Variant.SMALL)
    composed = run_site_engine(raw, a_job(Action.COMPOSE), payload=payload)
    volume = windows_volume(raw)
    try:
        boot = play(raw, "")
    except PlayerError:
        boot = None  # needs root; what depends on it says so
    verified = run_site_engine(raw, a_job(Action.VERIFY))
    yield Life(planned, composed, volume, boot, verified, raw)
    volume.unlink()
    raw.unlink()


def test_compose_does_what_plan_said(life: Life) -> None:
    assert life.composed.changes == life.planned.changes
    assert len(life.planned.changes) > 50
    assert life.planned.ok
    assert life.planned.engine_id == life.composed.engine_id != ""


def test_every_verdict_item_passes_after_composing(life: Life) -> None:
    assert life.composed.ok, [item for item in life.composed.verdict if not item.passed]
    assert len(life.composed.verdict) >= 15


@pytest.mark.parametrize("control_set", ["ControlSet001", "ControlSet002"])
@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("Services\\stornvme", "Start", "0"),
        ("Services\\VMTools", "Start", ""),
        ("Services\\pvscsi", "Start", "0"),
        ("Control\\TimeZoneInformation", "RealTimeIsUniversal", "1"),
        ("Services\\ImageportFirstBoot", "ObjectName", "LocalSystem"),
        ("Services\\stornvme\\StartOverride", "0", ""),
    ],
)
def test_hivexget_reads_what_was_written(
    life: Life, tmp_path: Path, control_set: str, key: str, name: str, value: str
) -> None:
    hive = tmp_path / "SYSTEM"
    hive.write_bytes(output("ntfscat", life.composed_volume, "Windows/System32/config/SYSTEM"))
    done = subprocess.run(
        ["hivexget", hive, f"\\{control_set}\\{key}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == value


@pytest.mark.parametrize(
    "path",
    [
        "/Windows/ImageportFirstBoot",
        "/Windows/ImageportFirstBoot/firstboot.cmd",
        "/Windows/ImageportFirstBoot/plan.txt",
        "/Windows/ImageportFirstBoot/drivers",
        "/Windows/ImageportFirstBoot/drivers/ena",
        "/Windows/ImageportFirstBoot/drivers/ena/ena.sys",
    ],
)
def test_ntfssecaudit_reads_the_descriptor_of_what_was_added(life: Life, path: str) -> None:
    text = output("ntfssecaudit", "-v", life.composed_volume, path).decode()
    dump = "".join(
        "".join(match[1].split())
        for match in re.finditer(r"^\s+[0-9a-f]{6} ((?: *[0-9a-f]{8})+)", text, re.MULTILINE)
    )
    assert dump.startswith(SYSTEM_AND_ADMINISTRATORS)
    # Two entries: full for S-1-5-18 and S-1-5-32-544; nothing for Users (…2102) or Everyone.
    assert dump.count("ff011f00") == 2
    assert "20000000" + "21020000" not in dump
    assert "mode 0700" in text


@pytest.mark.parametrize("hive", ["SYSTEM", "SOFTWARE"])
def test_rewritten_hives_keep_their_descriptor(life: Life, tmp_path: Path, hive: str) -> None:
    before = windows_volume(build_raw_sample(tmp_path / "before.raw", Variant.SMALL))
    path = f"/Windows/System32/config/{hive}"

    def audited(volume: Path) -> list[str]:
        text = output("ntfssecaudit", "-v", volume, path).decode()
        return [line for line in text.splitlines() if re.match(r"\s+[0-9a-f]{6} ", line)]

    def inode(volume: Path) -> bytes:
        found = re.search(rb"MFT Record Number[^0-9]*(\d+)", output("ntfsinfo", "-F", path, volume))
        return found[1] if found else b""

    assert audited(life.composed_volume) == audited(before) != []
    assert inode(life.composed_volume) == inode(before)
    changed = output("ntfscat", life.composed_volume, path) != output("ntfscat", before, path)
    assert changed


def test_ntfssecaudit_reads_that_users_may_only_read_the_installed_driver(life: Life) -> None:
    added = [c for c in life.composed.changes if c.step == "install_drivers"]
    paths = [c.path.replace("\\", "/") for c in added if c.kind == "descriptor"]
    assert "/Windows/System32/drivers/ena.sys" in paths
    assert len(paths) == 7  # the package's folder with three files, INF, catalogue, driver
    for path in paths:
        text = output("ntfssecaudit", "-v", life.composed_volume, path).decode()
        lines = re.findall(r"^\s+[0-9a-f]{6} ((?: *[0-9a-f]{8})+)", text, re.MULTILINE)
        dump = "".join("".join(line.split()) for line in lines)
        assert dump.count("ff011f00") == 2  # full: SYSTEM, Administrators
        users = "a9001200" + "01020000" + "00000005" + "20000000" + "21020000"
        assert dump.count(users) == 1  # read and execute
        assert dump.count("0000000520000000") == 3  # Administrators, Users, and the owner


def test_the_staged_driver_is_the_payloads(life: Life, payload: Path) -> None:
    for name in ("ena.sys", "ena.inf", "ena.cat"):
        path = f"Windows/ImageportFirstBoot/drivers/ena/{name}"
        staged = output("ntfscat", life.composed_volume, path)
        assert (
            hashlib.sha256(staged).digest()
            == hashlib.sha256((payload / "ena" / name).read_bytes()).digest()
        )


def test_the_volume_is_sound_afterwards(life: Life) -> None:
    done = subprocess.run(
        ["ntfsfix", "--no-action", life.composed_volume], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_an_independent_player_boots_it_and_installs_the_driver(life: Life) -> None:
    if life.boot is None:
        pytest.skip("the guest player needs root on this machine")
    assert life.boot.outcome == "shutdown"
    assert "imageport-firstboot: done" in life.boot.console_text


def test_verify_accepts_the_booted_image_and_tells_the_first_boot(life: Life) -> None:
    if life.boot is None:
        pytest.skip("the guest player needs root on this machine")
    assert life.verified.ok, [item for item in life.verified.verdict if not item.passed]
    assert life.verified.first_boot["state"] == "done"
    assert life.verified.first_boot["attempts"] == "1"
    assert life.verified.changes == ()
    evidence = {item.name: item.evidence for item in life.verified.verdict}
    assert "BrokerAgent Start is 2 again" in evidence["services_restored"]
    assert "is served by oem" in evidence["network_driver"]


def test_the_last_verdict_takes_our_folder_away_when_asked(life: Life, tmp_path: Path) -> None:
    if life.boot is None:
        pytest.skip("the guest player needs root on this machine")
    disk = tmp_path / "cleaned.raw"
    output("cp", "--sparse=always", life.disk, disk)
    last = replace(a_job(Action.VERIFY), options=replace(OPTIONS, leave_no_trace=True))
    report = run_site_engine(disk, last)
    volume = windows_volume(disk)
    assert report.ok, [item for item in report.verdict if not item.passed]
    assert report.first_boot == life.verified.first_boot
    (change,) = report.changes
    assert (change.step, change.kind, change.after) == ("leave_no_trace", "folder", "")
    assert change.path == "\\Windows\\ImageportFirstBoot"
    assert change.before.startswith("folder of ")
    (item,) = [item for item in report.verdict if item.name == "no_trace"]
    assert item.evidence == "folder Windows/ImageportFirstBoot is gone"
    listed = output("ntfsls", "-p", "/Windows", volume).decode().split()
    assert "System32" in listed
    assert "ImageportFirstBoot" not in listed
    done = subprocess.run(["ntfsfix", "--no-action", volume], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_two_reasons_to_refuse_come_together(tmp_path: Path) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", Variant.NO_PVS)
    report = run_site_engine(
        raw, EngineJob(Action.PLAN, EngineDisk("", str(DISK_GUID)), EngineOptions())
    )
    assert {item.code for item in report.refusals} == {"pvs_target_missing", "driver_missing"}
    assert not report.ok
    assert report.changes == ()


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        (Variant.HIBERNATED, "hibernated"),
        (Variant.DIRTY_NTFS, "dirty_ntfs"),
        (Variant.BITLOCKER, "bitlocker"),
        (Variant.DIRTY_HIVE, "dirty_hive"),
        (Variant.MBR, "needs_uefi"),
        (Variant.NO_PVS, "pvs_target_missing"),
    ],
)
def test_compose_refuses_and_leaves_every_byte(
    tmp_path: Path, payload: Path, variant: Variant, code: str
) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", variant)
    report = run_site_engine(raw, a_job(Action.COMPOSE), payload=payload)
    assert code in {item.code for item in report.refusals}
    assert not report.ok
    untouched = cached_sample(variant)
    output("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, untouched)


def test_somebody_elses_disk_is_not_even_looked_into(tmp_path: Path, payload: Path) -> None:
    raw = build_raw_sample(tmp_path / "disk.raw", Variant.SMALL)
    other = "99999999-1111-4222-8333-444444444444"
    report = run_site_engine(raw, a_job(Action.COMPOSE, other), payload=payload)
    assert [item.code for item in report.refusals] == ["wrong_disk"]
    assert report.inspection.product_name == ""
    output("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, cached_sample(Variant.SMALL))


class DroppingDisk(VirtualDisk):
    """A disk on a share that goes away: its size is known, nothing more can be read."""

    location, format_name, sector_bytes = "smb://host/share/disk.vhdx", "vhdx", 512

    @property
    def size_bytes(self) -> int:
        return 64 * 1024 * 1024

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size_bytes, ExtentState.DATA)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        del offset_bytes, length_bytes
        raise ShareUnreachable(f"Cannot read '{self.location}': the connection dropped.")

    def content_key(self) -> str:
        return "x"

    def check_unchanged(self) -> None:
        return

    def close(self) -> None:
        return


def test_a_share_that_drops_is_named_as_the_cause_and_may_be_retried() -> None:
    with pytest.raises(ShareUnreachable, match="the connection dropped") as caught:
        run_site_engine(DroppingDisk(), a_job(Action.PLAN))
    assert caught.value.retryable


def test_the_command_line_prepares_a_copy_and_leaves_the_source(
    tmp_path: Path, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = cached_sample(Variant.SMALL)
    before = hashlib.sha256(source.read_bytes()).digest()
    destination, report_path = tmp_path / "prepared.vhdx", tmp_path / "report.json"
    arguments = [str(source), str(destination), "--target", "aws", "--payload", str(payload)]
    code = main(["prepare", *arguments, "--report", str(report_path), "--work", str(tmp_path)])
    assert code == 0
    assert hashlib.sha256(source.read_bytes()).digest() == before
    report = EngineReport.from_json(report_path.read_bytes())
    assert report.ok
    assert f"all {len(report.verdict)} verdict items passed" in capsys.readouterr().out
    info = output("qemu-img", "info", "--output=json", destination).decode()
    assert '"format": "vhdx"' in info
    output("qemu-img", "check", destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared.vhdx", "report.json"]
    assert main(["prepare", *arguments]) == 1  # the name is taken
