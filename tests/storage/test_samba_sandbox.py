"""The file server of the embedded site."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imageport.errors import EngineFailed
from imageport.sandbox.samba import SambaServer
from imageport.storage.locate import SmbCredentials, open_folder

LOGIN = SmbCredentials("imageport", "one")


def server(root: Path, password: str = LOGIN.password) -> SambaServer:
    return SambaServer(root / "server", {"a": root / "a", "b": root / "b"}, "imageport", password)


def test_two_servers_run_at_once_and_a_login_is_good_for_one(tmp_path: Path):
    with server(tmp_path / "x") as first, server(tmp_path / "y", "two") as second:
        assert first.port != second.port
        with open_folder(first.location("a"), LOGIN) as folder:
            folder.write_bytes("hello", b"x")
        assert (tmp_path / "x" / "a" / "hello").read_bytes() == b"x"
        with open_folder(second.location("b"), SmbCredentials("imageport", "two")) as folder:
            assert folder.list() == []


def test_a_server_keeps_its_port_and_its_files_over_restarts(tmp_path: Path):
    with server(tmp_path) as first:
        port = first.port
        with open_folder(first.location("a"), LOGIN) as folder:
            folder.write_bytes("kept", b"x")
    with server(tmp_path) as second:
        assert second.port == port
        second.kill()
        second.start()
        assert second.port == port
        with open_folder(second.location("a"), LOGIN) as folder:
            assert folder.read_bytes("kept") == b"x"


def test_stopping_leaves_no_process_and_may_be_done_twice(tmp_path: Path):
    running = server(tmp_path)
    running.start()
    folder = open_folder(running.location("a"), LOGIN)
    folder.list()
    running.stop()
    running.stop()
    folder.close()
    found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert found.stdout == b""


def test_a_foreign_client_gets_in_with_the_password_only(tmp_path: Path):
    with server(tmp_path) as running:

        def smbclient(password: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [
                    "smbclient", "-s", "/dev/null", "-p", str(running.port), "-m", "SMB3",
                    "-U", f"imageport%{password}", "//127.0.0.1/a", "-c", "ls",
                ],
                capture_output=True, check=False, timeout=60,
            )  # fmt: skip

        assert smbclient("one").returncode == 0
        assert smbclient("wrong").returncode != 0
        assert b"LOGON_FAILURE" in smbclient("").stdout


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path):
    broken = SambaServer(tmp_path, {"a": tmp_path / "a"}, "imageport", "one")
    (tmp_path / "lock").write_text("in the way")
    with pytest.raises((EngineFailed, FileExistsError)):
        broken.start()


def test_an_unknown_share_has_no_location(tmp_path: Path):
    with pytest.raises(KeyError):
        server(tmp_path).location("c")
