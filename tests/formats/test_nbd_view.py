"""The NBD view through the tools that will use it, and through a client that misbehaves."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nbd_client import NbdClient, run
from vhdx_bytes import SIZE, expected

from imageport.errors import InputError, SourceChanged
from imageport.formats.nbd_view import NbdView
from imageport.formats.raw import RawDisk
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB
from imageport.storage.local import LocalFolder


@pytest.fixture
def disk(folder: LocalFolder, sound_vhdx: bytes) -> Iterator[VhdxDisk]:
    (folder.root / "disk.vhdx").write_bytes(sound_vhdx)
    (folder.root / "wanted.raw").write_bytes(expected())
    with VhdxDisk(folder.open_read("disk.vhdx")) as opened:
        yield opened


@pytest.fixture
def view(disk: VhdxDisk, tmp_path: Path) -> Iterator[NbdView]:
    with NbdView(disk, tmp_path / "s") as served:
        yield served


def test_nbdinfo_sees_a_read_only_disk_of_the_right_size(view: NbdView) -> None:
    [export] = json.loads(run("nbdinfo", "--json", view.uri))["exports"]
    assert export["export-size"] == SIZE
    assert export["is_read_only"]
    assert export["can_multi_conn"]
    assert export["contexts"] == ["base:allocation"]
    assert len(json.loads(run("nbdinfo", "--list", "--json", view.uri))["exports"]) == 1


def test_holes_zeros_and_data_are_told_apart(folder: LocalFolder, tmp_path: Path) -> None:
    with folder.create("x") as file:
        writer = VhdxWriter(file, 6 * MIB, block_bytes=2 * MIB)
        writer.write_at(2 * MIB, b"d" * 65536)
        writer.finish()
    with VhdxDisk(folder.open_read("x")) as disk, NbdView(disk, tmp_path / "s") as view:
        found = json.loads(run("nbdinfo", "--map", "--json", view.uri))
    assert [(one["offset"], one["length"], one["type"]) for one in found] == [
        (0, 2 * MIB, 3),
        (2 * MIB, 65536, 0),
        (2 * MIB + 65536, 2 * MIB - 65536, 2),
        (4 * MIB, 2 * MIB, 3),
    ]


def test_qemu_reads_the_same_disk_through_it(view: NbdView, folder: LocalFolder) -> None:
    wanted = folder.root / "wanted.raw"
    compared = run("qemu-img", "compare", "-f", "raw", "-F", "raw", view.uri, wanted)
    assert "identical" in compared
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", view.uri))
    assert {one["data"] for one in mapped} == {True, False}


def test_nbdcopy_copies_over_several_connections(view: NbdView, folder: LocalFolder) -> None:
    run("nbdcopy", "--connections=4", "--requests=8", view.uri, folder.root / "copy.raw")
    assert (folder.root / "copy.raw").read_bytes() == expected()


def test_clients_without_structured_replies_are_served(view: NbdView, folder: LocalFolder) -> None:
    script = (
        "import nbd; h = nbd.NBD(); h.set_request_structured_replies(False); "
        f"h.connect_uri({view.uri!r}); b = h.pread(4096, {2 * MIB - 2048}); "
        "open('copy', 'wb').write(b)"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script], cwd=folder.root, capture_output=True, check=False
    )
    if b"No module named" in done.stderr:
        data = _simple_read(view, 2 * MIB - 2048, 4096)
    else:
        assert done.returncode == 0, done.stderr
        data = (folder.root / "copy").read_bytes()
    assert data == expected()[2 * MIB - 2048 :][:4096]


def test_nothing_can_be_written(view: NbdView, sound_vhdx: bytes, folder: LocalFolder) -> None:
    with NbdClient(view) as client:
        for command, payload in ((1, b"x" * 512), (4, b""), (6, b"")):
            assert client.request(command, 0, 512, payload) == 1  # EPERM
        assert client.request(3, 0, 0) == 0  # flush has nothing to do
    assert (folder.root / "disk.vhdx").read_bytes() == sound_vhdx


@pytest.mark.parametrize(
    ("command", "offset", "length", "error"),
    [
        (0, SIZE - 1, 2, 22),
        (0, 2**63, 1, 22),
        (0, 0, 0, 22),
        (0, 0, 2**32 - 1, 22),
        (99, 0, 1, 22),
        (7, 0, 512, 22),
    ],
)
def test_senseless_requests_get_an_error_and_the_session_goes_on(
    view: NbdView, command: int, offset: int, length: int, error: int
) -> None:
    with NbdClient(view) as client:
        assert client.request(command, offset, length) == error
        assert client.request(0, 0, 512) == 0
        assert client.receive(512) == expected()[:512]


def test_more_than_32_mib_at_once_is_refused(folder: LocalFolder, tmp_path: Path) -> None:
    with folder.create("x") as file:
        file.set_size(64 * MIB)
    disk = RawDisk(folder.open_read("x"))
    with disk, NbdView(disk, tmp_path / "s") as view, NbdClient(view) as client:
        assert client.request(0, 0, 33 * MIB) == 75
        assert client.request(0, 0, 32 * MIB) == 0
        assert client.receive(32 * MIB) == bytes(32 * MIB)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\xff" * 4,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(4000),
        struct.pack(">I8sII", 1, b"IHAVEOPT", 7, 2**32 - 1),
        struct.pack(">I8sII", 3, b"IHAVEOPT", 10, 8) + b"\xff" * 8,
        struct.pack(">I8sII", 3, b"IHAVEOPT", 7, 4) + b"\xff" * 4,
        struct.pack(">I8sII", 3, b"IHAVEOPT", 77, 0),
    ],
    ids=range(10),
)
def test_a_client_that_talks_nonsense_harms_nobody(view: NbdView, sent: bytes) -> None:
    path = view.uri.split("socket=")[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as rude:
        rude.connect(path)
        rude.sendall(sent)
        with NbdClient(view) as client:
            assert client.request(0, 0, 512) == 0
            assert client.receive(512) == expected()[:512]


def test_reading_errors_reach_the_client_and_the_caller(
    folder: LocalFolder, disk: VhdxDisk, view: NbdView
) -> None:
    with (folder.root / "disk.vhdx").open("r+b") as file:
        file.truncate(3 * MIB)
    with NbdClient(view) as client:
        assert client.request(0, 0, 512) == 5
    assert isinstance(view.last_error, SourceChanged)
    assert disk.size_bytes == SIZE


def test_closing_ends_every_session_and_leaves_no_thread(disk: VhdxDisk, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    view = NbdView(disk, tmp_path / "s")
    with view:
        clients = [NbdClient(view).__enter__() for _ in range(5)]
        assert clients[0].request(0, 0, 512) == 0
    assert set(threading.enumerate()) == before
    assert not (tmp_path / "s").exists()
    for client in clients:
        client.__exit__(None, None, None)
    with view:  # and it may be opened again
        run("nbdinfo", view.uri)


def test_many_clients_read_at_once(view: NbdView) -> None:
    def read(at: int) -> bool:
        with NbdClient(view) as client:
            assert client.request(0, at * 1000, 5000) == 0
            return client.receive(5000) == expected()[at * 1000 :][:5000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 5000, 200)))


def test_only_this_user_may_connect(view: NbdView) -> None:
    path = Path(view.uri.split("socket=")[1])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_path_that_no_socket_can_have_is_refused(disk: VhdxDisk, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 107"):
        NbdView(disk, tmp_path / ("x" * 120))
    with pytest.raises(InputError, match="Cannot listen"), NbdView(disk, tmp_path / "no" / "s"):
        pass


def _simple_read(view: NbdView, offset: int, length: int) -> bytes:
    with NbdClient(view) as client:
        assert client.request(0, offset, length) == 0
        return client.receive(length)
