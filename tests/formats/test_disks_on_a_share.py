"""Disks on a real SMB share: written, resumed, read, inspected and converted there."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.formats.nbd_view import NbdView
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB, ExtentState
from imageport.sandbox.samba import SambaServer
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation

SIZE = 100 * MIB + 512
USER, PASSWORD = "golden", "Planted-Secret-4711"
WRITES = {
    0: (bytes(446) + bytes(64) + b"\x55\xaa").ljust(8192, b"h"),
    33 * MIB - 700: random.Random(1).randbytes(3 * MIB),  # noqa: S311
    SIZE - 512: b"t" * 512,
}


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("smb")
    with SambaServer(root / "server", {"store": root / "store"}, USER, PASSWORD) as server:
        yield server


@pytest.fixture
def share(samba: SambaServer) -> Iterator[SmbFolder]:
    location = SmbLocation.parse(samba.location("store"))
    with SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder:
        yield folder


@pytest.fixture(scope="module")
def on_disk(samba: SambaServer) -> Path:
    """The share's folder as this machine sees it, with a disk that was written over SMB."""
    location = SmbLocation.parse(samba.location("store"))
    writes = list(WRITES.items())
    with SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder:
        with folder.create("gold.vhdx") as file:
            file.set_sparse()
            writer = VhdxWriter(file, SIZE)
            writer.write_at(*writes[0])
            writer.flush()
        with folder.open_write("gold.vhdx") as file:
            writer = VhdxWriter.reopen(file)
            for write in writes[1:]:
                writer.write_at(*write)
            writer.finish()
    return samba.shares["store"]


def expected() -> bytes:
    disk = bytearray(SIZE)
    for offset, data in WRITES.items():
        disk[offset : offset + len(data)] = data
    return bytes(disk)


def test_what_was_written_over_smb_is_sound_for_qemu(on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "wanted.raw").write_bytes(expected())
    subprocess.run(
        ["qemu-img", "check", "-f", "vhdx", on_disk / "gold.vhdx"], check=True, capture_output=True
    )
    command = ["qemu-img", "compare", "-f", "vhdx", "-F", "raw", on_disk / "gold.vhdx"]
    subprocess.run([*command, tmp_path / "wanted.raw"], check=True, capture_output=True)
    assert (on_disk / "gold.vhdx").stat().st_blocks * 512 < 8 * MIB


def test_only_what_the_server_has_stored_is_data(on_disk: Path, share: SmbFolder) -> None:
    stored = (on_disk / "gold.vhdx").stat().st_blocks * 512
    with VhdxDisk(share.open_read("gold.vhdx")) as disk:
        ranges = [
            (extent.offset_bytes, extent.length_bytes)
            for extent in disk.extents()
            if extent.state is ExtentState.DATA
        ]
        read = 0
        for offset, data in disk.read_many(ranges):
            assert data == expected()[offset : offset + len(data)]
            read += len(data)
        assert read <= stored * 1.01
        everything = b"".join(data for _, data in disk.read_many([(0, SIZE)]))
        assert everything == expected()
        disk.check_unchanged()


@pytest.mark.usefixtures("on_disk")
def test_tools_read_a_disk_that_lies_on_the_share(share: SmbFolder, tmp_path: Path) -> None:
    (tmp_path / "wanted.raw").write_bytes(expected())
    with VhdxDisk(share.open_read("gold.vhdx")) as disk, NbdView(disk, tmp_path / "s") as view:
        command = ["qemu-img", "compare", "-f", "raw", "-F", "raw", view.uri]
        subprocess.run([*command, tmp_path / "wanted.raw"], check=True, capture_output=True)


def test_the_subcommands_take_a_share(
    on_disk: Path,
    samba: SambaServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IMAGEPORT_SMB_USER", USER)
    monkeypatch.setenv("IMAGEPORT_SMB_PASSWORD", PASSWORD)
    source = f"{samba.location('store')}/gold.vhdx"
    assert main(["inspect", "--no-guest", "--json", source]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["extents"]["data_bytes"] < 5 * MIB
    for target in (f"{samba.location('store')}/copy.raw", str(tmp_path / "copy.vhdx")):
        assert main(["convert", "--json", source, target]) == 0
    shown = capsys.readouterr()
    assert PASSWORD not in shown.out + shown.err
    assert (on_disk / "copy.raw").read_bytes() == expected()
    assert (on_disk / "copy.raw").stat().st_blocks * 512 < 8 * MIB
    assert sorted(path.name for path in on_disk.iterdir()) == ["copy.raw", "gold.vhdx"]


@pytest.mark.parametrize("kind", ["vhd", "vhd-fixed"])
def test_a_vhd_is_written_to_a_share_and_read_from_it(
    on_disk: Path, samba: SambaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("IMAGEPORT_SMB_USER", USER)
    monkeypatch.setenv("IMAGEPORT_SMB_PASSWORD", PASSWORD)
    source, made = f"{samba.location('store')}/gold.vhdx", f"{samba.location('store')}/gold.vhd"
    (tmp_path / "wanted.raw").write_bytes(expected())
    try:
        assert main(["convert", "--json", "--format", kind, source, made]) == 0
        command = ["qemu-img", "compare", "-f", "vpc", "-F", "raw", on_disk / "gold.vhd"]
        subprocess.run([*command, tmp_path / "wanted.raw"], check=True, capture_output=True)
        assert main(["convert", "--json", made, str(tmp_path / "back.raw")]) == 0
    finally:
        (on_disk / "gold.vhd").unlink(missing_ok=True)
    assert (tmp_path / "back.raw").read_bytes() == expected()


def test_a_wrong_password_is_named(
    on_disk: Path,
    samba: SambaServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (on_disk / "gold.vhdx").exists()
    monkeypatch.setenv("IMAGEPORT_SMB_USER", USER)
    monkeypatch.setenv("IMAGEPORT_SMB_PASSWORD", "wrong")
    assert main(["inspect", "--json", f"{samba.location('store')}/gold.vhdx"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "share-login-refused"
