"""Whatever is written, in whatever order and geometry, reads back; extents never lie."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB, ExtentState
from imageport.storage.memory import MemoryFolder

SECTOR = st.sampled_from([512, 4096])
BLOCK = st.sampled_from([MIB, 2 * MIB, 8 * MIB])


@st.composite
def _session(draw: st.DrawFn) -> tuple[int, int, int, list[tuple[int, int, int]], bool]:
    sector, block = draw(SECTOR), draw(BLOCK)
    size = draw(st.integers(1, 6 * MIB // sector)) * sector
    write = st.tuples(st.integers(0, size - 1), st.integers(1, 300_000), st.integers(0, 255))
    return sector, block, size, draw(st.lists(write, max_size=8)), draw(st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    _session(), st.lists(st.tuples(st.integers(0, 6 * MIB), st.integers(0, 2 * MIB)), max_size=4)
)
def test_what_was_written_reads_back_and_extents_tell_the_truth(
    session: tuple[int, int, int, list[tuple[int, int, int]], bool], reads: list[tuple[int, int]]
) -> None:
    sector, block, size, writes, reopened = session
    wanted = bytearray(size)
    store = MemoryFolder()
    with store.create("x") as file:
        file.set_sparse()
        writer = VhdxWriter(file, size, block_bytes=block, sector_bytes=sector)
        for offset, length, value in writes:
            data = bytes([value]) * min(length, size - offset)
            writer.write_at(offset, data)
            wanted[offset : offset + len(data)] = data
            if reopened:
                writer.flush()
                writer = VhdxWriter.reopen(file)
        writer.finish()
    with VhdxDisk(store.open_read("x")) as disk:
        assert b"".join(data for _, data in disk.read_many([(0, size)])) == wanted
        for offset, length in reads:
            start = min(offset, size)
            end = min(start + length, size)
            assert disk.read_at(start, end - start) == wanted[start:end]
        at = 0
        for extent in disk.extents():
            assert extent.offset_bytes == at
            assert extent.length_bytes > 0
            assert extent.length_bytes % sector == 0
            at = extent.end_bytes
            if extent.state is not ExtentState.DATA:
                assert not any(wanted[extent.offset_bytes : at])
            if extent.state is ExtentState.HOLE:
                touched = {offset // block for offset, length, _ in writes}
                assert extent.offset_bytes // block not in touched
        assert at == size


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=10),
    st.integers(0, 60),
    st.integers(1, 60),
)
def test_cutting_a_range_by_what_is_stored_covers_it_once(
    raw: list[tuple[int, int]], start: int, length: int
) -> None:
    from imageport.formats._extent_merge import allocated_extents, merged  # noqa: PLC0415

    unit = 1024  # quarters of the 4096 bytes that stored ranges are widened to
    stored, at = [], 0
    for gap, count in raw:
        stored.append(((at + gap) * unit, count * unit))
        at += gap + count
        if gap == 0 and len(stored) > 1:
            del stored[-1]
    start, length = start * 4096, length * 4096
    found = list(merged(allocated_extents(stored, start, length, ExtentState.ZERO)))
    assert [e.offset_bytes for e in found] == [start, *(e.end_bytes for e in found)][:-1]
    assert found[-1].end_bytes == start + length
    data = [e for e in found if e.state is ExtentState.DATA]
    for offset, count in stored:
        first, last = max(offset, start), min(offset + count, start + length)
        if first < last:
            assert any(e.offset_bytes <= first and last <= e.end_bytes for e in data)
    for extent in data:
        assert any(
            offset < extent.end_bytes and extent.offset_bytes < offset + count
            for offset, count in stored
        )
