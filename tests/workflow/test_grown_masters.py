"""A master whose disk has grown since the last export, by every way that its bytes may come."""

from __future__ import annotations

import pytest

from imageport.hypervisor import ExportTraits
from imageport.hypervisors.memory_pool import MemoryPool
from imageport.model import MIB
from tests.workflow.export_site import SIZE_BYTES, ExportSite

WAYS = {
    "bytes that changed": ExportTraits(streams=True, ranges=True, changed_areas=True),
    "of what changed": ExportTraits(streams=True, differences=True),
    "as a stream": ExportTraits(streams=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_written_behind", [True, False])
def test_what_was_there_before_is_kept_and_what_is_behind_it_is_as_in_the_master(
    way: str, is_written_behind: bool
) -> None:
    site = ExportSite(pool=MemoryPool(traits=WAYS[way]))
    # The snapshot has to stay, or there is nothing to tell differences to.
    site.machine.snapshot("first")
    first = site.exported("run-1", snapshot="first")
    site.disk.size_bytes = SIZE_BYTES + MIB + 512
    site.write(MIB, b"\x05" * 512)
    if is_written_behind:
        site.write(SIZE_BYTES + 512, b"\x06" * 512)
    second = site.exported("run-2")
    assert way in second.details["way"]
    assert (second.id != first.id, second.size_bytes) == (True, SIZE_BYTES + MIB + 512)
    assert site.content(second) == bytes(site.disk.read_at(0, second.size_bytes))
