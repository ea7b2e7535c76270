"""`imageport images` prints the catalogue for people and for scripts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from imageport.cli import images
from imageport.model import GenerationRole
from imageport.state.records import Generation, Publication
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder


@pytest.fixture
def state_path(tmp_path: Path) -> Path:
    store = StateStore(LocalFolder(tmp_path))
    for number, role in ((1, GenerationRole.UPLOADED), (2, GenerationRole.PREPARED)):
        store.catalogue.add(
            Generation(
                id=f"gen-{number}",
                image="win11",
                target="aws/eu-central-1/site-b",
                role=role,
                created=f"2026-01-0{number}T00:00:00+00:00",
                size_bytes=8 << 30,
                source_key="key",
                image_digest="digest",
                handle={"snapshot_id": f"snap-{number}"},
            )
        )
    place = Publication("smb://b/store", "win11.1.vhdx", "2026-01-02", 5, 7, "digest")
    store.catalogue.add_publication("gen-2", place)
    return tmp_path


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    images.add_arguments(parser)
    return images.run(parser.parse_args(argv))


def test_people_get_one_line_per_generation(state_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--state", str(state_path)) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["U", "win11"]
    assert second.split()[:2] == ["P", "win11"]
    assert "8.0 GiB" in first
    assert second.endswith("smb://b/store/win11.1.vhdx")


def test_scripts_get_json(state_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--state", str(state_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in found] == ["gen-1", "gen-2"]
    assert found[1]["publications"][0]["file_name"] == "win11.1.vhdx"


def test_an_empty_catalogue_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("--state", str(tmp_path)) == 0
    assert "empty" in capsys.readouterr().out
