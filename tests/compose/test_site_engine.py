"""The engine at the site on an overlay: what it writes, what it leaves, and how it fails.

The engine is a stand-in of one second; `test_engine_on_guest` and the end-to-end story at the site
run the real one. Recipe of the image: 4 MiB raw, filled with ones.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.compose.site_engine import PYTHON, overlay_over, run_site_engine
from imageport.errors import InputError, ShareFull, ShareUnreachable
from imageport.formats.raw import RawDisk
from imageport.model import MIB
from imageport.storage.byte_file import WritableFile
from imageport.storage.local import LocalFolder
from tests.compose.site_stand_in import build_stand_in

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs the distribution's Python")

CONTENT = b"\1" * (4 * MIB)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawDisk]:
    monkeypatch.setattr("imageport.compose.site_engine.build_engine", build_stand_in)
    (tmp_path / "gold.raw").write_bytes(CONTENT)
    with RawDisk(LocalFolder(tmp_path).open_read("gold.raw")) as disk:
        yield disk
    assert (tmp_path / "gold.raw").read_bytes() == CONTENT


def a_job(action: Action = Action.COMPOSE, mode: str = "work") -> EngineJob:
    return EngineJob(action, EngineDisk(""), EngineOptions(recommended=(mode,)))


def test_what_it_composes_is_in_the_overlay_only(image: RawDisk) -> None:
    with overlay_over(image) as overlay:
        report = run_site_engine(overlay, a_job())
        assert report.ok
        assert overlay.read_at(65536, 513) == b"\7" * 512 + b"\1"
        assert not any(overlay.read_at(MIB, 65536))
        assert list(overlay.written_ranges()) == [(65536, 65536), (MIB, 65536)]


def test_only_composing_may_write(image: RawDisk) -> None:
    with overlay_over(image) as overlay:
        assert run_site_engine(overlay, a_job(Action.PLAN)).ok
        assert list(overlay.written_ranges()) == []


def test_the_overlay_leaves_nothing_in_its_folder(image: RawDisk, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with overlay_over(image, folder=work) as overlay:
        overlay.write_at(0, b"x")
        assert list(work.iterdir()) == []  # so that not even a killed process leaves it
    with (
        pytest.raises(InputError, match="no-such"),
        overlay_over(image, folder=tmp_path / "no-such"),
    ):
        pass


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_machine_that_is_full_from_the_start_is_told_as_full(
    image: RawDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: LocalFolder, name: str) -> WritableFile:
        raise ShareFull(f"Cannot create '{name}': no room.")

    monkeypatch.setattr(LocalFolder, "create", full)
    with pytest.raises(ShareFull, match="overlay"), overlay_over(image):
        pass


@pytest.mark.parametrize("mode", ["work", "deaf"])
def test_a_full_machine_ends_the_engine_with_its_own_error(
    image: RawDisk, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with overlay_over(image) as overlay:
        monkeypatch.setattr(os, "pwrite", no_room)
        with pytest.raises(ShareFull, match="no room is left"):
            run_site_engine(overlay, a_job(mode=mode), deadline_seconds=60)


class DroppingDisk(RawDisk):
    """A disk whose share has gone."""

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        raise ShareUnreachable(f"Cannot read {length_bytes} bytes at {offset_bytes}: gone.")


def test_a_share_that_drops_while_composing_is_the_cause_and_may_be_retried(
    image: RawDisk, tmp_path: Path
) -> None:
    assert image.size_bytes
    with (
        DroppingDisk(LocalFolder(tmp_path).open_read("gold.raw")) as disk,
        overlay_over(disk) as overlay,
        pytest.raises(ShareUnreachable) as caught,
    ):
        run_site_engine(overlay, a_job())
    assert caught.value.retryable
