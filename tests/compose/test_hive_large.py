"""Large hives: as large as SOFTWARE gets, with keys of very many subkeys, in every control set.

Built by `hive_builder`, because libhivex would take minutes to make one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.registry import copy_hives, hive_path, open_copies
from imageport.compose.hives.registry_value import Value
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.pending_volumes import keep_hives
from imageport.compose.recorder import Recorder
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from tests.compose.hive_builder import Node, build_hive

SETS = ("ControlSet001", "ControlSet002", "ControlSet003")
MIB = 1024 * 1024


def number(value: int) -> tuple[int, bytes]:
    return 4, value.to_bytes(4, "little")


def many_keys(count: int, filler: int) -> Node:
    values = {"Data": (3, bytes(range(256)) * (filler // 256)), "N": number(7)}
    return Node("Many", children=[Node(f"Key{n:06d}", values) for n in range(count)])


def volume_with(root: Path, subkeys: int, filler: int) -> LocalFiles:
    """Return a volume with a SYSTEM of three control sets and a SOFTWARE of one huge key."""
    config = root / hive_path("")
    config.mkdir(parents=True)
    sets = [
        Node(name, children=[Node("Services", children=[Node("Svc", {"Start": number(2)})])])
        for name in SETS
    ]
    select = Node("Select", {"Current": number(1), "Default": number(1)})
    (config / "SYSTEM").write_bytes(build_hive(Node(children=[*sets, select])))
    (config / "SOFTWARE").write_bytes(build_hive(Node(children=[many_keys(subkeys, filler)])))
    return LocalFiles(root)


def edit_and_read_again(root: Path, subkeys: int, filler: int) -> int:
    """Change a key at each end and in the middle, in place; returns the hive's size."""
    volume = volume_with(root / "volume", subkeys, filler)
    hive = volume.root / hive_path("SOFTWARE")
    inode, size = hive.stat().st_ino, hive.stat().st_size
    scratch, again = root / "scratch", root / "again"
    scratch.mkdir()
    again.mkdir()
    pending = PendingFiles(volume)
    with open_copies(copy_hives(volume, scratch, None), writable=True) as registry:
        recorder = Recorder(registry, pending)
        assert registry.control_sets == SETS
        for name in registry.control_sets:
            key = f"{name}\\Services\\Svc"
            recorder.set_value("SYSTEM", key, "Start", Value.dword(4))
        for key in ("Aaa", f"Key{subkeys // 2:06d}x", "Zzz"):
            recorder.set_value("SOFTWARE", f"Many\\{key}", "New", Value.text(key))
        recorder.set_value("SOFTWARE", f"Many\\Key{subkeys - 1:06d}", "N", Value.dword(8))
        recorder.delete_key("SOFTWARE", "Many\\Key000000")
        keep_hives(registry, recorder.changes, pending, None)
    pending.apply()
    assert hive.stat().st_ino == inode
    assert HiveHeader.parse(hive.read_bytes()[:512]).problem == ""
    found = copy_hives(volume, again, None)
    assert found.damage == []
    with open_copies(found, writable=False) as after:
        many = after.key("SOFTWARE", "Many")
        assert many is not None
        names = [key.name for key in many.children()]
        assert len(names) == len(set(names)) == subkeys + 2
        assert names == sorted(names, key=str.upper), "Windows looks names up by halving"
        assert {"Aaa", "Zzz", f"Key{subkeys // 2:06d}x"} <= set(names)
        assert after.number("SOFTWARE", f"Many\\Key{subkeys - 1:06d}", "N") == 8
        assert after.number("SOFTWARE", "Many\\Key000001", "N") == 7
        for name in SETS:
            assert after.start_of(name, "Svc") == 4
    shown = subprocess.run(
        ["hivexget", hive, f"\\Many\\Key{subkeys // 2:06d}x", "New"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == f"Key{subkeys // 2:06d}x"
    return size


def test_a_key_of_two_thousand_subkeys_is_edited_in_place(tmp_path: Path) -> None:
    assert edit_and_read_again(tmp_path, 2_000, 512) > MIB


@pytest.mark.slow
def test_a_hive_of_more_than_100_mib_is_edited_in_place(tmp_path: Path) -> None:
    assert edit_and_read_again(tmp_path, 20_000, 5120) > 100 * MIB


@pytest.mark.slow
def test_half_a_million_small_keys_are_looked_at() -> None:
    """The costliest shape for the structural look: little data, very many cells."""
    groups = [Node(f"Group{g}", children=many_keys(20_000, 0).children) for g in range(30)]
    data = build_hive(Node(children=groups))
    assert len(data) > 100 * MIB
    assert hive_problem(data) == ""
    middle = len(data) // 2 // 4096 * 4096
    assert hive_problem(data[:middle] + bytes(4096) + data[middle + 4096 :]) != ""
