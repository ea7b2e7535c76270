"""The two subcommands, called as a shell calls them.

Recipe: a 40 MiB raw disk, GPT by sgdisk, two partitions, 3 MiB of random bytes in the second.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vhd_bytes import DIFFERENCING, Recipe, make
from vhdx_bytes import HEADERS, put

from imageport.cli.disk_arguments import opened_disk
from imageport.cli.main import main
from imageport.compose.contract import Action, EngineJob, EngineReport, Inspection, Refusal
from imageport.errors import FileLocked
from imageport.formats.gpt import DiskLayout, read_layout
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from imageport.storage.local import LocalFolder
from tests.formats.chain_bytes import Layer, write_layer


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "gold.raw"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(12 * MIB)
        file.write(random.Random(1).randbytes(3 * MIB))  # noqa: S311
    options = ["-n1:2048:+4M", "-t1:ef00", "-c1:ESP", "-n2:0:0", "-t2:0700", "-c2:Windows"]
    subprocess.run(["sgdisk", *options, str(path)], check=True, capture_output=True)
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_inspect_tells_format_sizes_extents_and_partitions(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--no-guest", "--json", str(raw)]) == 0
    facts = json.loads(printed(capsys))
    assert (facts["format"], facts["size_bytes"], facts["scheme"]) == ("raw", 40 * MIB, "gpt")
    assert [one["name"] for one in facts["partitions"]] == ["ESP", "Windows"]
    sums = facts["extents"]
    assert 3 * MIB <= sums["data_bytes"] < 4 * MIB
    assert sums["data_bytes"] + sums["hole_bytes"] + sums["zero_bytes"] == 40 * MIB
    assert facts["file"]["allocated_bytes"] < 4 * MIB
    assert "guest" not in facts


def test_inspect_of_a_disk_that_is_written_meanwhile_is_no_answer(
    raw: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_write(disk: VirtualDisk) -> DiskLayout:
        os.utime(raw, ns=(0, raw.stat().st_mtime_ns + 1))
        return read_layout(disk)

    monkeypatch.setattr("imageport.cli.inspect.read_layout", read_and_write)
    assert main(["inspect", "--no-guest", "--json", str(raw)]) == 1
    assert json.loads(printed(capsys))["error"]["code"] == "source-changed"


@pytest.mark.parametrize(
    ("lock", "keeps_out"), [("", True), ("GOLD.lok", False), ("gold.1.lok", False), ("a.lok", True)]
)
def test_devices_that_stream_a_vdisk_are_not_kept_out(
    tmp_path: Path, lock: str, keeps_out: bool
) -> None:
    folder = LocalFolder(tmp_path)
    base = write_layer(folder, "gold.vhdx", Layer(MIB))
    write_layer(folder, "gold.1.avhdx", Layer(MIB), parent=base)
    if lock:
        folder.write_bytes(lock, b"")
    with opened_disk(str(tmp_path / "gold.1.avhdx")) as disk:
        assert len(list(disk.stored_files())) == 2
        for name in ("gold.vhdx", "gold.1.avhdx"):
            with pytest.raises(FileLocked) if keeps_out else contextlib.nullcontext():
                folder.open_write(name).close()
    with (
        folder.open_write("gold.1.avhdx"),
        pytest.raises(FileLocked),
        opened_disk(str(tmp_path / "gold.1.avhdx")),
    ):
        pass


def test_inspect_prints_a_table_for_people(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--no-guest", str(raw)]) == 0
    text = printed(capsys)
    assert "raw, sectors of 512 bytes" in text
    assert "Windows" in text


def test_inspect_shows_what_it_can_of_a_disk_with_a_damaged_table(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw.open("r+b") as file:
        for at in (512 + 60, 40 * MIB - 512 + 60):
            file.seek(at)
            file.write(b"\xff")
    assert main(["inspect", "--no-guest", "--json", str(raw)]) == 1
    facts = json.loads(printed(capsys))
    assert facts["scheme"] == "damaged"
    assert "CRC-32" in facts["problem"]


@pytest.mark.parametrize("names", [("gold.vhdx", "back.raw"), ("gold.vhdx", "again.vhdx")])
def test_convert_goes_both_ways_and_qemu_agrees(
    raw: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = raw
    digests = set()
    for name in names:
        target = raw.with_name(name)
        assert main(["convert", "--json", str(source), str(target)]) == 0
        facts = json.loads(printed(capsys))
        assert "(L3)" in facts["verified"]
        digests.add(facts["image_digest"])
        kind = "raw" if name.endswith("raw") else "vhdx"
        command = ["qemu-img", "compare", "-f", "raw", "-F", kind, str(raw), str(target)]
        subprocess.run(command, check=True, capture_output=True)
        assert target.stat().st_blocks * 512 < 6 * MIB
        source = target
    assert len(digests) == 1
    assert sorted(path.name for path in raw.parent.iterdir()) == sorted([raw.name, *names])


@pytest.mark.parametrize(
    ("arguments", "disk_type"),
    [([], "dynamic"), (["--format", "vhd"], "dynamic"), (["--format", "vhd-fixed"], "fixed")],
)
def test_convert_writes_vhd_of_the_exact_size_and_reads_it_again(
    raw: Path, arguments: list[str], disk_type: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target, back = raw.with_name("gold.vhd"), raw.with_name("back.raw")
    assert main(["convert", "--json", *arguments, str(raw), str(target)]) == 0
    made = json.loads(printed(capsys))
    # No forced size: what others read is what the creator in the footer makes them read.
    command = ["qemu-img", "compare", "-f", "raw", "-F", "vpc", str(raw), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    assert target.stat().st_blocks * 512 < 6 * MIB
    assert main(["convert", "--json", str(target), str(back)]) == 0
    again = json.loads(printed(capsys))
    assert (again["source_format"], again["size_bytes"]) == ("vhd", 40 * MIB)
    assert again["image_digest"] == made["image_digest"]
    assert main(["inspect", "--no-guest", "--json", str(target)]) == 0
    assert json.loads(printed(capsys))["file"]["disk_type"] == disk_type


def test_convert_reads_a_version_through_its_chain(raw: Path) -> None:
    content = raw.read_bytes()
    runs = {block: [(0, 1024)] for block in range(80)}
    base = make(Recipe(40 * MIB, blocks=runs))
    # The base is noise; the version holds the disk, but for what it leaves to its parent.
    version = make(
        Recipe(40 * MIB, blocks={0: [(0, 1024)]}, kind=DIFFERENCING, seed=1, parent=base)
    )
    place = version.places[0] + 512
    changed = (
        version.content[:place] + content[: 512 * 1024] + version.content[place + 512 * 1024 :]
    )
    raw.with_name("gold.vhd").write_bytes(base.content)
    raw.with_name("gold.1.avhd").write_bytes(changed)
    source, target = raw.with_name("gold.1.avhd"), raw.with_name("flat.raw")
    assert main(["convert", "--json", str(source), str(target)]) == 0
    assert target.read_bytes() == content[: 512 * 1024] + base.guest[512 * 1024 :]


def test_convert_refuses_a_vhd_of_a_disk_with_4_kib_sectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "gold.raw"
    source.write_bytes(bytes(4096) + b"EFI PART" + bytes(MIB - 4104))
    assert main(["convert", "--json", str(source), str(tmp_path / "x.vhd")]) == 2
    assert "VHD knows no others" in printed(capsys)
    assert list(tmp_path.iterdir()) == [source]


def test_convert_shows_progress_and_says_where_the_file_is(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = raw.with_name("x.img")
    assert main(["convert", "--format", "vhdx", str(raw), str(target)]) == 0
    shown = capsys.readouterr()
    assert str(target) in shown.out
    assert "convert" in shown.err
    with VhdxDisk(LocalFolder(raw.parent).open_read("x.img")) as disk:
        assert disk.size_bytes == 40 * MIB


@pytest.mark.parametrize(("level", "words"), [("sample", "blocks compared"), ("none", "not read")])
def test_convert_verifies_as_far_as_it_is_asked(
    raw: Path, level: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = raw.with_name("copy.vhdx")
    assert main(["convert", "--json", "--verify", level, str(raw), str(target)]) == 0
    facts = json.loads(printed(capsys))
    assert words in facts["verified"]
    assert (facts["image_digest"] is None) == (level == "none")
    assert 3 * MIB <= facts["stats"]["bytes_read"] < 4 * MIB
    command = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", str(raw), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in raw.parent.iterdir()) == ["copy.vhdx", raw.name]


def test_an_unverified_convert_leaves_no_journal_of_an_earlier_one(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = raw.with_name("copy.raw.imageport-journal")
    journal.write_bytes(b"of a run that was killed")
    assert main(["convert", "--verify", "none", str(raw), str(raw.with_name("copy.raw"))]) == 0
    assert "not read back" in printed(capsys)
    assert not journal.exists()


def test_convert_never_replaces_a_file(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = raw.with_name("x.vhdx")
    target.write_bytes(b"precious")
    assert main(["convert", "--json", str(raw), str(target)]) == 1
    assert json.loads(printed(capsys))["error"]["code"] == "name-taken"
    assert target.read_bytes() == b"precious"
    assert len(list(raw.parent.iterdir())) == 2


def test_convert_wants_a_format_it_can_write(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--json", str(raw), str(raw.with_name("x.vmdk"))]) == 2
    assert json.loads(printed(capsys))["error"]["code"] == "input-invalid"


def test_a_damaged_source_leaves_no_file(
    tmp_path: Path, sound_vhdx: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "bad.vhdx"
    source.write_bytes(put(put(sound_vhdx, HEADERS[0] + 9, "B", 7), HEADERS[1] + 9, "B", 7))
    for command in (["inspect"], ["convert", str(tmp_path / "x.raw")]):
        words = ["--json", str(source), *command[1:]]
        assert main([command[0], *words]) == 1
        assert json.loads(printed(capsys))["error"]["code"] == "disk-corrupt"
    assert list(tmp_path.iterdir()) == [source]


def test_a_missing_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(tmp_path / "no.vhdx")]) == 1
    error = json.loads(printed(capsys))["error"]
    assert error["code"] == "file-missing"
    assert "no.vhdx" in error["message"]


def test_a_killed_convert_goes_on_where_it_ended(tmp_path: Path) -> None:
    source = tmp_path / "big.raw"
    dice = random.Random(2)  # noqa: S311
    with source.open("wb") as file:
        file.write((bytes(510) + b"\x55\xaa").ljust(MIB, b"d"))
        for _ in range(319):
            file.write(dice.randbytes(1024) * 1024)
    target = tmp_path / "big.vhdx"
    command = [sys.executable, "-m", "imageport", "convert", str(source), str(target)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    part = tmp_path / "big.vhdx.imageport-part"
    journal = tmp_path / "big.vhdx.imageport-journal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and first.poll() is None:
        if journal.exists() and journal.stat().st_size > 8192:
            break
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    if target.exists():
        pytest.skip("the first run was faster than the kill")
    assert part.exists()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    stats = json.loads(done.stdout)["stats"]
    assert stats["bytes_resumed"] > 0
    assert stats["bytes_sent"] < 320 * MIB
    command = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", str(source), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.raw", "big.vhdx"]


def test_inspect_says_of_a_guest_what_the_engine_found(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[EngineJob] = []

    def stand_in(_disk: object, job: EngineJob, **_more: object) -> EngineReport:
        asked.append(job)
        return EngineReport(
            Action.INSPECT,
            ok=False,
            inspection=Inspection(
                product_name="Windows 11 Enterprise", drivers=("oem3.inf Maker",)
            ),
            refusals=(Refusal("driver_missing", "no driver for its network card", "Give one."),),
        )

    monkeypatch.setattr("imageport.compose.site_engine.run_site_engine", stand_in)
    assert main(["inspect", "--target", "aws", str(raw)]) == 3
    text = printed(capsys)
    for words in ("Windows 11 Enterprise", "oem3.inf Maker", "[driver_missing]", "Hint: Give one."):
        assert words in text
    assert main(["inspect", "--json", "--target", "aws", str(raw)]) == 3
    facts = json.loads(printed(capsys))
    assert facts["guest"]["inspection"]["product_name"] == "Windows 11 Enterprise"
    assert [(job.action, job.options.cloud) for job in asked] == [(Action.INSPECT, "aws")] * 2


@pytest.mark.slow
@pytest.mark.guest
def test_inspect_looks_into_windows_and_says_what_prepare_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = build_sample(tmp_path / "gold.vhdx", Variant.SMALL)
    # The sample has no driver for the cloud's network card, and no payload is given here.
    assert main(["inspect", "--json", str(disk)]) == 3
    facts = json.loads(printed(capsys))
    assert facts["guest"]["inspection"]["product_name"].startswith("Windows 11")
    assert facts["guest"]["inspection"]["disk_guid"].upper() == facts["disk_guid"]
    assert [one["code"] for one in facts["guest"]["refusals"]] == ["driver_missing"]
