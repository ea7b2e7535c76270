"""Bad input and bad moments: a clear error each, and nothing left over."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imageport.citrix.vdisk_store import IfExists, VdiskStore
from imageport.errors import (
    BadDisk,
    FileLocked,
    FileMissing,
    ImageportError,
    NameTaken,
    ShareFull,
    ShareLoginRefused,
    SourceChanged,
    TransferCancelled,
    UnsupportedDisk,
)
from imageport.model import BLOCK_BYTES, MIB, ZERO_DIGEST, GenerationRole
from imageport.state.records import Generation
from imageport.storage.locate import open_folder
from imageport.storage.smb_location import SmbCredentials
from imageport.workflow.facts import source_facts
from imageport.workflow.generations import generation_id
from imageport.workflow.place import Workplace
from imageport.workflow.publish import publish
from imageport.workflow.upload import stats_of, upload
from tests.end_to_end.laboratory import Laboratory

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def nothing_is_left_over(disk_laboratory: Laboratory) -> Iterator[None]:
    """After every test: no half file in a store, and in the cloud only what the catalogue has."""
    yield
    disk_laboratory.turn(fault_rate=0.0)
    disk_laboratory.throttle(0)
    place = disk_laboratory.place("look")
    kept = {item.handle["snapshot_id"] for item in place.state.catalogue.list()}
    assert {resource.id for resource in place.cloud.list_ours("site-a")} <= kept
    assert not list(disk_laboratory.share("target-store").glob("*.part"))
    assert not list(disk_laboratory.share("source-store").glob("*.part"))


def clear(error: ImageportError, code: str, *words: str) -> None:
    """What every error owes the operator: code, object, cause, and what to do."""
    assert error.code == code
    assert error.hint
    for word in words:
        assert word in error.message


def copied(laboratory: Laboratory, name: str) -> Path:
    path = laboratory.share("source-store") / name
    shutil.copyfile(laboratory.share("source-store") / "gold.vhdx", path)
    return path


def test_a_truncated_vhdx_is_refused(disk_laboratory: Laboratory) -> None:
    path = copied(disk_laboratory, "cut.vhdx")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 9 * MIB)
    with pytest.raises(BadDisk) as caught:
        source_facts(disk_laboratory.store("source-store"), "cut")
    clear(caught.value, "disk-corrupt", "cut.vhdx", "cut short")


def test_wrong_checksums_in_both_headers_are_refused(disk_laboratory: Laboratory) -> None:
    path = copied(disk_laboratory, "sums.vhdx")
    with path.open("r+b") as file:
        for offset in (64 * 1024, 128 * 1024):
            file.seek(offset + 4)
            file.write(b"\xff\xff\xff\xff")
    with pytest.raises(BadDisk) as caught:
        source_facts(disk_laboratory.store("source-store"), "sums")
    clear(caught.value, "disk-corrupt", "sums.vhdx")


def test_a_file_that_is_no_disk_is_refused(disk_laboratory: Laboratory) -> None:
    (disk_laboratory.share("source-store") / "letter.vhdx").write_bytes(b"Dear Sir, " * 1000)
    with pytest.raises(BadDisk) as caught:
        source_facts(disk_laboratory.store("source-store"), "letter")
    clear(caught.value, "disk-corrupt", "letter.vhdx")


def test_a_vdisk_that_is_not_there_is_named(disk_laboratory: Laboratory) -> None:
    with pytest.raises(FileMissing) as caught:
        source_facts(disk_laboratory.store("source-store"), "silver")
    clear(caught.value, "file-missing", "silver")


def test_a_chain_of_versions_is_refused_by_name(disk_laboratory: Laboratory) -> None:
    copied(disk_laboratory, "chain.vhdx")
    (disk_laboratory.share("source-store") / "chain.1.avhdx").write_bytes(b"difference")
    with pytest.raises(UnsupportedDisk) as caught:
        source_facts(disk_laboratory.store("source-store"), "chain")
    clear(caught.value, "disk-unsupported", "chain.1.avhdx")


def test_an_exclusively_locked_vdisk_is_refused(disk_laboratory: Laboratory) -> None:
    copied(disk_laboratory, "locked.vhdx")
    writer = disk_laboratory.store("source-store")
    with writer.folder.open_write("locked.vhdx"), pytest.raises(FileLocked) as caught:
        source_facts(disk_laboratory.store("source-store"), "locked")
    clear(caught.value, "file-locked", "locked.vhdx")


def test_a_wrong_password_is_refused_and_not_repeated(disk_laboratory: Laboratory) -> None:
    location = disk_laboratory.location("source-store")
    wrong = SmbCredentials("imageport", "not-the-Pa55")
    with pytest.raises(ShareLoginRefused) as caught, open_folder(location, wrong) as folder:
        source_facts(VdiskStore(folder), "gold")
    clear(caught.value, "share-login-refused", "source-store")
    assert "not-the-Pa55" not in str(caught.value)


def test_a_source_that_changed_since_preflight_is_refused(disk_laboratory: Laboratory) -> None:
    with pytest.raises(SourceChanged):
        upload(
            disk_laboratory.place("changed"),
            disk_laboratory.store("source-store"),
            "gold",
            source_key="of-another-content",
        )


def test_a_cancelled_upload_leaves_nothing(disk_laboratory: Laboratory) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3

    disk_laboratory.throttle(20)
    store = disk_laboratory.store("source-store")
    place = replace(disk_laboratory.place("cancelled"), cancelled=cancelled)
    with pytest.raises(TransferCancelled):
        upload(place, store, "gold", source_key=source_facts(store, "gold").source_key)
    assert not place.state.ledger.open_entries(run="cancelled")


KILLED = """
import sys
from tests.end_to_end.laboratory import reopened
from imageport.workflow.facts import source_facts
from imageport.workflow.upload import upload
laboratory = reopened(*sys.argv[1:])
store = laboratory.store("source-store")
upload(laboratory.place("killed"), store, "gold", source_key=source_facts(store, "gold").source_key)
"""


def journaled_blocks(laboratory: Laboratory) -> int:
    """How many blocks the journals count as done: records of 44 bytes behind 4 KiB of header."""
    journals = laboratory.share("state") / "journals"
    sizes = [path.stat().st_size for path in journals.glob("*.journal")]
    return sum(max(0, size - 4096) // 44 for size in sizes)


def bytes_to_send(place: Workplace, uploaded: Generation) -> int:
    """Return the length of all blocks, but of zeros where what was never written reads as such."""
    if not place.cloud.upload_target("gold").traits.unwritten_reads_zero:
        return stats_of(uploaded).bytes_planned
    manifest = place.state.manifests.get(uploaded.id)
    assert manifest is not None
    sent = [index for index in manifest.written() if manifest.digest(index) != ZERO_DIGEST]
    return len(sent) * BLOCK_BYTES


def test_an_upload_killed_at_a_block_resumes_under_throttling_and_failures(
    disk_laboratory: Laboratory,
) -> None:
    disk_laboratory.turn(fault_rate=0.05)
    disk_laboratory.throttle(40)
    argv = [sys.executable, "-c", KILLED, *disk_laboratory.facts()]
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    deadline = time.monotonic() + 120
    while journaled_blocks(disk_laboratory) < 10:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = disk_laboratory.store("source-store")
    place = disk_laboratory.place("killed")
    uploaded = upload(place, store, "gold", source_key=source_facts(store, "gold").source_key)
    stats = stats_of(uploaded)
    assert stats.bytes_resumed > 0
    assert stats.bytes_sent + stats.bytes_resumed == bytes_to_send(place, uploaded)
    assert "L2" in uploaded.details["read_back"] or "L3" in uploaded.details["read_back"]


def prepared(laboratory: Laboratory) -> Generation:
    """Take the upload for a prepared generation: what is published is not the point here."""
    place = laboratory.place("killed")
    uploaded = place.state.catalogue.latest("gold", place.target, GenerationRole.UPLOADED)
    assert uploaded is not None
    generation = replace(
        uploaded, id=generation_id(GenerationRole.PREPARED, "gold"), role=GenerationRole.PREPARED
    )
    place.state.catalogue.add(generation)
    return generation


def test_a_full_target_store_is_named_and_left_as_it_was(
    disk_laboratory: Laboratory, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(small)], check=True)
    try:
        generation = prepared(disk_laboratory)
        with disk_laboratory.other_share(tmp_path / "samba", small) as folder:
            with pytest.raises(ShareFull) as caught:
                publish(disk_laboratory.place("full"), generation.id, VdiskStore(folder), "gold")
            clear(caught.value, "share-full", "small")
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_name_that_is_taken_is_never_replaced(disk_laboratory: Laboratory) -> None:
    taken = disk_laboratory.share("target-store") / "taken.vhdx"
    taken.write_bytes(b"somebody's")
    place = disk_laboratory.place("taken")
    newest = place.state.catalogue.latest("gold", place.target, GenerationRole.PREPARED)
    assert newest is not None
    with pytest.raises(NameTaken) as caught:
        publish(
            place,
            newest.id,
            disk_laboratory.store("target-store"),
            "taken",
            if_exists=IfExists.REFUSE,
        )
    clear(caught.value, "name-taken", "taken")
    assert taken.read_bytes() == b"somebody's"
