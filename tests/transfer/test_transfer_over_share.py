"""From one real share to another: sparse source, VHDX target, journal, all over SMB."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.formats.raw import RawDisk
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB
from imageport.sandbox.samba import SambaServer
from imageport.state.store import StateStore
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer

USER = "carrier"
PASSWORD = "Planted-Secret-1138"
SIZE_BYTES = 160 * MIB


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("samba")
    shares = {name: root / name for name in ("source", "target", "state")}
    with SambaServer(root / "server", shares, USER, PASSWORD) as server:
        yield server


def share(samba: SambaServer, name: str) -> SmbFolder:
    return SmbFolder(SmbLocation.parse(samba.location(name)), SmbCredentials(USER, PASSWORD))


@pytest.fixture
def source(samba: SambaServer, tmp_path: Path) -> Iterator[tuple[Path, VirtualDisk, int]]:
    """A sparse raw file, its twin on this machine, and how much of it is allocated."""
    twin = tmp_path / "twin.raw"
    places = sorted(random.sample(range(SIZE_BYTES // MIB), 24))
    with share(samba, "source") as folder:
        folder.delete("disk.raw")
        with folder.create("disk.raw") as file, twin.open("wb") as copy:
            file.set_sparse()
            file.set_size(SIZE_BYTES)
            copy.truncate(SIZE_BYTES)
            for place in places:
                data = random.randbytes(MIB)  # noqa: S311 - contents, no secret
                file.write_at(place * MIB, data)
                copy.seek(place * MIB)
                copy.write(data)
            file.flush()
        with RawDisk(folder.open_read("disk.raw", deny_write=True)) as disk:
            yield twin, disk, 24 * MIB


def move(samba: SambaServer, disk: VirtualDisk, target: BlockTarget) -> TransferResult:
    with share(samba, "state") as state_folder:
        state = StateStore(state_folder)
        request = TransferRequest(
            state.journals.open("one"), "token", verify=VerifyLevel.FULL, partitions=()
        )
        return transfer(disk, target, request)


def test_only_the_allocated_part_is_read_and_the_copy_is_exact_by_qemu(
    samba: SambaServer, source: tuple[Path, VirtualDisk, int], tmp_path: Path
):
    twin, disk, allocated = source
    with share(samba, "target") as store:
        store.delete("copy.vhdx.part")
        target = VhdxFileTarget(store, "copy.vhdx.part")
        result = move(samba, disk, target)
        target.close()
        assert allocated <= result.stats.bytes_read <= allocated * 1.01
        assert result.stats.bytes_sent <= allocated + 48 * BLOCK_BYTES
        copy = tmp_path / "copy.vhdx"
        with store.open_read(result.reference) as file:
            copy.write_bytes(file.read_at(0, file.size_bytes))
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", str(twin), str(copy)]
    assert "identical" in subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    with share(samba, "state") as state_folder:
        StateStore(state_folder).journals.delete("one")


def test_a_transfer_over_a_share_goes_on_after_its_process_is_gone(
    samba: SambaServer, source: tuple[Path, VirtualDisk, int]
):
    _twin, disk, _allocated = source
    with share(samba, "target") as store:
        store.delete("copy.vhdx.part")
        target = VhdxFileTarget(store, "copy.vhdx.part")
        put, count = target.put, iter(range(1000))

        def crash(index: int, data: bytes | memoryview, digest: bytes) -> None:
            if next(count) == 30:
                raise KeyboardInterrupt
            put(index, data, digest)

        target.put = crash  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            move(samba, disk, target)
        target.close()
        second = VhdxFileTarget(store, "copy.vhdx.part")
        result = move(samba, disk, second)
        second.close()
        assert result.stats.bytes_resumed >= 25 * BLOCK_BYTES
        assert result.stats.bytes_sent + result.stats.bytes_resumed == 48 * BLOCK_BYTES
        assert "(L3)" in result.verified
        store.delete("copy.vhdx.part")
    with share(samba, "state") as state_folder:
        StateStore(state_folder).journals.delete("one")
