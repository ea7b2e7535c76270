"""Real OVMF with empty variables on the sample."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.errors import FileMissing
from imageport.sandbox import firmware
from imageport.sandbox.sample.recipe import Variant

pytestmark = pytest.mark.guest


@pytest.mark.slow  # the short form boots what is published, and what becomes UEFI
def test_firmware_finds_the_loader_which_powers_off(small_vhdx: Path, tmp_path: Path):
    before = small_vhdx.stat().st_mtime_ns
    result = firmware.boot_firmware(small_vhdx, tmp_path / "serial.txt", 90)
    assert result.powered_off
    assert "IMAGEPORT-SAMPLE: firmware started the fallback loader" in result.serial_text
    assert "IMAGEPORT-SAMPLE: boot store found" in result.serial_text
    assert "\x1b" not in result.serial_text
    assert small_vhdx.stat().st_mtime_ns == before


@pytest.mark.slow  # waits for a deadline
def test_a_disk_without_fallback_loader_never_powers_off(
    raw_of: Callable[[Variant], Path], tmp_path: Path
):
    disk = raw_of(Variant.NO_ESP_LOADER)
    result = firmware.boot_firmware(disk, tmp_path / "serial.txt", 12)
    assert not result.powered_off
    assert result.seconds >= 12
    assert subprocess.run(["pgrep", "-f", str(disk)], check=False).returncode == 1
    assert "IMAGEPORT-SAMPLE" not in result.serial_text


def test_a_disk_that_is_not_there_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FileMissing, match="Cannot boot"):
        firmware.boot_firmware(tmp_path / "none", tmp_path / "serial.txt", 5)


def test_the_probe_runs_to_its_end_under_emulation():
    assert firmware.runs_code("tcg")


def test_the_probe_says_no_to_an_accelerator_that_is_not_there():
    assert not firmware.runs_code("nonsense")
