"""A publish that is killed at any step leaves a store that PVS can read and a retry can finish."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.citrix.manifest import parse_manifest
from imageport.citrix.vdisk_store import VdiskStore
from imageport.storage.byte_file import WritableFile
from imageport.storage.local import LocalFolder

MONDAY_NS = 1_795_438_520 * 1_000_000_000


class Killed(BaseException):
    """What a kill looks like from inside."""


class MortalFolder(LocalFolder):
    """A folder whose process dies at its n-th change; records what it did before."""

    def __init__(self, root: Path, lives: int = 1000) -> None:
        super().__init__(root)
        self.lives = lives
        self.done: list[tuple[str, ...]] = []

    def _live(self, *step: str) -> None:
        if len(self.done) >= self.lives:
            raise Killed
        self.done.append(step)

    def create(self, name: str) -> WritableFile:
        self._live("create", name)
        return super().create(name)

    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        self._live("rename", name, new_name)
        super().rename(name, new_name, replace=replace)

    def set_last_write(self, name: str, last_write_ns: int) -> None:
        self._live("time", name)
        super().set_last_write(name, last_write_ns)

    def delete(self, name: str) -> None:
        self._live("delete", name)
        super().delete(name)


def write_part(folder: LocalFolder, part: str) -> None:
    if folder.stat(part) is None:
        with folder.create(part) as file:
            file.write_at(0, b"second")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = VdiskStore(LocalFolder(tmp_path))
    target = store.choose_target("gold")
    part = store.begin_file(target, "first")
    write_part(LocalFolder(tmp_path), part)
    store.finish(target, part, MONDAY_NS)
    return tmp_path


def test_time_comes_before_the_name_and_the_manifest_last(root: Path):
    folder = MortalFolder(root)
    store = VdiskStore(folder)
    target = store.choose_target("gold")
    part = store.begin_file(target, "second")
    write_part(folder, part)
    store.finish(target, part, MONDAY_NS)
    steps = [step for step in folder.done if step[0] != "delete"]
    assert steps[:3] == [("create", part), ("time", part), ("rename", part, "gold.1.vhdx")]
    assert [step[0] for step in steps[3:]] == ["create", "rename"]
    assert steps[-1][-1] == "gold.xml"


@pytest.mark.parametrize("lives", range(5))
def test_a_publish_killed_at_any_step_is_sound_and_can_be_finished(root: Path, lives: int):
    folder = MortalFolder(root, lives)
    store = VdiskStore(folder)
    target = store.choose_target("gold")
    part = store.begin_file(target, "second")

    def publish() -> None:
        write_part(folder, part)
        store.finish(target, part, MONDAY_NS)

    with pytest.raises(Killed):
        publish()
    healthy = LocalFolder(root)
    manifest = parse_manifest(healthy.read_bytes("gold.xml"), "gold.xml")
    for entry in manifest.versions:
        stat = healthy.stat(entry.disk_file_name)
        assert stat is not None
        assert (stat.size_bytes, stat.last_write_ns) == (entry.size_bytes, MONDAY_NS)
    VdiskStore(healthy).open_vdisk("gold").file.close()

    again = VdiskStore(healthy)
    if healthy.stat(target.file_name) is None:
        assert again.choose_target("gold") == target
        write_part(healthy, part)
        again.finish(target, part, MONDAY_NS)
    else:
        again.complete(target, MONDAY_NS)
    assert [entry.name for entry in healthy.list()] == ["gold.1.vhdx", "gold.vhdx", "gold.xml"]
    listed = parse_manifest(healthy.read_bytes("gold.xml"), "gold.xml")
    assert [entry.disk_file_name for entry in listed.versions] == ["gold.vhdx", "gold.1.vhdx"]
