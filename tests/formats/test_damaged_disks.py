"""Mutation fuzzing: whatever a file holds, only our errors come out, in bounded time and memory.

Recipe: a small VHDX of our writer and one of qemu-img, and a GPT disk of sgdisk; each case changes
1 to 4 places (bytes, whole fields, swapped or copied pieces, cuts), favouring the structures, and
mends the checksums in half of the cases so that the checks behind them are reached.
"""

from __future__ import annotations

import random
import subprocess
import time
import tracemalloc
from collections.abc import Callable

import pytest
from vhdx_bytes import (
    BAT,
    HEADERS,
    KIB,
    METADATA,
    MIB,
    REGION_TABLES,
    bat_entry,
    sealed,
    small_vhdx,
)

from imageport.errors import ImageportError
from imageport.formats.gpt import read_layout
from imageport.formats.opening import open_disk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.storage.byte_file import ByteFile

SECONDS = 5.0
MEMORY_BYTES = 64 * MIB
STRANGE = (0, 1, 2, 3, 7, 255, 2**16 - 1, 2**20, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("fuzz")
    made = [small_vhdx()]
    for name, command in {
        "q.vhdx": "qemu-img create -q -f vhdx -o block_size=1M q.vhdx 4M && "
        "qemu-io -f vhdx -c 'write -q -P 7 0 64k' -c 'write -q -P 8 3M 64k' q.vhdx",
        "g.raw": "truncate -s 3M g.raw && sgdisk -n1:64:+1M -t1:ef00 -n2:0:0 g.raw",
        "m.raw": "truncate -s 3M m.raw && "
        "printf '64,100,7\\n200,3000,5\\n\\n\\n300,50\\n400,60\\n' | sfdisk -q m.raw",
    }.items():
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)  # noqa: S602
        made.append((folder / name).read_bytes())
    return made


def mutated(original: bytes, dice: random.Random) -> bytes:
    content = bytearray(original)
    is_vhdx = original.startswith(b"vhdxfile")
    for _ in range(dice.randrange(1, 5)):
        at = min(_place(len(content), dice, is_vhdx=is_vhdx), len(content) - 9)
        source = min(_place(len(content), dice, is_vhdx=is_vhdx), len(content) - 64)
        dice.choice(CHANGES)(content, at, source, dice)
        if len(content) < 4096:
            break
    mended = bytes(content)
    if is_vhdx and len(mended) >= MIB and dice.random() < 1 / 2:
        for table in REGION_TABLES:
            mended = sealed(mended, table, 64 * KIB)
        for header in HEADERS:
            mended = sealed(mended, header, 4 * KIB)
    return mended


def _byte(content: bytearray, at: int, _source: int, dice: random.Random) -> None:
    content[at] = dice.randrange(256)


def _bit(content: bytearray, at: int, _source: int, dice: random.Random) -> None:
    content[at] ^= 1 << dice.randrange(8)


def _number(content: bytearray, at: int, _source: int, dice: random.Random) -> None:
    size = dice.choice((2, 4, 8))
    value = dice.choice(STRANGE) & (2 ** (8 * size) - 1)
    content[at - at % size : at - at % size + size] = value.to_bytes(size, "little")


def _copy(content: bytearray, at: int, source: int, dice: random.Random) -> None:
    count = min(dice.randrange(1, 64), len(content) - at)
    content[at : at + count] = content[source : source + count]


def _cut(content: bytearray, at: int, _source: int, dice: random.Random) -> None:
    if dice.random() < 1 / 4:
        del content[max(16, at) :]


CHANGES = (_byte, _bit, _number, _number, _number, _copy, _cut)


def _place(size: int, dice: random.Random, *, is_vhdx: bool) -> int:
    if dice.random() < 1 / 8:
        return dice.randrange(max(1, size))
    if not is_vhdx:
        return dice.choice(
            [dice.randrange(0, 2048), 446 + dice.randrange(66), size - 1 - dice.randrange(1024)]
        )
    # Both writers put their structures at MiB borders, in different order.
    start = dice.choice([*HEADERS, *REGION_TABLES, MIB, METADATA, METADATA + 64 * KIB, BAT])
    return min(start + dice.randrange(dice.choice([32, 80, 256])), max(1, size) - 1)


def survive(content: bytes, in_memory: Callable[[bytes], ByteFile]) -> bool:
    """Do everything that a reader does; return whether the disk was accepted."""
    started = time.monotonic()
    try:
        with open_disk(in_memory(content)) as disk:
            covered = sum(extent.length_bytes for extent in disk.extents())
            assert covered == disk.size_bytes
            for offset in (0, disk.size_bytes // 2, max(0, disk.size_bytes - 512)):
                count = min(512, disk.size_bytes - offset)
                assert len(disk.read_at(offset, count)) == count
            list(disk.read_many([(0, min(disk.size_bytes, 4 * MIB))]))
            disk.content_key()
            read_layout(disk)
    except ImageportError as error:
        assert error.message.endswith(".")  # noqa: PT017
        return False
    finally:
        assert time.monotonic() - started < SECONDS
    return True


def run_cases(originals: list[bytes], in_memory: Callable[[bytes], ByteFile], seeds: range) -> None:
    accepted = 0
    for seed in seeds:
        content = mutated(originals[seed % len(originals)], random.Random(seed))  # noqa: S311
        try:
            accepted += survive(content, in_memory)
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
    # A fuzzer whose every case is refused at the door tests the door only.
    assert len(seeds) // 50 < accepted < len(seeds)


def test_a_damaged_disk_gives_one_of_our_errors_or_a_whole_disk(
    originals: list[bytes], in_memory: Callable[[bytes], ByteFile]
) -> None:
    run_cases(originals, in_memory, range(100))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_damaged_disks(
    originals: list[bytes], in_memory: Callable[[bytes], ByteFile], part: int
) -> None:
    run_cases(originals, in_memory, range(1000 + part * 1000, 2000 + part * 1000))


def test_a_damaged_disk_takes_no_memory(
    originals: list[bytes], in_memory: Callable[[bytes], ByteFile]
) -> None:
    for seed in range(20_000, 20_024):
        content = mutated(originals[seed % len(originals)], random.Random(seed))  # noqa: S311
        tracemalloc.start()
        try:
            survive(content, in_memory)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MEMORY_BYTES, f"seed {seed}"


def test_every_cut_of_a_disk_is_refused_or_whole(in_memory: Callable[[bytes], ByteFile]) -> None:
    content = small_vhdx()
    dice = random.Random(5)  # noqa: S311
    # The last block may be cut where the disk ends, 3 sectors behind its start.
    end = bat_entry(content, 5)[1] + 3 * 512
    cuts = [0, 1, 7, 8, 511, 512, 4095, *(dice.randrange(end) for _ in range(40))]
    for cut in cuts:
        assert not survive(content[:cut], in_memory)


def test_a_damaged_unfinished_file_is_refused_or_taken_up(
    in_memory: Callable[[bytes], ByteFile],
) -> None:
    from crashing_file import CrashingFile  # noqa: PLC0415

    original = b"vhdxpart" + small_vhdx()[8:]
    taken = 0
    for seed in range(60):
        dice = random.Random(seed)  # noqa: S311
        content = mutated(b"vhdxfile" + original[8:], dice)
        file = CrashingFile(b"vhdxpart" + content[8:])
        try:
            writer = VhdxWriter.reopen(file)
            writer.write_at(0, b"x" * 512)
            writer.finish()
        except ImageportError:
            continue
        taken += 1
        with open_disk(in_memory(bytes(file.content))) as disk:
            assert disk.read_at(0, 512) == b"x" * 512
    assert taken
