"""In which order changes reach a volume: what a kill leaves starts, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.compose.volumes.mounted_files import MountedFiles

HIVE, OLD, NEW = "SYSTEM", "old.sys", "new.sys"


class Watched(LocalFiles):
    """A folder that remembers what it held each time the disk had been waited for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.settled: list[dict[str, bytes]] = []

    def settle(self) -> None:
        self.settled.append({path.name: path.read_bytes() for path in self.root.iterdir()})


def test_a_hive_is_on_the_disk_after_the_drivers_it_names_and_before_others_go(
    tmp_path: Path,
) -> None:
    (tmp_path / HIVE).write_bytes(b"names old")
    (tmp_path / OLD).write_bytes(b"driver")
    volume = Watched(tmp_path)
    pending = PendingFiles(volume)
    pending.remove(OLD)
    pending.rewrite(HIVE, b"names new")
    pending.add_file(NEW, b"driver", Access.USERS_READ)
    pending.apply()
    added, rewritten = volume.settled
    assert added == {HIVE: b"names old", OLD: b"driver", NEW: b"driver"}
    assert rewritten == {HIVE: b"names new", OLD: b"driver", NEW: b"driver"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [HIVE, NEW]


def test_a_mounted_volume_is_settled_by_its_machine() -> None:
    calls = []

    class Machine:
        def sync(self) -> None:
            calls.append("sync")

    machine: Any = Machine()
    MountedFiles(machine, "/").settle()
    assert calls == ["sync"]
