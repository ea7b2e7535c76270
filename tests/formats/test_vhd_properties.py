"""Whatever lies in a chain of VHD files, in whatever layout, reads flat; extents never lie.

Recipe: `vhd_bytes`: chains of one to four files, each with its own block size, its blocks in any
order, any runs of sectors in their bitmaps; the model is the bytearray that the recipe kept.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vhd_bytes import DIFFERENCING, DYNAMIC, FIXED, KIB, MIB, Made, Recipe, make

from imageport.formats._vhd_bitmap import bit_runs
from imageport.formats.opening import open_disk
from imageport.formats.vhd import VhdDisk
from imageport.formats.vhd_stream import VhdStream
from imageport.formats.vhd_writer import VhdWriter
from imageport.model import ExtentState
from imageport.storage.memory import MemoryFolder
from tests.formats.byte_streams import BytesStream

BLOCK = st.sampled_from([512 * KIB, 512 * KIB, 2 * MIB, 16 * MIB])
SLOPPY = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def layers(draw: st.DrawFn, kind: int, parent: Made | None, number: int) -> Recipe:
    block = draw(BLOCK)
    size = draw(st.integers(1, 5 * MIB // 512)) * 512
    sectors = block // 512
    runs = st.lists(
        st.tuples(st.integers(0, sectors - 1), st.integers(1, 3000)).map(
            lambda run: (run[0], min(run[1], sectors - run[0]))
        ),
        max_size=4,
    )
    count = -(-size // block)
    blocks = draw(st.dictionaries(st.integers(0, count - 1), runs, max_size=count))
    return Recipe(
        size,
        block,
        blocks,
        order=draw(st.permutations(sorted(blocks))),
        kind=kind,
        seed=number * 1000 + draw(st.integers(0, 999)),
        parent=parent,
        paths={b"W2ru": f".\\disk.{number - 1}"} if parent is not None else {},
        footer_bytes=draw(st.sampled_from([512, 511])),
    )


@st.composite
def chains(draw: st.DrawFn) -> list[Made]:
    base = draw(layers(draw(st.sampled_from([DYNAMIC, FIXED])), None, 0))
    chain = [make(base)]
    for number in range(1, draw(st.integers(1, 4))):
        chain.append(make(draw(layers(DIFFERENCING, chain[-1], number))))
    return chain


@SLOPPY
@given(chains(), st.lists(st.tuples(st.integers(0, 5 * MIB), st.integers(0, MIB)), max_size=3))
def test_a_chain_reads_flat_and_its_extents_tell_the_truth(
    chain: list[Made], reads: list[tuple[int, int]]
) -> None:
    store = MemoryFolder()
    for number, made in enumerate(chain):
        with store.create(f"Disk.{number}") as file:
            file.write_at(0, made.content)
    wanted = chain[-1].guest
    size = len(wanted)
    with open_disk(store.open_read(f"Disk.{len(chain) - 1}"), store) as disk:
        assert isinstance(disk, VhdDisk)
        assert disk.size_bytes == size
        assert b"".join(data for _, data in disk.read_many([(0, size)])) == wanted
        for offset, length in reads:
            start = min(offset, size)
            assert disk.read_at(start, min(length, size - start)) == wanted[start:][:length]
        at = 0
        for extent in disk.extents():
            assert extent.offset_bytes == at
            at = extent.end_bytes
            if extent.state is not ExtentState.DATA:
                assert not any(wanted[extent.offset_bytes : at])
        assert at == size
        assert_changes_are_all(disk, chain)


def assert_changes_are_all(disk: VhdDisk, chain: list[Made]) -> None:
    """What a disk says it changed since its base, put over the base, gives the disk."""
    if len(chain) < 2:
        return
    key = disk.chain()[-1].content_key()
    changed = disk.changes_since(key)
    assert changed is not None
    made = bytearray(chain[0].guest[: disk.size_bytes].ljust(disk.size_bytes, b"\0"))
    for offset, length in changed:
        made[offset : offset + length] = disk.read_at(offset, length)
    assert made == chain[-1].guest


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.data())
def test_runs_of_bits_are_the_bits(bitmap: bytes, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 511))
    behind = data.draw(st.integers(first + 1, 512))
    flat: list[bool] = []
    for start, end, is_set in bit_runs(bitmap, first, behind):
        assert start == first + len(flat)
        assert not flat or flat[-1] is not is_set
        flat += [is_set] * (end - start)
    assert flat == [bool(bitmap[at // 8] >> 7 - at % 8 & 1) for at in range(first, behind)]


@SLOPPY
@given(st.one_of(layers(DYNAMIC, None, 0), layers(DIFFERENCING, make(Recipe(4 * MIB)), 1)))
def test_a_stream_brings_what_the_file_holds(recipe: Recipe) -> None:
    made = make(Recipe(**{**vars(recipe), "order": ()}))
    base = recipe.parent.guest if recipe.parent is not None else b""
    found = bytearray(base[: recipe.size_bytes].ljust(recipe.size_bytes, b"\0"))
    stream = VhdStream(BytesStream(made.content))
    at = 0
    for offset, data in stream.pieces():
        assert at <= offset
        assert 0 < len(data) <= MIB
        at = offset + len(data)
        found[offset:at] = data
    assert found == made.guest
    assert stream.size_bytes == recipe.size_bytes
    assert stream.is_differencing == (recipe.kind == DIFFERENCING)
    assert "blocks came" in stream.finish()


@SLOPPY
@given(
    st.sampled_from([512 * KIB, 2 * MIB]),
    st.integers(1, 6 * MIB // 512),
    st.lists(st.tuples(st.integers(0, 6 * MIB), st.integers(1, 300_000)), max_size=8),
    st.booleans(),
)
def test_what_is_written_reads_back_whatever_the_order(
    block: int, sectors: int, writes: list[tuple[int, int]], reopened: bool
) -> None:
    size = sectors * 512
    wanted = bytearray(size)
    store = MemoryFolder()
    with store.create("x") as file:
        writer = VhdWriter(file, size, block_bytes=block)
        for number, (offset, length) in enumerate(writes, start=1):
            start = min(offset, size - 1)
            data = bytes([number]) * min(length, size - start)
            writer.write_at(start, data)
            wanted[start : start + len(data)] = data
            if reopened:
                writer.flush()
                writer = VhdWriter.reopen(file)
        writer.finish()
    with VhdDisk(store.open_read("x")) as disk:
        assert b"".join(data for _, data in disk.read_many([(0, size)])) == wanted
        assert disk.details().get("notes", "") == ""
        for extent in disk.extents():
            if extent.state is not ExtentState.DATA:
                assert not any(wanted[extent.offset_bytes : extent.end_bytes])
