# References: Azure Compute, disks: DiskState, direct upload; VHD specification 1.0, footer.
"""Managed disks and snapshots as the store keeps them: states, footers, bytes, restarts."""

from __future__ import annotations

import itertools
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.model import GIB, MIB
from imageport.sandbox.azure.disk_errors import DiskError
from imageport.sandbox.azure.disk_footer import export_footer, footer_checksum
from imageport.sandbox.azure.disk_pages import PageMap
from imageport.sandbox.azure.disk_store import DiskStore
from imageport.sandbox.azure.knobs import Knobs

SIZE = 20 * MIB
PAGE = bytes(range(256)) * 2
BASE = "http://127.0.0.1:1"


@pytest.fixture
def knobs() -> Knobs:
    return Knobs()


@pytest.fixture
def store(tmp_path: Path, knobs: Knobs) -> Iterator[DiskStore]:
    found = DiskStore(tmp_path, knobs)
    yield found
    found.close()


def begin_upload(store: DiskStore, name: str = "u") -> None:
    store.create_upload(name, SIZE + 512)
    store.grant(name, "Write", 3600, BASE)


def upload(store: DiskStore, name: str, *places: int) -> None:
    begin_upload(store, name)
    for offset in places:
        store.get(name).write(offset, PAGE)
    store.get(name).write(SIZE, export_footer(SIZE, name))
    store.revoke(name)


def refusal(error: pytest.ExceptionInfo[DiskError]) -> tuple[int, str]:
    return error.value.status, error.value.code


@pytest.mark.parametrize(
    "size", [SIZE, SIZE + 511, SIZE + 1024, 20 * MIB - 512, 19 * MIB + 512, 32768 * GIB + 512]
)
def test_an_upload_is_whole_mebibytes_and_a_footer(store: DiskStore, size: int) -> None:
    with pytest.raises(DiskError) as error:
        store.create_upload("u", size)
    assert refusal(error) == (400, "InvalidParameter")


def test_an_upload_goes_through_its_states(store: DiskStore) -> None:
    store.create_upload("u", SIZE + 512)
    assert (store.state("u"), store.size_bytes("u")) == ("ReadyToUpload", SIZE)
    store.grant("u", "Write", 3600, BASE)
    assert store.state("u") == "ActiveUpload"
    store.get("u").write(SIZE, export_footer(SIZE, "u"))
    store.revoke("u")
    assert (store.state("u"), store.path("u").stat().st_size) == ("Unattached", SIZE)
    with pytest.raises(DiskError) as error:
        store.grant("u", "Write", 3600, BASE)
    assert refusal(error) == (409, "OperationNotAllowed")


def with_checksum(footer: bytearray) -> bytes:
    struct.pack_into(">I", footer, 64, footer_checksum(bytes(footer)))
    return bytes(footer)


def footer_of(size_bytes: int = SIZE, disk_type: int = 2) -> bytes:
    footer = bytearray(export_footer(size_bytes, "x"))
    struct.pack_into(">I", footer, 60, disk_type)
    return with_checksum(footer)


@pytest.mark.parametrize(
    ("footer", "says"),
    [
        (b"", "cookie value 'conectix'"),
        (bytes(8) + footer_of()[8:], "cookie value 'conectix'"),
        (footer_of(disk_type=3), "Only fixed VHDs"),
        (footer_of(SIZE + MIB), f"created for {SIZE} bytes"),
        (footer_of(SIZE + 512), "whole number (in MBs)"),
        (footer_of()[:100] + b"x" + footer_of()[101:], "checksum"),
    ],
)
def test_a_wrong_footer_is_found_when_access_ends(
    store: DiskStore, footer: bytes, says: str
) -> None:
    begin_upload(store)
    if footer:
        store.get("u").write(SIZE, footer)
    for _ in range(2):
        with pytest.raises(DiskError, match=says.replace("(", r"\(").replace(")", r"\)")) as error:
            store.revoke("u")
        assert refusal(error) == (400, "InvalidVhd")
    assert store.state("u") == "ActiveUpload"


def test_after_a_wrong_footer_the_disk_is_uploaded_again_or_deleted(store: DiskStore) -> None:
    begin_upload(store)
    with pytest.raises(DiskError):
        store.revoke("u")
    store.grant("u", "Write", 3600, BASE)
    store.get("u").write(SIZE, export_footer(SIZE, "u"))
    store.revoke("u")
    assert store.state("u") == "Unattached"
    begin_upload(store, "other")
    with pytest.raises(DiskError):
        store.revoke("other")
    store.delete("other")


def test_the_footers_geometry_is_accepted_by_another_reader(tmp_path: Path) -> None:
    image = tmp_path / "disk.vhd"
    with image.open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE)
        file.write(export_footer(SIZE, "x"))
    said = subprocess.run(
        ["qemu-img", "info", "-f", "vpc", image], check=True, capture_output=True, text=True
    ).stdout
    assert f"({SIZE} bytes)" in said


def test_a_grant_that_has_not_ended_is_returned_again(store: DiskStore) -> None:
    store.create_upload("u", SIZE + 512)
    first = store.grant("u", "Write", 3600, BASE)
    assert store.grant("u", "Write", 7200, BASE) == first
    store.create_upload("v", SIZE + 512)
    ended = store.grant("v", "Write", 0, BASE)
    assert store.grant("v", "Write", 3600, BASE) != ended


def test_a_stuck_upload_refuses_to_be_revoked_for_a_while(store: DiskStore, knobs: Knobs) -> None:
    knobs.stuck_upload = 2
    begin_upload(store)
    store.get("u").write(SIZE, export_footer(SIZE, "u"))
    for _ in range(2):
        with pytest.raises(DiskError) as error:
            store.revoke("u")
        assert refusal(error) == (409, "OperationNotAllowed")
    store.revoke("u")
    assert store.state("u") == "Unattached"


def test_a_disk_that_someone_has_access_to_is_not_deleted(store: DiskStore) -> None:
    begin_upload(store)
    with pytest.raises(DiskError, match="ActiveUpload"):
        store.delete("u")
    upload(store, "d", 0)
    store.grant("d", "Read", 3600, BASE)
    assert store.state("d") == "ActiveSAS"
    with pytest.raises(DiskError, match="ActiveSAS"):
        store.delete("d")
    store.revoke("d")
    store.delete("d")
    with pytest.raises(DiskError) as error:
        store.state("d")
    assert error.value.status == 404


def test_a_disk_that_is_being_uploaded_is_neither_read_copied_nor_attached(
    store: DiskStore,
) -> None:
    begin_upload(store)
    for attempt in (
        lambda: store.grant("u", "Read", 3600, BASE),
        lambda: store.snapshot("s", "u"),
        lambda: store.create_copy("c", "u"),
        lambda: store.set_attached("u", attached=True),
    ):
        with pytest.raises(DiskError) as error:
            attempt()
        assert refusal(error) == (409, "OperationNotAllowed")


def test_an_attached_disk_is_neither_read_nor_deleted(store: DiskStore) -> None:
    upload(store, "d", 0)
    store.set_attached("d", attached=True)
    assert store.state("d") == "Attached"
    with pytest.raises(DiskError):
        store.grant("d", "Read", 3600, BASE)
    with pytest.raises(DiskError):
        store.delete("d")
    store.set_attached("d", attached=False)
    assert store.state("d") == "Unattached"


def test_a_snapshot_keeps_bytes_and_pages_and_stays_sparse(store: DiskStore) -> None:
    upload(store, "d", 0, 10 * MIB)
    store.snapshot("s", "d")
    assert store.get("s").pages.all() == [(0, 512), (10 * MIB, 10 * MIB + 512)]
    assert store.path("s").read_bytes() == store.path("d").read_bytes()
    assert store.used_bytes("s") == 1024
    assert store.path("s").stat().st_blocks * 512 <= MIB


def test_a_copy_may_be_larger_than_its_source(store: DiskStore) -> None:
    upload(store, "d", 0)
    store.create_copy("c", "d", 64 * MIB)
    assert (store.size_bytes("c"), store.path("c").stat().st_size) == (64 * MIB, 64 * MIB)
    assert store.get("c").read(0, 512) == PAGE


def test_what_a_machine_writes_is_in_the_next_snapshot(store: DiskStore) -> None:
    upload(store, "d", 0)
    store.set_attached("d", attached=True)
    with store.path("d").open("r+b") as file:
        file.seek(5 * MIB)
        file.write(PAGE)
    store.snapshot("while", "d")
    store.set_attached("d", attached=False)
    store.snapshot("after", "d")
    for name in ("while", "after"):
        assert any(start <= 5 * MIB < end for start, end in store.get(name).pages.all())
        assert store.get(name).read(5 * MIB, 5 * MIB + 512) == PAGE


def test_a_machine_that_writes_nothing_leaves_the_pages_as_they_were(store: DiskStore) -> None:
    upload(store, "d", 512)
    store.set_attached("d", attached=True)
    store.set_attached("d", attached=False)
    assert store.get("d").pages.all() == [(512, 1024)]


def test_zeros_that_are_written_take_no_space(store: DiskStore) -> None:
    begin_upload(store)
    store.get("u").write(0, bytes(4 * MIB))
    assert store.get("u").pages.all() == [(0, 4 * MIB)]
    assert store.path("u").stat().st_blocks * 512 < MIB


def test_disks_pages_states_and_grants_outlive_a_restart(tmp_path: Path, knobs: Knobs) -> None:
    first = DiskStore(tmp_path, knobs)
    begin_upload(first)
    first.get("u").write(1024, PAGE)
    first.get("u").write(4096, PAGE)
    first.get("u").clear(1024, 1536)
    url = first.grant("u", "Write", 3600, BASE)
    # No closing: a killed service does not close either.
    second = DiskStore(tmp_path, knobs)
    assert (second.state("u"), second.get("u").pages.all()) == ("ActiveUpload", [(4096, 4608)])
    assert second.grant("u", "Write", 3600, BASE) == url
    second.close()
    first.close()


def test_a_torn_record_of_pages_is_left_out(tmp_path: Path, knobs: Knobs) -> None:
    first = DiskStore(tmp_path, knobs)
    begin_upload(first)
    first.get("u").write(0, PAGE)
    first.close()
    path = next(tmp_path.glob("*.pages"))
    with path.open("ab") as file:
        file.write(b"\x01\x00\x02")
    second = DiskStore(tmp_path, knobs)
    assert second.get("u").pages.all() == [(0, 512)]
    second.close()


def test_a_copy_that_was_killed_leaves_nothing(tmp_path: Path, knobs: Knobs) -> None:
    (tmp_path / "abc.copying").write_bytes(PAGE)
    (tmp_path / "abc.disk").write_bytes(PAGE)
    DiskStore(tmp_path, knobs).close()
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_taken_once(store: DiskStore) -> None:
    store.create_empty("d", SIZE)
    with pytest.raises(DiskError) as error:
        store.create_empty("d", SIZE)
    assert refusal(error) == (409, "Conflict")


def test_nothing_is_written_once_access_has_ended(store: DiskStore) -> None:
    begin_upload(store)
    disk = store.get("u")
    disk.write(SIZE, export_footer(SIZE, "u"))
    started = threading.Event()

    def write_slowly() -> None:
        with disk.busy():
            started.set()
            time.sleep(0.3)
            disk.write(0, PAGE)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    started.wait()
    store.revoke("u")
    assert (disk.read(0, 512), disk.pages.all()) == (PAGE, [(0, 512)])
    writer.join()


def test_a_grant_moves_with_a_service_that_listens_elsewhere(store: DiskStore) -> None:
    store.create_upload("u", SIZE + 512)
    first = store.grant("u", "Write", 3600, BASE)
    assert store.grant("u", "Write", 3600, "http://127.0.0.1:2") == first.replace(":1/", ":2/")


CHANGES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=40
)


@given(CHANGES, st.integers(0, 40), st.integers(1, 20))
def test_a_map_of_pages_is_a_set_of_pages(
    changes: list[tuple[bool, int, int]], start: int, length: int
) -> None:
    pages, model = PageMap(), set[int]()
    for written, first, count in changes:
        if written:
            pages.add(first, first + count)
            model.update(range(first, first + count))
        else:
            pages.remove(first, first + count)
            model.difference_update(range(first, first + count))
    ranges = list(pages)
    assert {page for first, end in ranges for page in range(first, end)} == model
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
    within = {page for cut in pages.within(start, start + length) for page in range(*cut)}
    assert within == model & set(range(start, start + length))
    assert pages.written_bytes() == len(model)
