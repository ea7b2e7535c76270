"""From a real share to three targets: what crosses the wire is one read of the vDisk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from imageport.citrix.vdisk_store import VdiskStore
from imageport.clouds.memory import MemoryBehaviour, MemoryCloud
from imageport.clouds.memory_blocks import MemoryAccount
from imageport.formats.opening import open_disk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import BLOCK_BYTES, MIB
from imageport.sandbox.samba import SambaServer
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation
from imageport.storage.smb_file import SmbFile
from imageport.workflow.facts import source_facts
from imageport.workflow.place import Workplace
from tests.workflow.many_uploads import upload_to_many

USER, PASSWORD = "carrier", "Planted-Secret-1618"
DATA_BYTES = 24 * MIB


def test_three_targets_cost_one_read_of_the_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    read_many = SmbFile.read_many

    def counting(self: SmbFile, ranges: object) -> object:
        for offset, data in read_many(self, ranges):  # type: ignore[arg-type]
            counted.append(len(data))
            yield offset, data

    state, accounts = StateStore(MemoryFolder("state")), [MemoryAccount() for _ in range(3)]
    places = [
        Workplace(
            "site-b",
            f"memory/{number}/site-b",
            "run",
            state,
            MemoryCloud(
                state.ledger,
                f"run-{number}",
                account=account,
                behaviour=MemoryBehaviour(starts_from_parent=number != 1),
            ),
        )
        for number, account in enumerate(accounts)
    ]
    with SambaServer(tmp_path / "server", {"store": tmp_path / "store"}, USER, PASSWORD) as server:
        location = SmbLocation.parse(server.location("store"))
        with SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder:
            write_vdisk(folder)
            store = VdiskStore(folder)
            key = source_facts(store, "gold").source_key
            monkeypatch.setattr(SmbFile, "read_many", counting)
            done = upload_to_many(places, store, "gold", source_key=key)
            monkeypatch.undo()
            assert [outcome.words for outcome in done.outcomes] == ["", "", ""]
            assert DATA_BYTES <= sum(counted) <= 1.05 * DATA_BYTES
            for place, outcome in zip(places, done.outcomes, strict=True):
                assert outcome.made is not None
                reference = outcome.made.generation.handle["snapshot_id"]
                with (
                    place.cloud.open_snapshot(reference) as copy,
                    open_disk(folder.open_read("gold.vhdx"), folder) as disk,
                ):
                    for start in range(0, disk.size_bytes, BLOCK_BYTES):
                        assert copy.read_at(start, BLOCK_BYTES) == disk.read_at(start, BLOCK_BYTES)


def write_vdisk(folder: SmbFolder) -> None:
    with folder.create("gold.vhdx") as file:
        file.set_sparse()
        writer = VhdxWriter(file, 64 * MIB, block_bytes=MIB)
        for start in range(0, 2 * DATA_BYTES, 2 * MIB):
            writer.write_at(start, random.randbytes(MIB))  # noqa: S311 - contents
        writer.finish()
