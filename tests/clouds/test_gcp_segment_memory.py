"""30 GiB of data are sixty thousand segments: what listing, joining and deleting them takes.

Measured on two shared cores, the emulator on them too: 3 s to begin, 5 s to look for what is lost,
19 s to join (1,936 requests); deleting them took all of its two minutes.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from imageport.clouds.gcp import image_upload
from imageport.clouds.gcp.deflated_block import deflate, facts_of
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_collection import collect_segments
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.segments import METADATA_CRC32, segment_key
from imageport.model import BLOCK_BYTES, GIB, MIB
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.digest_table import DigestTable
from tests.clouds.cloud_contract import block, digest
from tests.clouds.gcp_laboratory import GcpLab

SEGMENTS = 60_000
SIZE = 64 * GIB
MOST_BYTES = 40 * MIB
"""Of what Python allocates; measured were 22 MB to join, most of it pages of listings."""


@contextmanager
def in_little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_thousand_segments_are_joined_and_collected_in_little_memory(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    digests = DigestTable(SIZE // BLOCK_BYTES)

    def put(index: int) -> None:
        data = block(index)
        deflated = deflate(data)
        metadata = {METADATA_CRC32: f"{facts_of(data, deflated).plain_crc32:08x}"}
        digests.set(2 * index, digest(data))
        key = segment_key(gcp_lab.settings(), digest(data))
        Objects(gcp_lab.account("filler")).put(key, deflated, metadata)

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(put, range(SEGMENTS)):
            pass

    def no_image(*_arguments: Any, **_named: Any) -> None:
        raise KeyboardInterrupt  # the archive is what is looked at here

    monkeypatch.setattr(image_upload, "insert_raw_image", no_image)
    target = SegmentTarget(gcp_lab.account("run-1"), "gold")
    with in_little_memory():
        target.begin(TransferPlan(SIZE, (), (), 0), "token")
        assert target.lost(digests) == set()
        with pytest.raises(KeyboardInterrupt):
            target.commit(digests)
    target.close()
    assert target.remarks() == ()
    with in_little_memory():
        target.abort()
    assert collect_segments(gcp_lab.account("run-1")).kept == 0
