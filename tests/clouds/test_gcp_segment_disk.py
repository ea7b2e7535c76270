"""An image read by the blocks in the bucket: extents, pieces, every block checked."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imageport.clouds.gcp import segment_disk
from imageport.clouds.gcp.deflated_block import deflate
from imageport.clouds.gcp.images import delete_image
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_disk import AHEAD, WORKERS, SegmentDisk
from imageport.clouds.gcp.segment_index import index_key, write_index
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.segments import prepared_folder, segment_key
from imageport.errors import CloudRefused, InputError, ResourceGone, VerificationFailed
from imageport.model import BLOCK_BYTES, GIB, Extent, ExtentState
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import block, digest
from tests.clouds.gcp_laboratory import GcpLab

SIZE = 3 * GIB
LAST = SIZE // BLOCK_BYTES - 1
BLOCKS = {index: block(index) for index in (0, 3, 4, 2046, 2047, 2048, 5000, LAST)}


@pytest.fixture
def image(gcp_lab: GcpLab) -> str:
    target = SegmentTarget(gcp_lab.account("run-1"), "gold")
    target.begin(TransferPlan(SIZE, tuple(BLOCKS), (), 0), "token")
    for index, data in BLOCKS.items():
        target.put(index, data, digest(data))
    reference = target.commit({index: digest(data) for index, data in BLOCKS.items()})
    target.close()
    return reference


def opened(lab: GcpLab, reference: str) -> SegmentDisk:
    return SegmentDisk(lab.account("reader"), reference)


def name_of(reference: str) -> str:
    return reference.rsplit("/", maxsplit=1)[-1]


def key_of(lab: GcpLab, index: int) -> str:
    return segment_key(lab.settings(), digest(BLOCKS[index]))


# --- reading ----------------------------------------------------------------------------------


def test_an_image_reads_as_it_was_written_with_holes_between(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk:
        assert disk.size_bytes == SIZE
        found = list(disk.extents())
        assert sum(extent.length_bytes for extent in found) == SIZE
        data = [item for item in found if item.state is ExtentState.DATA]
        assert [(item.offset_bytes // BLOCK_BYTES, item.length_bytes) for item in data] == [
            (0, BLOCK_BYTES),
            (3, 2 * BLOCK_BYTES),
            (2046, 3 * BLOCK_BYTES),
            (5000, BLOCK_BYTES),
            (LAST, BLOCK_BYTES),
        ]
        assert found[1] == Extent(BLOCK_BYTES, 2 * BLOCK_BYTES, ExtentState.HOLE)
        for index, content in BLOCKS.items():
            assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == content


def test_pieces_of_any_place_and_length_come_in_order(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk:
        ranges = [(BLOCK_BYTES - 5, 10), (3 * BLOCK_BYTES - 7, BLOCK_BYTES + 20)]
        pieces = list(disk.read_many(ranges))
        assert [offset for offset, _ in pieces] == [
            BLOCK_BYTES - 5, BLOCK_BYTES, 3 * BLOCK_BYTES - 7, 3 * BLOCK_BYTES, 4 * BLOCK_BYTES,
        ]  # fmt: skip
        joined = b"".join(data for _, data in pieces)
        assert joined == BLOCKS[0][-5:] + bytes(5 + 7) + BLOCKS[3] + BLOCKS[4][:13]


def test_holes_ask_for_nothing_and_small_pieces_of_one_block_once(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk:
        gcp_lab.service.forget_calls()
        assert disk.read_at(GIB, 64 * BLOCK_BYTES)[BLOCK_BYTES:] == bytes(63 * BLOCK_BYTES)
        for offset in range(0, BLOCK_BYTES, 4096):
            assert disk.read_at(5000 * BLOCK_BYTES + offset, 4096) == block(5000)[offset:][:4096]
        assert sum(item["requests"] for item in gcp_lab.service.requests().values()) == 2


@pytest.mark.parametrize("wanted", [(SIZE - 1, 2), (-1, 1), (0, -1)])
def test_what_lies_outside_of_the_disk_is_refused(
    gcp_lab: GcpLab, image: str, wanted: tuple[int, int]
):
    with opened(gcp_lab, image) as disk, pytest.raises(InputError, match="lies outside"):
        disk.read_at(*wanted)


def test_many_threads_may_read_at_once(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk, ThreadPoolExecutor(8) as pool:
        wanted = [*BLOCKS, 1, 2, *BLOCKS]
        read = pool.map(lambda index: disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES), wanted)
        for index, data in zip(wanted, read, strict=True):
            assert data == BLOCKS.get(index, bytes(BLOCK_BYTES))


def test_reading_ahead_is_bounded(gcp_lab: GcpLab, image: str, monkeypatch: pytest.MonkeyPatch):
    account = gcp_lab.account("run-1")
    manifest = Manifest(SIZE, absent_reads_zero=True)
    for index in range(400):
        manifest.set(index, index.to_bytes(32, "big"))
    tags = account.intend("snapshot", "uploaded", "x").tags
    write_index(account, name_of(image), manifest, tags)
    asked: list[int] = []
    monkeypatch.setattr(
        segment_disk, "read_block", lambda *_: asked.append(1) or bytes(BLOCK_BYTES)
    )
    with opened(gcp_lab, image) as disk:
        pieces = disk.read_many([(0, 400 * BLOCK_BYTES)])
        next(pieces)
        time.sleep(0.2)
        assert len(asked) <= AHEAD + 1
        names = [thread.name for thread in threading.enumerate()]
        assert len([name for name in names if name.startswith("gcs-read")]) <= WORKERS
        assert len(list(pieces)) == 399


def test_an_end_in_the_middle_leaves_no_thread(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk:
        next(disk.read_many([(0, SIZE)]))
    names = [thread.name for thread in threading.enumerate()]
    assert [name for name in names if name.startswith("gcs-read")] == []


# --- where the blocks of a prepared image lie -------------------------------------------------


def test_a_prepared_image_has_blocks_of_its_own_and_of_the_upload(gcp_lab: GcpLab, image: str):
    """The index is what a machine reported; what it did not write lies with the upload."""
    account = gcp_lab.account("run-1")
    manifest = Manifest(SIZE, absent_reads_zero=True)
    for index in (0, 3):
        manifest.set(index, digest(BLOCKS[index]))
    manifest.set(9, digest(block(9)))
    tags = account.intend("snapshot", "prepared", "x").tags
    write_index(account, name_of(image), manifest, tags)
    folder = prepared_folder(gcp_lab.settings(), name_of(image))
    objects = Objects(account)
    objects.put(f"{folder}{digest(block(9)).hex()}", deflate(block(9)))
    # Written by the machine although the upload has it: its own is what is read.
    objects.put(f"{folder}{digest(BLOCKS[3]).hex()}", deflate(BLOCKS[3]))
    objects.delete(key_of(gcp_lab, 3))
    with opened(gcp_lab, image) as disk:
        for index, data in ((0, BLOCKS[0]), (3, BLOCKS[3]), (9, block(9))):
            assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == data


def test_a_block_that_the_machine_was_made_to_write_wrongly_is_found(gcp_lab: GcpLab, image: str):
    folder = prepared_folder(gcp_lab.settings(), name_of(image))
    key = f"{folder}{digest(BLOCKS[3]).hex()}"
    Objects(gcp_lab.account("guest")).put(key, deflate(block(666)))
    with opened(gcp_lab, image) as disk:
        with pytest.raises(VerificationFailed, match="other data than its SHA-256") as caught:
            disk.read_at(3 * BLOCK_BYTES, 10)
        assert f"{name_of(image)}/3 in {key}" in str(caught.value)
        assert disk.read_at(0, BLOCK_BYTES) == BLOCKS[0]


# --- what is not there ------------------------------------------------------------------------


def test_a_segment_deleted_behind_our_back_names_block_and_object(gcp_lab: GcpLab, image: str):
    with opened(gcp_lab, image) as disk:
        Objects(gcp_lab.account("x")).delete(key_of(gcp_lab, 2047))
        assert disk.read_at(0, BLOCK_BYTES) == BLOCKS[0]
        pieces: Any = disk.read_many([(2045 * BLOCK_BYTES, 4 * BLOCK_BYTES)])
        assert len([next(pieces), next(pieces)]) == 2
        with pytest.raises(ResourceGone) as caught:
            next(pieces)
        assert f"{name_of(image)}/2047 in {key_of(gcp_lab, 2047)}" in str(caught.value)


def test_an_image_that_is_gone_or_has_no_index_opens_as_nothing(gcp_lab: GcpLab, image: str):
    disk = opened(gcp_lab, image)
    disk.check_unchanged()
    assert disk.content_key() == f"gcp:{image}"
    Objects(gcp_lab.account("x")).delete(index_key(gcp_lab.settings(), name_of(image)))
    with pytest.raises(ResourceGone, match=r"its index .* is not in the bucket"):
        opened(gcp_lab, image)
    delete_image(gcp_lab.account("x"), image)
    with pytest.raises(ResourceGone, match="deleted meanwhile"):
        disk.check_unchanged()
    disk.close()
    disk.close()
    with pytest.raises(ResourceGone, match="found nothing"):
        opened(gcp_lab, image)


def test_an_image_that_was_streamed_says_that_it_cannot_be_read(gcp_lab: GcpLab, image: str):
    account = gcp_lab.account("run-1")
    tags = account.intend("snapshot", "uploaded", "x").tags
    manifest = Manifest(SIZE, absent_reads_zero=True)
    write_index(account, name_of(image), manifest, tags, archive="stream")
    with pytest.raises(CloudRefused, match="sent as one archive") as caught:
        opened(gcp_lab, image)
    assert "segments" in caught.value.hint


@pytest.mark.parametrize("knob", ["corrupted_answers", "truncated_answers", "lost_answers"])
def test_an_answer_that_arrives_wrong_is_asked_for_again(gcp_lab: GcpLab, image: str, knob: str):
    with opened(gcp_lab, image) as disk:
        gcp_lab.service.turn(**{knob: 2})
        assert disk.read_at(2046 * BLOCK_BYTES, 3 * BLOCK_BYTES) == (
            BLOCKS[2046] + BLOCKS[2047] + BLOCKS[2048]
        )


def test_a_store_that_fails_and_throttles_slows_reading_down_and_no_more(
    gcp_lab: GcpLab, image: str
):
    with opened(gcp_lab, image) as disk:
        gcp_lab.service.turn(fault_rate=0.2, requests_per_second=60.0, seed=7)
        for index, data in BLOCKS.items():
            assert disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES) == data
