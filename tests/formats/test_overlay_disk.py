"""The overlay against a plain bytearray, through QEMU's tools, and on a machine without room.

Recipe of the base: a VHDX of 5 MiB + 3 sectors in blocks of 1 MiB, with data, zeros and holes, see
`vhdx_bytes.small_vhdx`; its last cluster of 64 KiB is cut short.
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbd_client import NbdClient, run
from vhdx_bytes import SIZE, expected, small_vhdx

from imageport.errors import InputError, ShareFull, SourceChanged
from imageport.formats.nbd_view import NbdView
from imageport.formats.overlay_disk import OverlayDisk
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, Extent, ExtentState
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder

CLUSTER = 64 * 1024
TAIL = SIZE - SIZE % CLUSTER
VHDX = small_vhdx()


@contextmanager
def opened(folder: Folder, *, key: str = "k") -> Iterator[OverlayDisk]:
    with folder.create("base.vhdx") as file:
        file.write_at(0, VHDX)
    overlay = folder.create("overlay")
    overlay.set_sparse()
    with (
        VhdxDisk(folder.open_read("base.vhdx")) as base,
        OverlayDisk(base, overlay, key=key) as disk,
    ):
        yield disk


def whole(disk: VirtualDisk) -> bytes:
    return disk.read_at(0, disk.size_bytes)


def extent_at(disk: VirtualDisk, offset: int) -> Extent:
    return next(e for e in disk.extents() if e.offset_bytes <= offset < e.end_bytes)


def check_extents(disk: VirtualDisk, content: bytes) -> None:
    """They cover the disk once, neighbours differ, and only DATA reads as anything but zeros."""
    at, before = 0, None
    for extent in disk.extents():
        assert extent.offset_bytes == at
        assert extent.length_bytes > 0
        assert extent.state is not before
        if extent.state is not ExtentState.DATA:
            assert not any(content[at : extent.end_bytes])
        at, before = extent.end_bytes, extent.state
    assert at == disk.size_bytes


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["write", "zeros", "write_zeroes", "trim", "pin"]),
        st.one_of(
            st.integers(0, SIZE), st.sampled_from([0, CLUSTER, 2 * MIB - 1, TAIL, SIZE - 1, SIZE])
        ),
        st.one_of(st.integers(0, 3 * CLUSTER), st.just(SIZE)),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES)
def test_it_reads_as_a_plain_array_that_was_changed_likewise(
    changes: list[tuple[str, int, int]],
) -> None:
    folder = MemoryFolder()
    with opened(folder) as disk:
        model = bytearray(expected())
        for number, (kind, offset, wanted) in enumerate(changes):
            length = min(wanted, SIZE - offset)
            end = offset + length
            first, last = -(-offset // CLUSTER) * CLUSTER, end // CLUSTER * CLUSTER
            if kind == "write":
                model[offset:end] = bytes([number + 1]) * length
                disk.write_at(offset, bytes(model[offset:end]))
            elif kind == "zeros":
                model[offset:end] = bytes(length)
                disk.write_at(offset, bytes(length))
            elif kind == "write_zeroes":
                model[offset:end] = bytes(length)
                disk.write_zeroes(offset, length)
            elif kind == "trim":
                last = end if end == SIZE else last
                model[first:last] = bytes(max(0, last - first))
                disk.trim(offset, length)
            else:
                disk.pin(offset, length)
        assert whole(disk) == model
        check_extents(disk, bytes(model))
        ranges = [(1000, MIB), (2 * MIB + 7, SIZE - 2 * MIB - 7)]
        pieces = list(disk.read_many(ranges))
        for start, piece in pieces:
            assert piece == model[start : start + len(piece)]
        assert sum(len(piece) for _, piece in pieces) == sum(length for _, length in ranges)
    assert folder.read_bytes("base.vhdx", 1 << 30) == VHDX


def test_written_zeros_are_zeros_and_never_a_hole() -> None:
    with opened(MemoryFolder()) as disk:
        hole = 3 * MIB
        assert extent_at(disk, hole).state is ExtentState.HOLE
        disk.write_at(hole, bytes(CLUSTER))
        disk.write_zeroes(hole + CLUSTER, CLUSTER)
        found = extent_at(disk, hole)
        assert found == Extent(hole, 2 * CLUSTER, ExtentState.ZERO)
        assert extent_at(disk, hole + 2 * CLUSTER).state is ExtentState.HOLE


def test_only_what_was_written_takes_room(tmp_path: Path) -> None:
    with opened(LocalFolder(tmp_path)) as disk:
        disk.write_at(3 * MIB + 5, b"x")
        disk.write_zeroes(4 * MIB, MIB)
        assert list(disk.written_ranges()) == [(3 * MIB, CLUSTER), (4 * MIB, MIB)]
        stored = (tmp_path / "overlay").stat()
        assert stored.st_size == SIZE
        assert stored.st_blocks * 512 <= 2 * CLUSTER


def test_a_pinned_range_is_data_that_reads_as_before() -> None:
    with opened(MemoryFolder()) as disk:
        hole = 3 * MIB + CLUSTER
        disk.pin(hole, 1)
        disk.pin(TAIL, SIZE - TAIL)
        assert extent_at(disk, hole) == Extent(hole, CLUSTER, ExtentState.DATA)
        assert whole(disk) == expected()


def test_the_key_says_which_changes_it_holds() -> None:
    with opened(MemoryFolder(), key="a") as first, opened(MemoryFolder(), key="b") as second:
        assert first.content_key() != second.content_key()
    with opened(MemoryFolder(), key="") as third, opened(MemoryFolder(), key="") as fourth:
        assert third.content_key() != fourth.content_key()


def test_a_base_that_changes_is_noticed(tmp_path: Path) -> None:
    with opened(LocalFolder(tmp_path)) as disk:
        disk.check_unchanged()
        os.utime(tmp_path / "base.vhdx", ns=(1, 1))
        with pytest.raises(SourceChanged):
            disk.check_unchanged()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1)])
def test_nothing_outside_the_disk_is_reached(offset: int, length: int) -> None:
    with opened(MemoryFolder()) as disk:
        for call in (disk.read_at, disk.write_zeroes, disk.trim, disk.pin):
            with pytest.raises(InputError, match=f"the disk has {SIZE}"):
                call(offset, length)
        with pytest.raises(InputError, match=f"the disk has {SIZE}"):
            disk.write_at(offset, bytes(length))


def test_threads_that_share_a_cluster_lose_no_write(tmp_path: Path) -> None:
    with opened(LocalFolder(tmp_path)) as disk:
        started = threading.Barrier(8)

        def write(number: int) -> None:
            started.wait()
            for at in range(number * 512, 4 * CLUSTER, 8 * 512):
                disk.write_at(at, bytes([number + 1]) * 512)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        wanted = b"".join(bytes([number + 1]) * 512 for number in range(8))
        assert disk.read_at(0, 4 * CLUSTER) == wanted * (4 * CLUSTER // len(wanted))


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_machine_without_room_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(LocalFolder(tmp_path)) as disk:
        monkeypatch.setattr(os, "pwrite", no_room)
        with pytest.raises(ShareFull, match=r"changes of '.*base\.vhdx' in '.*overlay'") as caught:
            disk.write_at(0, b"x")
        assert "--work" in caught.value.hint
        assert whole(disk) == expected()


# Through the tools that will use it.


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[OverlayDisk, NbdView]]:
    with (
        opened(LocalFolder(tmp_path)) as disk,
        NbdView(disk, tmp_path / "s", writable=True) as view,
    ):
        yield disk, view
    assert (tmp_path / "base.vhdx").read_bytes() == VHDX


def test_nbdinfo_sees_a_disk_that_can_be_written(served: tuple[OverlayDisk, NbdView]) -> None:
    [export] = json.loads(run("nbdinfo", "--json", served[1].uri))["exports"]
    assert export["export-size"] == SIZE
    wanted = ("can_flush", "can_fua", "can_trim", "can_zero", "can_df", "can_multi_conn")
    assert not export["is_read_only"]
    assert {name: export[name] for name in wanted} == dict.fromkeys(wanted, True)


def test_qemu_writes_and_finds_what_it_wrote(
    served: tuple[OverlayDisk, NbdView], tmp_path: Path
) -> None:
    disk, view = served
    same = tmp_path / "same.raw"
    same.write_bytes(expected())
    commands = ["write -P 7 1000 3000", f"write -z {MIB} {MIB}", "write -f -P 9 5M 512", "flush"]
    commands += [f"discard {3 * MIB} {MIB}", f"write -P 8 {2 * MIB - 512} 1M", "read -P 9 5M 512"]
    words = [word for command in commands for word in ("-c", command)]
    for target in (view.uri, same):
        run("qemu-io", "-d", "unmap", "-f", "raw", *words, target)
    assert whole(disk) == same.read_bytes()
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", view.uri, same)
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", view.uri))
    assert any(one["zero"] for one in mapped)
    check_extents(disk, same.read_bytes())


def test_nbdcopy_fills_it_over_several_connections(
    served: tuple[OverlayDisk, NbdView], tmp_path: Path
) -> None:
    disk, view = served
    content = bytearray(random.Random(4).randbytes(SIZE))  # noqa: S311
    content[MIB : 2 * MIB] = bytes(MIB)
    source = tmp_path / "source.raw"
    source.write_bytes(content)
    run("nbdcopy", "--connections=4", "--requests=16", source, view.uri)
    assert whole(disk) == content


def test_a_full_machine_reaches_the_client_as_an_input_output_error(
    served: tuple[OverlayDisk, NbdView], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not as ENOSPC: QEMU would halt its machine instead of telling the guest.
    monkeypatch.setattr(os, "pwrite", no_room)
    words = ["qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", served[1].uri]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert "Input/output error" in done.stdout + done.stderr
    assert isinstance(served[1].last_error, ShareFull)


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "error"),
    [
        (1, SIZE - 1, 2, 0, 28),
        (6, SIZE - 1, 2, 0, 28),
        (4, SIZE - 1, 2, 0, 22),
        (1, 2**63, 1, 0, 28),
        (1, 0, 0, 0, 22),
        (6, 0, 0, 0, 22),
        (1, 0, 512, 2, 22),
        (4, 0, 512, 2, 22),
        (6, 0, 512, 16, 22),
    ],
)
def test_senseless_writes_get_an_error_and_the_session_goes_on(
    served: tuple[OverlayDisk, NbdView],
    command: int,
    offset: int,
    length: int,
    flags: int,
    error: int,
) -> None:
    disk, view = served
    payload = bytes([7]) * length if command == 1 else b""
    with NbdClient(view, writable=True) as client:
        assert client.request(command, offset, length, payload, flags=flags) == error
        assert client.request(0, 0, 512) == 0
        assert client.receive(512) == expected()[:512]
    assert list(disk.written_ranges()) == []


def test_a_client_that_leaves_in_the_middle_of_a_write_harms_nobody(
    served: tuple[OverlayDisk, NbdView],
) -> None:
    disk, view = served
    with NbdClient(view, writable=True) as client:
        client.send(1, 0, 4096, b"half of it")
    with NbdClient(view, writable=True) as client:
        assert client.request(1, 33 * MIB, 0) == 22
        client.send(1, 0, 33 * MIB, b"")
        assert client.has_left()
    assert whole(disk) == expected()


def test_only_an_overlay_is_served_writable(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    (tmp_path / "base.vhdx").write_bytes(VHDX)
    with (
        VhdxDisk(folder.open_read("base.vhdx")) as base,
        pytest.raises(InputError, match="read-only disk"),
    ):
        NbdView(base, tmp_path / "s", writable=True)
