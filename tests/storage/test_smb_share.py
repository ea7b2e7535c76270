"""What only a share can do: refuse, drop, lock, encrypt, fill up. The server is a real smbd."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import smbclient

from imageport.errors import (
    FileLocked,
    FileMissing,
    ImageportError,
    InputError,
    MissingTool,
    ShareError,
    ShareFull,
    ShareLoginRefused,
    ShareRefused,
    ShareUnreachable,
    SourceChanged,
)
from imageport.sandbox.samba import SambaServer
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation
from imageport.storage.smb_connection import SmbSession, StrictConnection
from tests.storage.conftest import PASSWORD, USER
from tests.storage.wire_tap import WireTap

MIB = 1024 * 1024
SIGNED_FLAG = 0x8
READ_COMMAND = 8


def fill(folder: SmbFolder, name: str, data: bytes) -> None:
    with folder.create(name) as file:
        file.write_at(0, data)
        file.flush()


@contextmanager
def server_of_its_own(
    root: Path, share: Path | None = None, **how: object
) -> Iterator[SambaServer]:
    shares = {"store": share or root / "store"}
    with SambaServer(root / "server", shares, USER, PASSWORD, **how) as server:  # type: ignore[arg-type]
        yield server


def folder_of(server: SambaServer, credentials: SmbCredentials, **how: float) -> SmbFolder:
    return SmbFolder(SmbLocation.parse(server.location("store")), credentials, **how)


def through(tap: WireTap, location: SmbLocation) -> SmbLocation:
    return replace(location, port=tap.port)


class TestRefusals:
    def test_a_wrong_password_is_a_refused_login(self, smb_location: SmbLocation):
        with (
            SmbFolder(smb_location, SmbCredentials(USER, "wrong")) as folder,
            pytest.raises(ShareLoginRefused) as caught,
        ):
            folder.list()
        assert not caught.value.retryable
        assert str(smb_location) in caught.value.message

    def test_an_unknown_user_is_a_refused_login(self, smb_location: SmbLocation):
        with (
            SmbFolder(smb_location, SmbCredentials("nobody-here", PASSWORD)) as folder,
            pytest.raises(ShareLoginRefused),
        ):
            folder.list()

    @pytest.mark.parametrize("auth", ["negotiate", "ntlm"])
    def test_the_ways_to_log_in_work(self, smb_folder: SmbFolder, auth: str):
        location = SmbLocation.parse(smb_folder.location)
        with SmbFolder(location, SmbCredentials(USER, PASSWORD, auth=auth)) as folder:
            assert folder.list() == []

    def test_kerberos_without_a_ticket_is_a_refused_login(self, smb_location: SmbLocation):
        credentials = SmbCredentials(USER, PASSWORD, auth="kerberos")
        with (
            SmbFolder(smb_location, credentials) as folder,
            pytest.raises((ShareLoginRefused, MissingTool)),
        ):
            folder.list()

    def test_a_share_that_is_not_there_is_refused(
        self, smb_location: SmbLocation, credentials: SmbCredentials
    ):
        with (
            SmbFolder(replace(smb_location, share="nothing"), credentials) as folder,
            pytest.raises(ShareRefused, match="no such share"),
        ):
            folder.list()

    def test_nobody_listening_is_told_at_once(self, credentials: SmbCredentials):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        location = SmbLocation("127.0.0.1", "store", port=port)
        start = time.monotonic()
        with SmbFolder(location, credentials) as folder, pytest.raises(ShareUnreachable) as caught:
            folder.list()
        assert caught.value.retryable
        assert time.monotonic() - start < 5

    def test_a_host_that_speaks_something_else_is_unreachable(self, credentials: SmbCredentials):
        def answer(listener: socket.socket) -> None:
            with suppress(OSError):
                for _ in range(3):
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(1000)
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=answer, args=(listener,))
            thread.start()
            location = SmbLocation("127.0.0.1", "store", port=listener.getsockname()[1])
            with SmbFolder(location, credentials) as folder, pytest.raises(ShareUnreachable):
                folder.list()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    def test_a_folder_without_write_permission_refuses(
        self, tmp_path: Path, credentials: SmbCredentials
    ):
        with (
            server_of_its_own(tmp_path, options={"store": "read only = yes"}) as server,
            folder_of(server, credentials) as folder,
            pytest.raises(ShareRefused),
        ):
            folder.create("x")

    def test_a_name_that_windows_does_not_allow_is_an_input_error(self, smb_folder: SmbFolder):
        with pytest.raises(InputError):
            smb_folder.create("what?")

    def test_a_link_out_of_the_share_is_not_followed(
        self, samba: SambaServer, smb_folder: SmbFolder, tmp_path: Path
    ):
        (tmp_path / "secret").write_bytes(b"x")
        below = samba.shares["store"] / smb_folder.location.rsplit("/", 1)[-1]
        (below / "link").symlink_to(tmp_path / "secret")
        with pytest.raises((ShareError, FileMissing)):
            smb_folder.open_read("link")

    def test_a_closed_folder_is_not_used_again(self, smb_folder: SmbFolder):
        smb_folder.close()
        with pytest.raises(ShareError, match="closed"):
            smb_folder.list()


class TestLocks:
    def test_a_file_that_another_client_holds_alone_is_locked(self, smb_folder: SmbFolder):
        fill(smb_folder, "gold.vhdx", b"x")
        location = SmbLocation.parse(smb_folder.location)
        path = rf"\\{location.host}\{location.share}\{location.folder}\gold.vhdx"
        login = {"username": USER, "password": PASSWORD, "port": location.port}
        try:
            with smbclient.open_file(path, "rb", share_access="", **login):
                with pytest.raises(FileLocked):
                    smb_folder.open_read("gold.vhdx")
                assert smb_folder.stat("gold.vhdx") is not None
            with smbclient.open_file(path, "rb", share_access="rwd", **login):
                smb_folder.open_read("gold.vhdx", deny_write=True).close()
            with smbclient.open_file(path, "r+b", share_access="rwd", **login):
                with pytest.raises(FileLocked):
                    smb_folder.open_read("gold.vhdx", deny_write=True)
                smb_folder.open_read("gold.vhdx").close()
            with (
                smb_folder.open_read("gold.vhdx", deny_write=True),
                pytest.raises(OSError, match="used by another process"),
            ):
                smbclient.open_file(path, "r+b", share_access="rwd", **login)
        finally:
            smbclient.delete_session(location.host, port=location.port)

    def test_a_change_by_another_client_shows_in_the_identity(self, smb_folder: SmbFolder):
        fill(smb_folder, "gold.vhdx", b"first")
        location = SmbLocation.parse(smb_folder.location)
        path = rf"\\{location.host}\{location.share}\{location.folder}\gold.vhdx"
        login = {"username": USER, "password": PASSWORD, "port": location.port}
        with smb_folder.open_read("gold.vhdx") as file:
            before = file.identity()
            try:
                with smbclient.open_file(path, "r+b", share_access="rwd", **login) as other:
                    other.write(b"second, longer")
            finally:
                smbclient.delete_session(location.host, port=location.port)
            after = file.identity()
        assert after.size_bytes == 14
        assert after.last_write_ns > before.last_write_ns
        assert after.file_id == before.file_id

    def test_the_identity_does_not_depend_on_the_servers_port(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        fill(smb_folder, "gold.vhdx", b"x")
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port) as tap,
            SmbFolder(through(tap, location), credentials) as other,
            other.open_read("gold.vhdx") as far,
            smb_folder.open_read("gold.vhdx") as near,
        ):
            assert far.identity() == near.identity()


class TestDrops:
    def test_reading_goes_on_when_the_server_was_killed_and_came_back(
        self, tmp_path: Path, credentials: SmbCredentials
    ):
        data = os.urandom(24 * MIB)
        with (
            server_of_its_own(tmp_path) as server,
            folder_of(server, credentials, patience_seconds=30) as folder,
        ):
            fill(folder, "gold.vhdx", data)
            with folder.open_read("gold.vhdx", deny_write=True) as file:
                before = file.identity()
                read = bytearray()
                for number, (start, piece) in enumerate(file.read_many([(0, len(data))])):
                    assert start == len(read)
                    read += piece
                    if number == 5:
                        server.kill()
                        threading.Timer(1.0, server.start).start()
                assert bytes(read) == data
                assert file.identity() == before

    def test_many_threads_survive_a_cut_connection(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        data = os.urandom(16 * MIB)
        fill(smb_folder, "gold.vhdx", data)
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port) as tap,
            SmbFolder(through(tap, location), credentials) as folder,
            folder.open_read("gold.vhdx") as file,
            ThreadPoolExecutor(16) as pool,
        ):

            def right(number: int) -> bool:
                if number == 20:
                    tap.cut()
                start = number * 77_777 % (15 * MIB)
                return file.read_at(start, MIB) == data[start : start + MIB]

            assert all(pool.map(right, range(64)))

    def test_a_file_that_changed_meanwhile_is_not_read_on(
        self, samba: SambaServer, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        fill(smb_folder, "gold.vhdx", bytes(4 * MIB))
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port) as tap,
            SmbFolder(through(tap, location), credentials) as folder,
            folder.open_read("gold.vhdx") as file,
        ):
            file.read_at(0, 100)
            (samba.shares["store"] / location.folder / "gold.vhdx").write_bytes(bytes(4 * MIB))
            tap.cut()
            with pytest.raises(SourceChanged, match="last_write_ns"):
                file.read_at(0, 100)

    def test_a_file_that_is_gone_meanwhile_is_not_read_on(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        fill(smb_folder, "gold.vhdx", b"x")
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port) as tap,
            SmbFolder(through(tap, location), credentials) as folder,
            folder.open_read("gold.vhdx") as file,
        ):
            smb_folder.rename("gold.vhdx", "elsewhere.vhdx")
            tap.cut()
            with pytest.raises(SourceChanged, match="gone"):
                file.read_at(0, 1)

    def test_a_writer_says_that_its_connection_dropped_and_can_be_opened_again(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port) as tap,
            SmbFolder(through(tap, location), credentials) as folder,
        ):
            writer = folder.create("part")
            writer.write_at(0, b"flushed")
            writer.flush()
            tap.cut()
            with pytest.raises(ShareUnreachable):
                writer.write_at(7, bytes(3 * MIB))
            with pytest.raises(ShareUnreachable):
                writer.flush()
            writer.close()
            with folder.open_write("part") as again:
                assert again.read_at(0, 7) == b"flushed"
                again.write_at(7, b"!")

    def test_a_server_that_stays_away_is_given_up_on(
        self, tmp_path: Path, credentials: SmbCredentials
    ):
        with (
            server_of_its_own(tmp_path) as server,
            folder_of(server, credentials, patience_seconds=1.0) as folder,
        ):
            fill(folder, "gold.vhdx", bytes(MIB))
            with folder.open_read("gold.vhdx") as file:
                server.kill()
                start = time.monotonic()
                with pytest.raises(ShareUnreachable):
                    file.read_at(0, MIB)
                assert time.monotonic() - start < 20

    def test_a_server_that_hangs_does_not_hang_us(
        self, tmp_path: Path, credentials: SmbCredentials, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(StrictConnection, "answer_seconds", 1.0)
        monkeypatch.setattr(StrictConnection, "connect_seconds", 1.0)
        with (
            server_of_its_own(tmp_path) as server,
            folder_of(server, credentials, patience_seconds=0.1) as folder,
        ):
            fill(folder, "gold.vhdx", b"patient")
            group = os.getpgid(server.pid)
            with folder.open_read("gold.vhdx") as file:
                os.killpg(group, signal.SIGSTOP)
                try:
                    with pytest.raises(ShareUnreachable):
                        file.read_at(0, 7)
                finally:
                    os.killpg(group, signal.SIGCONT)
                assert file.read_at(0, 7) == b"patient"


class TestWire:
    MARK = b"every guest has its secrets" * 50

    def wire_of(self, location: SmbLocation, credentials: SmbCredentials) -> bytes:
        with WireTap(location.port) as tap:
            with SmbFolder(through(tap, location), credentials) as folder:
                folder.make_folder("")
                folder.delete("x")
                fill(folder, "x", self.MARK)
                assert folder.read_bytes("x") == self.MARK
            return bytes(tap.seen)

    def test_without_encryption_the_wire_shows_the_data(
        self, smb_location: SmbLocation, credentials: SmbCredentials
    ):
        assert self.MARK in self.wire_of(smb_location, credentials)

    def test_with_encryption_the_wire_shows_nothing(
        self, smb_location: SmbLocation, credentials: SmbCredentials
    ):
        wire = self.wire_of(smb_location, replace(credentials, encrypt=True))
        assert len(wire) > 2 * len(self.MARK)
        assert self.MARK not in wire

    @pytest.mark.parametrize("section", ["global", "store"])
    def test_a_server_that_demands_encryption_gets_it(
        self, tmp_path: Path, credentials: SmbCredentials, section: str
    ):
        options = {section: "server smb encrypt = required"}
        with server_of_its_own(tmp_path, options=options) as server:
            location = SmbLocation.parse(server.location("store"))
            assert self.MARK not in self.wire_of(location, credentials)

    @pytest.mark.parametrize("signed", [True, False])
    def test_signing_can_be_left_to_the_server(
        self, tmp_path: Path, credentials: SmbCredentials, *, signed: bool
    ):
        packets: list[bytes] = []

        def keep(packet: bytes) -> bytes:
            packets.append(packet[:64])
            return packet

        with server_of_its_own(tmp_path, options={"global": "server signing = auto"}) as server:
            location = SmbLocation.parse(server.location("store"))
            with (
                WireTap(location.port, keep) as tap,
                SmbFolder(
                    through(tap, location), replace(credentials, require_signing=signed)
                ) as folder,
            ):
                fill(folder, "x", self.MARK)
                assert folder.read_bytes("x") == self.MARK
        reads = [packet for packet in packets if packet[12] == READ_COMMAND]
        assert reads
        assert all(bool(packet[16] & SIGNED_FLAG) is signed for packet in reads)

    def test_an_answer_whose_signature_was_cut_off_is_refused(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        fill(smb_folder, "gold.vhdx", b"genuine")
        changed = []

        def strip(packet: bytes) -> bytes:
            if packet[12] != READ_COMMAND or packet[:4] != b"\xfeSMB":
                return packet
            flags = int.from_bytes(packet[16:20], "little") & ~SIGNED_FLAG
            forged = packet[:16] + flags.to_bytes(4, "little") + packet[20:48] + bytes(16)
            changed.append(1)
            return forged + packet[64:].replace(b"genuine", b"forged!")

        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port, strip) as tap,
            SmbFolder(through(tap, location), credentials, patience_seconds=0) as folder,
            folder.open_read("gold.vhdx") as file,
        ):
            with pytest.raises(ShareUnreachable, match="neither encrypted nor signed"):
                file.read_at(0, 7)
            assert changed

    def test_an_answer_that_was_changed_is_refused(
        self, smb_folder: SmbFolder, credentials: SmbCredentials
    ):
        fill(smb_folder, "gold.vhdx", b"genuine")
        location = SmbLocation.parse(smb_folder.location)
        with (
            WireTap(location.port, lambda p: p.replace(b"genuine", b"forged!")) as tap,
            SmbFolder(through(tap, location), credentials, patience_seconds=0) as folder,
            folder.open_read("gold.vhdx") as file,
            pytest.raises(ShareUnreachable, match="signature"),
        ):
            file.read_at(0, 7)


class TestSpace:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "small"
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path],
            check=False,
            capture_output=True,
        )
        if done.returncode:
            pytest.skip("mounting needs root")
        yield path
        subprocess.run(["umount", "--lazy", path], check=True)

    def test_a_full_disk_is_told_as_such(
        self, tmp_path: Path, small_disk: Path, credentials: SmbCredentials
    ):
        with (
            server_of_its_own(tmp_path, small_disk) as server,
            folder_of(server, credentials) as folder,
        ):
            free = folder.free_bytes()
            assert 6 * MIB < free <= 8 * MIB
            with folder.create("part") as file:
                file.write_at(0, os.urandom(MIB))
                with pytest.raises(ShareFull) as caught:
                    file.write_at(MIB, os.urandom(16 * MIB))
            assert "part" in caught.value.message
            folder.delete("part")
            assert folder.free_bytes() == free

    def test_a_small_file_that_does_not_fit_leaves_nothing(
        self, tmp_path: Path, small_disk: Path, credentials: SmbCredentials
    ):
        with (
            server_of_its_own(tmp_path, small_disk) as server,
            folder_of(server, credentials) as folder,
        ):
            folder.write_bytes("record", b"old")
            with pytest.raises(ShareFull):
                folder.write_bytes("record", os.urandom(9 * MIB))
            assert folder.read_bytes("record") == b"old"
            assert [entry.name for entry in folder.list()] == ["record"]

    def test_more_holes_than_one_answer_tells_are_told(
        self, samba: SambaServer, smb_folder: SmbFolder
    ):
        with smb_folder.create("holes.vhdx") as file:
            file.set_sparse()
        below = samba.shares["store"] / smb_folder.location.rsplit("/", 1)[-1]
        count, step = 9000, 16384
        with (below / "holes.vhdx").open("r+b") as local:
            for number in range(count):
                local.seek(number * step)
                local.write(b"x" * 4096)
        with smb_folder.open_read("holes.vhdx") as file:
            ranges = file.allocated_ranges()
        assert [start for start, _ in ranges] == [number * step for number in range(count)]

    def test_without_the_sparse_mark_the_whole_file_counts(self, smb_folder: SmbFolder):
        with smb_folder.create("dense") as file:
            file.set_size(4 * MIB)
        with smb_folder.open_read("dense") as file:
            assert file.allocated_ranges() == [(0, 4 * MIB)]


class TestManners:
    def test_nothing_stays_behind_when_a_folder_is_closed(
        self, smb_location: SmbLocation, credentials: SmbCredentials
    ):
        def standing() -> tuple[int, int]:
            return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

        before = standing()
        for _ in range(3):
            with SmbFolder(smb_location, credentials) as folder:
                folder.make_folder("")
                folder.create("left-open")
            with SmbFolder(smb_location, credentials) as folder:
                folder.delete("left-open")
            with (
                SmbFolder(smb_location, replace(credentials, password="no")) as folder,
                suppress(ShareLoginRefused),
            ):
                folder.list()
        assert standing() == before

    def test_no_error_log_or_repr_shows_the_password(
        self,
        smb_location: SmbLocation,
        credentials: SmbCredentials,
        caplog: pytest.LogCaptureFixture,
    ):
        caplog.set_level(logging.DEBUG)
        said = [repr(credentials), str(credentials), repr(smb_location), f"{credentials!r:>5}"]
        for given in (
            credentials,
            replace(credentials, username="nobody"),
            replace(credentials, auth="kerberos"),
        ):
            with SmbFolder(smb_location, given) as folder:
                said += [repr(folder), str(vars(folder))]
                try:
                    folder.open_read("nothing")
                except ImageportError as error:
                    cause: BaseException | None = error
                    while cause is not None:
                        said += [repr(cause), str(cause)]
                        cause = cause.__cause__
                    said.append(str(error.as_dict()))
        said += [record.getMessage() for record in caplog.records]
        assert len(said) > 12
        assert not [text for text in said if PASSWORD in text]

    def test_sixty_four_threads_with_large_reads_wait_for_credits(self, smb_folder: SmbFolder):
        data = os.urandom(8 * MIB)
        fill(smb_folder, "gold.vhdx", data)
        with smb_folder.open_read("gold.vhdx") as file, ThreadPoolExecutor(64) as pool:
            whole = pool.map(lambda _: file.read_at(0, 8 * MIB) == data, range(64))
            assert all(whole)

    def test_the_dialect_is_smb_3_and_a_piece_is_a_mebibyte(
        self, smb_location: SmbLocation, credentials: SmbCredentials
    ):
        session = SmbSession(smb_location, credentials)
        try:
            assert session.piece_bytes == MIB
            assert not session.encrypted
            assert session.alive
        finally:
            session.close()
        assert not session.alive
