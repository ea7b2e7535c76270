"""Archives that were joined in the bucket. About 0.05 USD: 10 GiB of an image for some minutes."""

from __future__ import annotations

from imageport.clouds.gcp.compose_tree import ComposeTree, Part
from imageport.clouds.gcp.composed_archive import ObjectComposer
from imageport.clouds.gcp.deflated_block import deflate, facts_of
from imageport.clouds.gcp.images import delete_image, describe_image, insert_raw_image, wait_ready
from imageport.clouds.gcp.names import image_id, resource_name
from imageport.clouds.gcp.objects import crc32c_of
from imageport.clouds.gcp.sparse_archive import sparse_archive
from imageport.model import BLOCK_BYTES, GIB
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_gcp import RealGcp

RANGES = 20_000
SIZE_BYTES = 20 * GIB
TEXT = (b"imageport probe " * BLOCK_BYTES)[:BLOCK_BYTES]


@probes("gcp-joined-archive", "gcp-repeated-part")
def test_google_makes_an_image_of_what_was_joined_of_one_piece_many_times(
    gcp: RealGcp, observed: Observed
) -> None:
    """Every second block of 20 GiB holds the same text, so that the bucket holds it once."""
    folder, objects, account = gcp.temporary, gcp.objects, gcp.account
    piece = deflate(TEXT)
    blocks = range(0, 2 * RANGES, 2)
    archive = sparse_archive(SIZE_BYTES, blocks, [facts_of(TEXT, piece)] * RANGES)

    def written(name: str, data: bytes) -> Part:
        found = objects.put(f"{folder}{name}", data)
        return Part(found.key, len(data), crc32c_of(data), found.generation)

    same = written("piece", piece)
    parts = [written("head", archive.head), *([same] * RANGES), written("foot", archive.foot)]
    tree = ComposeTree(parts, f"{folder}disk.tar.gz", f"{folder}part-")
    whole = tree.carry_out(ObjectComposer(objects), {})
    assert (whole.size_bytes, whole.crc32c) == (archive.size_bytes, archive.crc32c)
    facts = objects.stat(whole.key)
    observed(f"{tree.joins} joins; the whole has {facts.components if facts else 0} components")
    intent = account.intend("snapshot", "uploaded", "probe")
    name = resource_name(intent)
    reference = image_id(account.settings, name)
    try:
        source = f"gs://{account.settings.bucket}/{whole.key}"
        insert_raw_image(account, name, intent, source)
        wait_ready(account, reference)
        image = describe_image(account, reference)
        assert image is not None
        assert image.size_bytes == SIZE_BYTES
    finally:
        delete_image(account, reference)
