"""``imageport inspect`` on chains: every file of them is shown, local and on a share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.sandbox.samba import SambaServer
from imageport.storage.local import LocalFolder
from tests.formats.chain_bytes import (
    BAT,
    FULL,
    MIB,
    PARTIAL,
    UNMAPPED,
    ZERO,
    Layer,
    Written,
    write_layer,
)
from tests.formats.log_bytes import crashed

LAYERS = {
    "gold.vhdx": Layer(5 * MIB, blocks={0: (FULL, ()), 1: (FULL, ())}),
    "gold.1.avhdx": Layer(5 * MIB, blocks={0: (PARTIAL, range(100)), 2: (FULL, ())}),
    "gold.2.avhdx": Layer(5 * MIB, blocks={1: (ZERO, ()), 2: (UNMAPPED, ())}),
}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Written]:
    found: dict[str, Written] = {}
    below: Written | None = None
    for name, layer in LAYERS.items():
        found[name] = below = write_layer(LocalFolder(tmp_path), name, layer, parent=below)
    return found


def inspected(capsys: pytest.CaptureFixture[str], location: str) -> dict:
    assert main(["inspect", "--no-guest", "--json", location]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_file_of_a_chain_is_listed_with_what_it_holds(
    tmp_path: Path, made: dict[str, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = inspected(capsys, str(tmp_path / "gold.2.avhdx"))
    chain = facts["chain"]
    assert [one["name"] for one in chain] == ["gold.2.avhdx", "gold.1.avhdx", "gold.vhdx"]
    assert [one["version"] for one in chain] == [2, 1, 0]
    assert [one["id"] for one in chain] == [str(made[one["name"]].data_write_guid) for one in chain]
    assert [one["parent_ids"] for one in chain] == [[chain[1]["id"]], [chain[2]["id"]], []]
    assert chain[0]["holds"] == {
        "data_bytes": 0,
        "zero_bytes": MIB,
        "hole_bytes": MIB,
        "below_bytes": 3 * MIB,
    }
    assert chain[1]["holds"]["data_bytes"] == 100 * 512 + MIB
    assert chain[1]["file"]["allocated_blocks"] == 2
    assert chain[1]["file"]["file_bytes"] == (tmp_path / "gold.1.avhdx").stat().st_size
    assert facts["file"]["chain_files"] == 3
    assert facts["extents"]["data_bytes"] <= 2 * MIB


def test_people_see_the_chain_too(
    tmp_path: Path, made: dict[str, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--no-guest", str(tmp_path / "gold.1.avhdx")]) == 0
    text = capsys.readouterr().out
    assert "gold.1.avhdx (vhdx, version 1," in text
    assert "gold.vhdx (vhdx, version 0," in text
    assert f"on {made['gold.vhdx'].data_write_guid}" in text


def test_a_base_is_shown_alone(
    tmp_path: Path, made: dict[str, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = inspected(capsys, str(tmp_path / "gold.vhdx"))
    assert facts["chain"] == []
    assert facts["file"]["data_write_guid"] == str(made["gold.vhdx"].data_write_guid)


def test_a_broken_chain_is_told_with_both_ids(
    tmp_path: Path, made: dict[str, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gold.vhdx").unlink()
    stranger = write_layer(LocalFolder(tmp_path), "gold.vhdx", LAYERS["gold.vhdx"], seed=4)
    assert main(["inspect", "--no-guest", "--json", str(tmp_path / "gold.2.avhdx")]) != 0
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "disk-corrupt"
    assert error["fields"]["wanted"] == [str(made["gold.vhdx"].data_write_guid)]
    assert error["fields"]["found"] == {"gold.vhdx": str(stranger.data_write_guid)}


def test_a_pending_log_is_shown_and_the_file_is_left_alone(
    tmp_path: Path, made: dict[str, Written], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gold.vhdx"
    content = crashed(path.read_bytes(), [BAT])
    path.write_bytes(content)
    facts = inspected(capsys, str(path))
    assert "replayed in memory" in facts["file"]["log"]
    assert path.read_bytes() == content
    assert made


def test_a_version_on_a_share_is_read_with_its_parents(
    tmp_path: Path,
    made: dict[str, Written],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEPORT_SMB_USER", "pvs")
    monkeypatch.setenv("IMAGEPORT_SMB_PASSWORD", "pvs-pass")
    with SambaServer(tmp_path / "server", {"store": tmp_path}, "pvs", "pvs-pass") as server:
        facts = inspected(capsys, f"{server.location('store')}/gold.2.avhdx")
        assert [one["version"] for one in facts["chain"]] == [2, 1, 0]
        source = f"{server.location('store')}/gold.2.avhdx"
        assert main(["convert", "--json", source, str(tmp_path / "flat.raw")]) == 0
    assert (tmp_path / "flat.raw").read_bytes() == made["gold.2.avhdx"].content
