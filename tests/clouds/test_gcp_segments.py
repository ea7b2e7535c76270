"""Blocks in the bucket: written once, known by what they hold, never believed without a check."""

from __future__ import annotations

import hashlib
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from imageport.clouds.gcp.deflated_block import MOST_BYTES, deflate, facts_of
from imageport.clouds.gcp.objects import ObjectFacts, Objects
from imageport.clouds.gcp.segment_index import (
    has_segments,
    index_key,
    index_of,
    read_index,
    write_index,
)
from imageport.clouds.gcp.segments import (
    METADATA_CRC32,
    put_segment,
    read_block,
    segment_key,
)
from imageport.clouds.gcp.stored_segments import (
    SHARDS,
    HeldSegments,
    StoredSegment,
    StoredSegments,
    each_segment,
)
from imageport.clouds.gcp.upload_markers import marker_name
from imageport.errors import (
    CloudUnavailable,
    ResourceGone,
    StateError,
    VerificationFailed,
)
from imageport.model import BLOCK_BYTES, GIB, ZERO_DIGEST
from imageport.transfer.manifest import Manifest
from tests.clouds.cloud_contract import SITE, block, digest
from tests.clouds.gcp_laboratory import GcpLab


def put(lab: GcpLab, data: bytes, name: bytes | None = None) -> bool:
    deflated = deflate(data)
    return put_segment(
        lab.account("run-1"), facts_of(data, deflated), deflated, name or digest(data)
    )


def key_of(lab: GcpLab, data: bytes) -> str:
    return segment_key(lab.settings(), digest(data))


def found_in(stored: StoredSegments, data: bytes) -> StoredSegment | None:
    place = stored.names.place(digest(data))
    return stored.at(place) if digest(data) in stored else None


def tags(lab: GcpLab) -> dict[str, str]:
    return lab.account("run-1").intend("snapshot", "uploaded", "some image").tags


# --- segments ---------------------------------------------------------------------------------


def test_a_block_is_written_once_with_the_checksum_that_gzip_counts(gcp_lab: GcpLab):
    data = block(1)
    assert put(gcp_lab, data)
    assert not put(gcp_lab, data)
    facts = Objects(gcp_lab.account("run-1")).stat(key_of(gcp_lab, data))
    assert facts is not None
    assert facts.metadata[METADATA_CRC32] == f"{zlib.crc32(data):08x}"
    assert facts.key == f"imageport/{SITE}/seg/{digest(data).hex()}"
    assert facts.size_bytes < BLOCK_BYTES / 50


def test_a_block_reads_as_it_was_written(gcp_lab: GcpLab):
    put(gcp_lab, block(1))
    objects = Objects(gcp_lab.account("run-1"))
    assert read_block(objects, key_of(gcp_lab, block(1)), digest(block(1)), "x") == block(1)


def test_what_is_damaged_in_the_bucket_is_replaced_by_the_next_put(gcp_lab: GcpLab):
    objects = Objects(gcp_lab.account("run-1"))
    objects.put(key_of(gcp_lab, block(1)), deflate(block(2)))
    with pytest.raises(CloudUnavailable, match="damaged"):
        put(gcp_lab, block(1))
    assert put(gcp_lab, block(1))


def test_what_another_compressor_wrote_is_read_and_taken(gcp_lab: GcpLab):
    other = zlib.compressobj(9, wbits=-15)
    deflated = other.compress(block(1)) + other.flush(zlib.Z_FULL_FLUSH)
    objects = Objects(gcp_lab.account("run-1"))
    objects.put(key_of(gcp_lab, block(1)), deflated, {METADATA_CRC32: "00000000"})
    assert not put(gcp_lab, block(1))
    facts = objects.stat(key_of(gcp_lab, block(1)))
    assert facts is not None
    assert facts.size_bytes == len(deflated)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (deflate(block(2)), "other data than its SHA-256"),
        (b"no deflate at all", "does not inflate"),
        (deflate(bytes(BLOCK_BYTES - 1)), "needed 524288 bytes"),
        (deflate(bytes(4 * BLOCK_BYTES)), "more than 524288 bytes"),
    ],
)
def test_a_block_that_is_not_what_its_name_says_is_named(gcp_lab: GcpLab, found: bytes, error: str):
    objects, key = Objects(gcp_lab.account("run-1")), key_of(gcp_lab, block(1))
    objects.put(key, found)
    with pytest.raises(VerificationFailed, match=error) as caught:
        read_block(objects, key, digest(block(1)), "gold/17")
    assert f"gold/17 in {key}" in str(caught.value)


def test_a_block_that_was_deleted_is_named(gcp_lab: GcpLab):
    objects, key = Objects(gcp_lab.account("run-1")), key_of(gcp_lab, block(1))
    with pytest.raises(ResourceGone, match="gold/17 in imageport/frankfurt/seg/"):
        read_block(objects, key, digest(block(1)), "gold/17")


def test_the_bucket_tells_which_of_the_wanted_blocks_it_holds(gcp_lab: GcpLab):
    for number in range(24):
        put(gcp_lab, block(number))
    wanted = [digest(block(number)) for number in range(20, 30)]
    found = StoredSegments(gcp_lab.account("run-1"), [*wanted, *wanted])
    assert len(found.names) == 10
    assert [name in found for name in wanted] == [True] * 4 + [False] * 6
    assert digest(block(0)) not in found
    for number in range(20, 24):
        stored = found_in(found, block(number))
        assert stored is not None
        assert stored.block == facts_of(block(number), deflate(block(number)))
        assert stored.generation > 0


@pytest.mark.parametrize("noted", [{}, {METADATA_CRC32: "f" * 9}, {METADATA_CRC32: "0x1"}])
def test_a_segment_without_a_usable_checksum_in_its_metadata_is_read_for_it(
    gcp_lab: GcpLab, noted: dict[str, str]
):
    account = gcp_lab.account("run-1")
    Objects(account).put(key_of(gcp_lab, block(1)), deflate(block(1)), noted)
    stored = found_in(StoredSegments(account, [digest(block(1))]), block(1))
    assert stored is not None
    assert stored.block.plain_crc32 == zlib.crc32(block(1))


def test_what_is_too_long_for_a_block_is_not_taken_for_one(gcp_lab: GcpLab):
    account, noted = gcp_lab.account("run-1"), {METADATA_CRC32: f"{zlib.crc32(block(1)):08x}"}
    Objects(account).put(key_of(gcp_lab, block(1)), bytes(MOST_BYTES + 1), noted)
    assert digest(block(1)) not in StoredSegments(account, [digest(block(1))])


def test_what_is_held_is_known_by_name_and_bytes(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    for number in range(24):
        put(gcp_lab, block(number))
    held = HeldSegments(account)
    for number in range(24):
        facts = facts_of(block(number), deflate(block(number)))
        assert held.has(digest(block(number)), facts.crc32c)
        assert not held.has(digest(block(number)), facts.crc32c ^ 1)
    assert not held.has(digest(block(99)), 0)


def test_what_a_large_bucket_holds_is_known_in_little_memory(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    count, account = 8000, gcp_lab.account("run-1")
    shards: dict[str, list[bytes]] = {digit: [] for digit in SHARDS}
    for name in sorted(hashlib.sha256(b"%d" % number).digest() for number in range(count)):
        shards[name.hex()[0]].append(name)
    names = [name for shard in shards.values() for name in shard]

    def listed(_objects: Objects, prefix: str) -> Iterator[ObjectFacts]:
        for name in shards[prefix[-1]]:
            key = f"{prefix[:-1]}{name.hex()}"
            yield ObjectFacts(key, 9, 7, 5, metadata={METADATA_CRC32: "0000000b"})

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "list", listed)
        tracemalloc.start()
        try:
            held = HeldSegments(account)
            assert tracemalloc.get_traced_memory()[1] < 30 * count
            stored = StoredSegments(account, iter(names))
            assert tracemalloc.get_traced_memory()[1] < 140 * count
        finally:
            tracemalloc.stop()
    assert held.has(names[-1], 7)
    assert all(stored.at(place) == ((11, 9, 7), 5) for place in range(count))


def test_sites_share_no_segments(gcp_lab: GcpLab):
    put(gcp_lab, block(1))
    paris = gcp_lab.account("run-1", site="paris")
    assert digest(block(1)) not in StoredSegments(paris, [digest(block(1))])


# --- indexes ----------------------------------------------------------------------------------


def manifest_of(*numbers: int) -> Manifest:
    made = Manifest(GIB, absent_reads_zero=True)
    for number in numbers:
        made.set(number, digest(block(number)))
    return made


def test_an_index_says_what_was_written_and_whose_it_is(gcp_lab: GcpLab):
    account, manifest = gcp_lab.account("run-1"), manifest_of(1, 5)
    manifest.set(7, ZERO_DIGEST)
    write_index(account, "some-image", manifest, tags(gcp_lab))
    found = read_index(account, "some-image")
    assert found is not None
    assert found.manifest == manifest
    assert found.has_segments
    assert dict(found.tags)["imageport:run"] == "run-1"
    assert [index for index, _ in found.blocks()] == [1, 5]


def test_an_index_is_written_over_one_that_a_killed_call_wrote(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    write_index(account, "some-image", manifest_of(1), tags(gcp_lab))
    write_index(account, "some-image", manifest_of(2), tags(gcp_lab), archive="stream")
    found = read_index(account, "some-image")
    assert found is not None
    assert (list(found.manifest.written()), found.has_segments) == ([2], False)


def test_an_image_without_index_has_no_blocks_to_give(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    reference = "projects/imageport-lab/global/images/some-image"
    assert read_index(account, "some-image") is None
    assert not has_segments(account, reference)
    with pytest.raises(ResourceGone, match="is not in the bucket"):
        index_of(account, reference)


def test_a_damaged_index_is_never_read_as_another(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    key = index_key(gcp_lab.settings(), "some-image")
    data = bytearray(manifest_of(1, 2).to_bytes())
    data[40] ^= 1
    Objects(account).put(key, bytes(data))
    with pytest.raises(StateError, match=key):
        read_index(account, "some-image")


@pytest.mark.parametrize(
    "handle",
    [
        "snap-0123456789abcdef0",
        "gs://another-bucket/imageport/frankfurt/uploads/imageport-upload-1",
        "gs://imageport-lab-images/imageport/paris/uploads/imageport-upload-1",
        "gs://imageport-lab-images/imageport/frankfurt/uploads/",
        "gs://imageport-lab-images/imageport/frankfurt/uploads/../index/x",
    ],
)
def test_a_handle_of_elsewhere_is_no_upload(gcp_lab: GcpLab, handle: str):
    with pytest.raises(ResourceGone):
        marker_name(gcp_lab.settings(), handle)


def test_what_is_no_segment_is_not_taken_for_one(gcp_lab: GcpLab):
    account, folder = gcp_lab.account("run-1"), "imageport/frankfurt/seg/"
    stray = [
        f"{folder}readme",
        f"{folder}{'z' * 64}",
        f"{folder}{'a' * 63}",
        f"{folder}0/{'a' * 62}",
    ]
    for key in stray:
        Objects(account).put(key, b"x")
    put(gcp_lab, block(1))
    found: list[bytes] = []
    each_segment(account, lambda name, _facts: found.append(name))
    assert found == [digest(block(1))]
    # A stray object under the name of a block, far too long for one, gives way.
    Objects(account).put(key_of(gcp_lab, block(2)), bytes(2 * BLOCK_BYTES))
    with pytest.raises(CloudUnavailable, match="damaged"):
        put(gcp_lab, block(2))
    assert put(gcp_lab, block(2))
