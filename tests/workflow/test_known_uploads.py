"""Upload of what the catalogue knows: exports are hashed once, versions read where they differ.

Recipe of the chain: gold.vhdx of 6 MiB in blocks of 1 MiB, all data but for block 4 of zeros and
block 5, a hole; gold.1.avhdx changes eight sectors of block 1 and has block 3 anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import pytest

from imageport.clouds.memory import MemoryBehaviour
from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB, GenerationRole
from imageport.state.records import Generation
from imageport.transfer.manifest import Manifest
from imageport.workflow.clean_up import clean_up
from imageport.workflow.facts import source_facts, source_key_of
from imageport.workflow.known_digests import known_digests, outside_of
from imageport.workflow.place import Workplace
from imageport.workflow.upload import Content, bring_up, stats_of, upload
from tests.formats.chain_bytes import FULL, PARTIAL, ZERO, Layer, Written, write_layer
from tests.workflow.small_site import SIZE_BYTES, SmallSite
from tests.workflow.test_compose_at_site import SiteEngine, check_one_composing, composed

B = BLOCK_BYTES


@dataclass
class Hashes:
    """Stands in for hashlib where blocks are sent."""

    count: int = 0

    def sha256(self, content: bytes) -> Any:
        self.count += 1
        return hashlib.sha256(content)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> Hashes:
    counted = Hashes()
    monkeypatch.setattr("imageport.transfer.sending.hashlib", counted)
    return counted


def digests_of(disk: VirtualDisk, *, without: tuple[int, ...] = ()) -> Manifest:
    manifest = Manifest(disk.size_bytes, absent_reads_zero=False)
    for index in set(range(manifest.block_count)).difference(without):
        start = index * B
        block = disk.read_at(start, min(B, disk.size_bytes - start)).ljust(B, b"\0")
        manifest.set(index, hashlib.sha256(block).digest())
    return manifest


def opened(site: SmallSite, name: str) -> Any:
    return open_disk(site.source.folder.open_read(name), site.source.folder)


def note_export(site: SmallSite, name: str = "gold.vhdx") -> Generation:
    """Put generation S into the catalogue, as an export does."""
    with opened(site, name) as disk:
        manifest = digests_of(disk)
        size_bytes, key = disk.size_bytes, source_key_of(disk.content_key())
    exported = Generation(
        id="s-" + source_key_of(key)[:20],
        image="gold",
        target="export/onprem",
        role=GenerationRole.SOURCE,
        created="2026-01-01T00:00:00+00:00",
        size_bytes=size_bytes,
        source_key=key,
        image_digest=manifest.image_digest(),
        handle={"store": site.source.location, "file_name": name},
    )
    site.state.manifests.put(exported.id, manifest)
    site.state.catalogue.add(exported)
    return exported


def write_base(site: SmallSite) -> Written:
    site.source.folder.delete("gold.vhdx")
    blocks: dict[int, Any] = dict.fromkeys(range(4), (FULL, ()))
    return write_layer(
        site.source.folder, "gold.vhdx", Layer(SIZE_BYTES, blocks=blocks | {4: (ZERO, ())})
    )


def write_version(site: SmallSite, parent: Written, size_bytes: int = SIZE_BYTES) -> Written:
    blocks: dict[int, Any] = {1: (PARTIAL, range(8, 16)), 3: (FULL, ())}
    return write_layer(
        site.source.folder, "gold.1.avhdx", Layer(size_bytes, blocks=blocks), parent=parent
    )


def brought_up(place: Workplace, disk: LinkedDisk) -> Generation:
    key = source_key_of(disk.content_key())
    return bring_up(place, disk, Content("gold", key, known=known_digests(place.state, disk)))


def check_uploaded(site: SmallSite, uploaded: Generation, content: bytes) -> None:
    blocks = site.account.snapshots[uploaded.handle["snapshot_id"]].blocks
    for index in range(len(content) // B):
        assert blocks.get(index, bytes(B)) == content[index * B : (index + 1) * B], index
    manifest = site.state.manifests.get(uploaded.id)
    assert manifest is not None
    assert manifest.image_digest() == uploaded.image_digest


# --- an export ----------------------------------------------------------------------------------


def test_what_was_exported_is_uploaded_without_being_hashed_again(
    site: SmallSite, hashes: Hashes
) -> None:
    exported = note_export(site)
    uploaded = site.uploaded()
    assert hashes.count == 0
    assert uploaded.image_digest == exported.image_digest
    assert stats_of(uploaded).bytes_read == 3 * B  # zeros are known, too


def test_the_next_export_is_read_only_where_it_differs(site: SmallSite, hashes: Hashes) -> None:
    site.uploaded("run-1")
    site.write_vdisk(1, 2, 0, 9)
    exported = note_export(site)
    hashes.count = 0
    uploaded = site.uploaded("run-2")
    assert (stats_of(uploaded).bytes_read, hashes.count) == (B, 0)
    assert uploaded.image_digest == exported.image_digest


def test_digests_of_a_file_that_was_replaced_since_count_for_nothing(
    site: SmallSite, hashes: Hashes
) -> None:
    note_export(site)
    site.write_vdisk(1, 2, 0, 9, 5)
    assert stats_of(site.uploaded()).bytes_read >= 4 * B
    assert hashes.count == 4


def test_what_was_sent_to_one_target_is_not_hashed_for_another(
    site: SmallSite, hashes: Hashes
) -> None:
    site.uploaded("run-1")
    hashes.count = 0
    place = replace(site.place("run-2"), target="memory/there/site-c")
    with opened(site, "gold.vhdx") as disk:
        again = brought_up(place, disk)
    assert (stats_of(again).bytes_read, hashes.count) == (3 * B, 0)


def test_composing_at_the_site_leaves_only_what_it_wrote_to_be_hashed(
    site: SmallSite, hashes: Hashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SiteEngine()
    monkeypatch.setattr("imageport.workflow.site_job.run_site_engine", engine)
    monkeypatch.setattr("imageport.workflow.compose_at_site.engine_id", lambda: "stand-in")
    note_export(site)
    check_one_composing(site, composed(site), engine)
    # It writes to block 0, to one of two other blocks of data and to one of three holes.
    assert hashes.count == 3


def test_an_export_in_the_catalogue_is_nothing_of_the_clouds(site: SmallSite) -> None:
    exported = note_export(site)
    site.brought("run-1")
    assert clean_up(site.state, site.place("janitor").cloud, "site-b", run="run-1") == []
    assert site.kept(GenerationRole.SOURCE) == []
    assert site.state.catalogue.get(exported.id) == exported


# --- a chain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts_from_parent", [True, False])
def test_a_new_version_is_read_only_where_it_holds_something(
    site: SmallSite, starts_from_parent: bool, hashes: Hashes
) -> None:
    site.behaviour = MemoryBehaviour(starts_from_parent=starts_from_parent)
    base = write_base(site)
    first = site.uploaded("run-1")
    assert stats_of(first).bytes_read >= 4 * MIB
    version = write_version(site, base)
    hashes.count = 0
    key = source_facts(site.source, "gold.1.avhdx").source_key
    second = upload(site.place("run-2"), site.source, "gold.1.avhdx", source_key=key)
    # The first half of block 1 in part, and block 3.
    assert second.parent_id == first.id
    assert (stats_of(second).bytes_read, hashes.count) == (3 * B, 3)
    assert stats_of(second).bytes_sent == 3 * B
    assert stats_of(second).bytes_copied == (0 if starts_from_parent else 5 * B)
    check_uploaded(site, second, bytes(version.content))


def test_a_version_on_a_version_that_was_uploaded_is_compared_with_the_nearest(
    site: SmallSite,
) -> None:
    base = write_base(site)
    site.uploaded("run-1")
    version = write_version(site, base)
    with opened(site, "gold.1.avhdx") as disk:
        site._dated(brought_up(site.place("run-2"), disk))
    newest = write_layer(
        site.source.folder,
        "gold.2.avhdx",
        Layer(SIZE_BYTES, blocks={0: (ZERO, ()), 5: (PARTIAL, [2047])}),
        parent=version,
    )
    with opened(site, "gold.2.avhdx") as disk:
        third = brought_up(site.place("run-3"), disk)
    assert stats_of(third).bytes_read <= B  # of block 5 the one half that has the sector
    check_uploaded(site, third, bytes(newest.content))


def test_a_version_whose_base_was_composed_at_the_site_is_read_whole(site: SmallSite) -> None:
    base = write_base(site)
    first = site.uploaded("run-1")
    site.state.catalogue.update(first.id, source_key="composed")
    write_version(site, base)
    with opened(site, "gold.1.avhdx") as disk:
        assert known_digests(site.state, disk) is None


@pytest.mark.parametrize("size_bytes", [SIZE_BYTES - 512, SIZE_BYTES + MIB, SIZE_BYTES + 512])
def test_a_version_of_another_size_is_known_where_it_is_the_same(
    site: SmallSite, size_bytes: int
) -> None:
    base = write_base(site)
    site.uploaded("run-1")
    write_version(site, base, size_bytes)
    with opened(site, "gold.1.avhdx") as disk:
        known = known_digests(site.state, disk)
        assert known is not None
        true = digests_of(disk)
    unknown = {index for index in range(true.block_count) if known.digest(index) is None}
    assert {2, 6, 7} <= unknown
    assert len(unknown) <= 6
    for index in set(range(true.block_count)) - unknown:
        assert known.digest(index) == true.digest(index), index


@pytest.mark.parametrize(
    ("changed", "size_blocks", "kept"),
    [
        ([], 4, {0, 1, 2, 3}),
        ([(B - 1, 2)], 4, {2, 3}),
        ([(2 * B, B), (3 * B + 512, 512)], 4, {0, 1}),
        ([], 3, {0, 1, 2}),
        ([], 2.5, {0, 1}),
        ([(4 * B, B)], 5, {0, 1, 2, 3}),
    ],
)
def test_a_block_counts_as_known_when_nothing_of_it_changed(
    changed: list[tuple[int, int]], size_blocks: float, kept: set[int]
) -> None:
    known = Manifest(4 * B, absent_reads_zero=True)
    known.set(1, b"1" * 32)
    found = outside_of(known, changed, int(size_blocks * B))
    assert {index for index in range(5) if found.digest(index) is not None} == kept
    assert all(found.digest(index) == known.digest(index) for index in kept)


def test_the_key_of_a_source_is_the_one_that_preflight_gives(site: SmallSite) -> None:
    with opened(site, "gold.vhdx") as disk:
        assert source_key_of(disk.content_key()) == source_facts(site.source, "gold").source_key
