from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.build import build_raw_sample, cached_sample
from imageport.sandbox.sample.disk_image import data_ranges
from imageport.sandbox.sample.recipe import WINDOWS, Variant


@pytest.fixture(scope="session")
def small_vhdx() -> Path:
    return cached_sample(Variant.SMALL)


@pytest.fixture
def raw_of(tmp_path: Path) -> Callable[[Variant], Path]:
    return lambda variant: build_raw_sample(tmp_path / f"{variant}.raw", variant)


@pytest.fixture
def volume_of(raw_of: Callable[[Variant], Path]) -> Callable[[Variant], Path]:
    def make(variant: Variant) -> Path:
        raw = raw_of(variant)
        volume = raw.with_suffix(".ntfs")
        with raw.open("rb") as reader, volume.open("wb") as writer:
            writer.truncate(WINDOWS.size)
            for at, length in data_ranges(raw):
                start, end = max(at, WINDOWS.first), min(at + length, WINDOWS.first + WINDOWS.size)
                if start < end:
                    data = os.pread(reader.fileno(), end - start, start)
                    os.pwrite(writer.fileno(), data, start - WINDOWS.first)
        return volume

    return make
