"""An image sent as one plain archive: what the bucket gets, extracted by GNU tar, is the disk.

The archive is fetched just before Google is asked to import it; afterwards it is gone.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from imageport.clouds.gcp import archive_upload, image_upload, streamed_archive_target
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.clouds.gcp.segment_index import read_index
from imageport.clouds.gcp.streamed_archive_target import (
    NOT_READ_BACK,
    ArchiveWriter,
    StreamedArchiveTarget,
)
from imageport.errors import CloudRefused, ResourceGone, VerificationFailed
from imageport.model import BLOCK_BYTES, GIB, MIB, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.pipeline import TransferRequest, TransferResult, VerifyLevel, transfer
from tests.clouds import gcp_killed_upload
from tests.clouds.archive_readers import gnu_tar
from tests.clouds.cloud_contract import TOKEN, Killed, block, digest
from tests.clouds.gcp_laboratory import GcpLab
from tests.transfer.synthetic_disk import DATA, HOLE, ZERO, SyntheticDisk

PLANNED = (0, 3, 4, 2047)
PLAN = TransferPlan(GIB, PLANNED, (), 4 * BLOCK_BYTES)
NOISE = Random(3)  # noqa: S311 - reproducible, no secret
BLOCKS = {index: NOISE.randbytes(BLOCK_BYTES) for index in PLANNED}
"""Four of half a MiB that do not shrink: a chunk of one MiB is sent between them."""
DIGESTS = {index: digest(data) for index, data in BLOCKS.items()}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_upload, "CHUNK_BYTES", MIB)


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive that Google was last asked to import."""
    path = tmp_path / "fetched.tar.gz"
    insert = image_upload.insert_raw_image

    def fetch(account: Any, name: str, intent: Any, source: str, **named: Any) -> None:
        key = source.removeprefix(f"gs://{account.settings.bucket}/")
        path.write_bytes(Objects(account).get(key))
        insert(account, name, intent, source, **named)

    monkeypatch.setattr(image_upload, "insert_raw_image", fetch)
    return path


def the_disk(version: str = "1") -> SyntheticDisk:
    """12 MiB with a hole, written zeros, and data of which a part is zeros."""
    layout = [(3 * MIB, DATA, 1), (MIB, HOLE, 0), (2 * MIB, DATA, 0), (MIB, ZERO, 0)]
    return SyntheticDisk([*layout, (5 * MIB, DATA, 2)], version=version)


def target_of(lab: GcpLab, run: str = "run-1") -> StreamedArchiveTarget:
    return StreamedArchiveTarget(lab.account(run, archive="stream"), "gold")


def send(lab: GcpLab, disk: SyntheticDisk) -> TransferResult:
    target = target_of(lab)
    journal = lab.state.journals.open("one")
    request = TransferRequest(journal, TOKEN, verify=VerifyLevel.FULL, partitions=())
    try:
        return transfer(disk, target, request)
    finally:
        target.close()


def begun(lab: GcpLab) -> tuple[StreamedArchiveTarget, str]:
    target = target_of(lab)
    return target, target.begin(PLAN, TOKEN)


def put_all(target: StreamedArchiveTarget) -> None:
    for index, data in BLOCKS.items():
        target.put(index, data, DIGESTS[index])


def resumed(lab: GcpLab, handle: str) -> StreamedArchiveTarget:
    target = target_of(lab)
    target.resume(PLAN, handle)
    return target


def check(archive: Path, disk: SyntheticDisk) -> None:
    extracted = gnu_tar(archive, archive.parent)
    size = disk.size_bytes
    with extracted.open("rb") as file:
        assert file.read(size) == disk.content(0, size)
        file.seek(0, 2)
        assert file.tell() == GIB


# --- sending ----------------------------------------------------------------------------------


def test_the_bucket_gets_the_disk_and_keeps_its_index_alone(gcp_lab: GcpLab, fetched: Path):
    disk = the_disk()
    result = send(gcp_lab, disk)
    check(fetched, disk)
    facts = describe_image(gcp_lab.account("looking"), result.reference)
    assert facts is not None
    assert (facts.ready, facts.size_bytes) == (True, GIB)
    assert [key.split("/")[2] for key in gcp_lab.objects()] == ["index"]
    index = read_index(gcp_lab.account("looking"), result.reference.rsplit("/", maxsplit=1)[-1])
    assert index is not None
    assert not index.has_segments
    assert index.manifest.image_digest() != ""
    assert result.stats.bytes_sent == 8 * MIB


def test_what_is_known_of_it_is_said_and_not_more(gcp_lab: GcpLab):
    result = send(gcp_lab, the_disk())
    assert "not read back" in result.verified
    with pytest.raises(CloudRefused, match="was sent as one archive, which nobody can read"):
        SegmentDisk(gcp_lab.account("reader"), result.reference)
    assert target_of(gcp_lab).remarks() == (NOT_READ_BACK,)


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"short_persists": 4}, marks=pytest.mark.slow),
        pytest.param({"lost_answers": 6}, marks=pytest.mark.slow),
        pytest.param({"fault_rate": 0.2, "seed": 7}, marks=pytest.mark.slow),
        {"short_persists": 3, "lost_answers": 3, "fault_rate": 0.1, "seed": 8},
    ],
    ids=["short persists", "lost answers", "faults", "everything"],
)
def test_a_link_that_fails_makes_the_same_archive(
    gcp_lab: GcpLab, fetched: Path, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    begin = StreamedArchiveTarget.begin

    def then_fail(self: StreamedArchiveTarget, *arguments: Any) -> str:
        handle = begin(self, *arguments)
        gcp_lab.turn(**knobs)
        return handle

    monkeypatch.setattr(StreamedArchiveTarget, "begin", then_fail)
    disk = the_disk()
    send(gcp_lab, disk)
    check(fetched, disk)


def test_a_lost_session_ends_the_upload_and_the_next_begins_anew(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    gcp_lab.turn(lost_sessions=1)
    target.put(0, BLOCKS[0], DIGESTS[0])
    target.put(3, BLOCKS[3], DIGESTS[3])
    with pytest.raises(ResourceGone):
        target.put(4, BLOCKS[4], DIGESTS[4])
    with pytest.raises(ResourceGone, match="its upload session has ended"):
        resumed(gcp_lab, handle)
    assert gcp_lab.objects() == []
    target, _ = begun(gcp_lab)
    put_all(target)
    assert target.commit(DIGESTS) in gcp_lab.images()


# --- order ------------------------------------------------------------------------------------


def test_blocks_that_nobody_puts_are_sent_as_zeros(gcp_lab: GcpLab, fetched: Path):
    target, _ = begun(gcp_lab)
    target.put(3, BLOCKS[3], DIGESTS[3])
    target.commit({3: DIGESTS[3]})
    with gnu_tar(fetched, fetched.parent).open("rb") as file:
        assert file.read(5 * BLOCK_BYTES) == 3 * ZERO_BLOCK + BLOCKS[3] + ZERO_BLOCK


def test_the_block_that_was_put_last_may_be_put_again(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    for index in (0, 0, 3, 0, 3, 4, 2047):
        target.put(index, BLOCKS[index], DIGESTS[index])
    assert target.commit(DIGESTS) in gcp_lab.images()


@pytest.mark.parametrize("index", [0, 1, 2, 5, 2048, 10**9])
def test_a_block_out_of_order_or_out_of_plan_is_refused_and_harms_nothing(
    gcp_lab: GcpLab, index: int
):
    target, _ = begun(gcp_lab)
    target.put(3, BLOCKS[3], DIGESTS[3])
    with pytest.raises(CloudRefused, match=f"Cannot add block {index} to an archive"):
        target.put(index, block(index), digest(block(index)))
    target.put(4, BLOCKS[4], DIGESTS[4])
    counted = {number: DIGESTS[number] for number in (3, 4)}
    assert target.commit(counted) in gcp_lab.images()


def test_other_data_than_the_digest_says_is_refused(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    with pytest.raises(CloudRefused, match="found other data than its SHA-256 says"):
        target.put(0, BLOCKS[3], DIGESTS[0])


@pytest.mark.parametrize(
    "counted",
    [
        {0: DIGESTS[0]},
        DIGESTS | {5: DIGESTS[4]},
        DIGESTS | {3: DIGESTS[4]},
        DIGESTS | {3: ZERO_DIGEST},
    ],
    ids=["one forgotten", "one too many", "another", "zeros"],
)
def test_a_commit_of_other_blocks_is_refused(gcp_lab: GcpLab, counted: dict[int, bytes]):
    target, _ = begun(gcp_lab)
    put_all(target)
    with pytest.raises(CloudRefused, match="Bad commit"):
        target.commit(counted)
    assert gcp_lab.images() == []


def test_there_is_no_parent_to_take_from(gcp_lab: GcpLab):
    target, _ = begun(gcp_lab)
    with pytest.raises(CloudRefused, match="sent in order has none"):
        target.take_from_parent(0, 1)


def test_nothing_is_written_before_it_is_begun(gcp_lab: GcpLab):
    with pytest.raises(ResourceGone, match="found no upload begun"):
        target_of(gcp_lab).put(0, BLOCKS[0], DIGESTS[0])


@pytest.mark.slow
def test_more_data_than_gzip_counts_to(tmp_path: Path):
    """4.5 GiB of one block: gzip's own length goes round, and readers take it so."""
    path = tmp_path / "disk.tar.gz"
    data, name = b"golden image ".ljust(BLOCK_BYTES, b"."), digest(b"")
    with path.open("wb") as file:
        sink: Any = SimpleNamespace(append=file.write)
        writer = ArchiveWriter(sink, 5 * GIB, range(9 * GIB // BLOCK_BYTES // 2))
        writer.begin()
        for index in range(9 * GIB // BLOCK_BYTES // 2):
            writer.add(index, data, name)
        writer.end()
    subprocess.run(["gzip", "--test", str(path)], check=True)
    argv = ["tar", "-xzOf", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        pieces = iter(lambda: tar.stdout.read(BLOCK_BYTES), b"")
        assert sum(piece == data for piece in pieces) == 9 * GIB // BLOCK_BYTES // 2
    assert tar.returncode == 0


# --- taking it up -----------------------------------------------------------------------------


def test_what_the_session_has_is_made_again_but_not_sent_again(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target)
    gcp_lab.service.forget_calls()
    target = resumed(gcp_lab, handle)
    assert target.lost(DIGESTS) == set(PLANNED)
    put_all(target)
    reference = target.commit(DIGESTS)
    received = sum(int(row["bytes_in"]) for row in gcp_lab.service.requests().values())
    assert received < len(PLANNED) * BLOCK_BYTES - MIB / 2
    assert gcp_lab.images() == [reference]


def test_begun_again_with_the_same_token_it_is_the_same_upload(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target)
    again, found = begun(gcp_lab)
    assert found == handle
    put_all(again)
    assert again.commit(DIGESTS) in gcp_lab.images()


def test_an_archive_that_a_killed_call_finished_is_not_sent_again(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target, handle = begun(gcp_lab)
    put_all(target)
    with monkeypatch.context() as patched:
        patched.setattr(image_upload, "write_index", _die)
        with pytest.raises(Killed):
            target.commit(DIGESTS)
    target = resumed(gcp_lab, handle)
    assert target.lost(DIGESTS) == set()
    with pytest.raises(VerificationFailed, match="found one of other blocks"):
        target.commit({0: DIGESTS[0]})
    reference = target.commit(DIGESTS)
    assert resumed(gcp_lab, handle).commit(DIGESTS) == reference
    assert gcp_lab.images() == [reference]


def test_another_compressor_after_a_crash_is_found_by_the_checksum_of_the_whole(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    target, handle = begun(gcp_lab)
    put_all(target)  # one MiB and more of it is sent
    with monkeypatch.context() as patched:
        patched.setattr(streamed_archive_target, "LEVEL", 3)
        target = resumed(gcp_lab, handle)
        put_all(target)
        with pytest.raises(VerificationFailed, match=r"Bad archive '.*': found .* of CRC32C"):
            target.commit(DIGESTS)
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)
    target, _ = begun(gcp_lab)
    put_all(target)
    assert target.commit(DIGESTS) in gcp_lab.images()


def test_a_plan_of_another_map_begins_anew(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    target.put(0, BLOCKS[0], DIGESTS[0])
    with pytest.raises(ResourceGone):
        target_of(gcp_lab).resume(TransferPlan(GIB, (0, 3), (), 2 * BLOCK_BYTES), handle)
    assert gcp_lab.everything() == []


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"session": 1}', b"\xff"])
def test_a_note_that_is_none_begins_anew(gcp_lab: GcpLab, damage: bytes):
    _, handle = begun(gcp_lab)
    (note,) = [key for key in gcp_lab.objects() if key.endswith("/session")]
    Objects(gcp_lab.account("other")).put(note, damage)
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/upload?upload_id=x", 7])
def test_a_note_that_names_another_place_is_not_followed(gcp_lab: GcpLab, place: object):
    _, handle = begun(gcp_lab)
    (key,) = [key for key in gcp_lab.objects() if key.endswith("/session")]
    objects = Objects(gcp_lab.account("other"))
    note = json.loads(objects.get(key)) | {"session": place}
    objects.put(key, json.dumps(note).encode())
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)


def test_aborted_it_leaves_nothing(gcp_lab: GcpLab):
    target, handle = begun(gcp_lab)
    put_all(target)
    target.abort()
    target.abort()
    assert gcp_lab.everything() == []
    with pytest.raises(ResourceGone):
        resumed(gcp_lab, handle)


@pytest.mark.parametrize(
    "where",
    [
        "between puts",
        pytest.param("before the image is made", marks=pytest.mark.slow),
        pytest.param("before the image is recorded", marks=pytest.mark.slow),
        pytest.param("before the marker is deleted", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_is_taken_up(gcp_lab: GcpLab, tmp_path: Path, where: str, fetched: Path):
    service = gcp_lab.service
    program = str(gcp_killed_upload.__file__)
    arguments = [service.endpoint, str(service.credentials_file), str(tmp_path), where, "stream"]
    killed = subprocess.run([sys.executable, program, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    key = service.credentials_file
    result = gcp_killed_upload.upload(service.endpoint, key, tmp_path, "stream")
    if where in {"between puts", "before the image is made"}:
        check(fetched, gcp_killed_upload.the_disk())
    assert gcp_lab.images() == [result.reference]
    assert len(gcp_lab.objects()) == 1


# --- the session is a secret ------------------------------------------------------------------


def test_the_session_is_never_shown(gcp_lab: GcpLab, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    target, _ = begun(gcp_lab)
    archive = target._archive
    assert archive is not None
    assert archive._note is not None
    secret = archive._note.session.partition("upload_id=")[2]
    assert len(secret) > 16
    gcp_lab.turn(fault_rate=1.0)
    with pytest.raises(Exception, match="Cannot") as refused:
        put_all(target)
    shown = [repr(target.__dict__), repr(archive.__dict__), caplog.text]
    error: BaseException | None = refused.value
    while error is not None:
        shown.append(f"{error!r} {error} {error.__dict__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert secret not in "".join(shown)


def _die(*_arguments: Any, **_named: Any) -> None:
    raise Killed("here")
