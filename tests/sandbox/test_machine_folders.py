"""A machine's folder holds everything of it, also what a boot that was cut off left mounted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imageport.sandbox.guest_player import play as player
from imageport.sandbox.machines import boot_disk
from imageport.sandbox.machines.left_mounts import mounts_below
from imageport.sandbox.machines.machine import IdleMachine


def test_a_boot_is_played_in_the_machine_s_folder_and_not_among_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, Any] = {}

    def play(disk: Path, _serial: str, *, platform: str, work: Path) -> player.PlayedBoot:
        seen.update(disk=disk, platform=platform, work=work)
        return player.PlayedBoot("played\n", "hang")

    firmware = SimpleNamespace(serial_text="firmware", powered_off=True)
    monkeypatch.setattr(player, "play", play)
    monkeypatch.setattr(boot_disk, "boot_firmware", lambda *_: firmware)
    monkeypatch.setattr(boot_disk, "_starts_a_real_windows", lambda *_: False)
    disk, machine = tmp_path / "disks" / "one.disk", tmp_path / "machines" / "vm"
    machine.mkdir(parents=True)
    assert boot_disk._boot(disk, machine / "serial.txt", 5.0, "azure") == "hang"
    assert seen == {"disk": disk, "platform": "azure", "work": machine}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_clearing_a_machine_unmounts_what_is_left_in_its_folder(tmp_path: Path):
    machine = IdleMachine("vm", tmp_path / "vm")
    machine.say("last words")
    mount = machine.folder / ".boot-x" / "windows.mount"
    mount.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", mount], check=True)
    machine.clear()
    assert mounts_below(tmp_path) == []
    assert [entry.name for entry in machine.folder.iterdir()] == ["console.txt"]
    assert machine.console() == "last words\n"
