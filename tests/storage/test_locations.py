"""From what an operator writes to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.errors import InputError
from imageport.storage.local import LocalFolder
from imageport.storage.locate import (
    SmbCredentials,
    SmbLocation,
    credentials_from_environment,
    open_folder,
    split_file,
)
from imageport.storage.smb import SmbFolder

CREDENTIALS = SmbCredentials("u", "p")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smb://files/store", SmbLocation("files", "store")),
        ("smb://files/store/", SmbLocation("files", "store")),
        ("SMB://files:1445/store/a/b c", SmbLocation("files", "store", "a/b c", 1445)),
        ("smb://10.0.0.1/vdisk$", SmbLocation("10.0.0.1", "vdisk$")),
        ("smb://[fd00::1]:1445/store", SmbLocation("fd00::1", "store", "", 1445)),
        (r"\\files\store\a\b", SmbLocation("files", "store", "a/b")),
        ("smb://files/store/a@b", SmbLocation("files", "store", "a@b")),
    ],
)
def test_a_share_is_read_from_an_address_or_unc_path(text: str, expected: SmbLocation):
    assert SmbLocation.parse(text) == expected
    assert SmbLocation.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "smb://files", "smb://files/", "smb:///store", "smb://files:0/store",
        "smb://files:99999/store", "smb://files:x/store", "smb://files/store/../other",
        "smb://files/store//x", "http://files/store", "files/store", "",
    ],
)  # fmt: skip
def test_what_names_no_share_is_refused(text: str):
    with pytest.raises(InputError, match="Bad share"):
        SmbLocation.parse(text)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(InputError) as caught:
        open_folder("smb://user:Hunter2@files/store", CREDENTIALS)
    assert "Hunter2" not in str(caught.value) + repr(caught.value) + str(caught.value.as_dict())


def test_an_unknown_way_to_log_in_is_refused():
    with pytest.raises(InputError, match="kerberos"):
        SmbCredentials("u", "p", auth="basic")


def test_a_path_is_a_local_folder(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"x")
    folder = open_folder(str(tmp_path))
    assert isinstance(folder, LocalFolder)
    assert folder.read_bytes("x") == b"x"
    with pytest.raises(InputError, match="https://"):
        open_folder("https://files/store")


def test_a_share_connects_when_it_is_used_not_before():
    folder = open_folder("smb://no-such-host.invalid/store", CREDENTIALS)
    assert isinstance(folder, SmbFolder)
    assert folder.location == "smb://no-such-host.invalid/store"
    folder.close()


def test_a_share_takes_user_and_password_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IMAGEPORT_SMB_USER", raising=False)
    assert credentials_from_environment() is None
    with pytest.raises(InputError) as caught:
        open_folder("smb://files/store")
    assert "IMAGEPORT_SMB_USER" in caught.value.hint
    monkeypatch.setenv("IMAGEPORT_SMB_USER", "golden")
    monkeypatch.setenv("IMAGEPORT_SMB_PASSWORD", "secret")
    monkeypatch.setenv("IMAGEPORT_SMB_DOMAIN", "CORP")
    found = credentials_from_environment()
    assert found == SmbCredentials("golden", "secret", "CORP")
    assert found.account == "CORP\\golden"
    open_folder("smb://files/store").close()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("smb://files/store/gold.vhdx", ("smb://files/store", "gold.vhdx")),
        ("smb://files:1445/store/a/gold.vhdx", ("smb://files:1445/store/a", "gold.vhdx")),
        (r"\\files\store\gold.vhdx", (r"\\files\store", "gold.vhdx")),
        ("/images/gold.vhdx", ("/images", "gold.vhdx")),
        ("/gold.vhdx", ("/", "gold.vhdx")),
        ("gold.vhdx", (".", "gold.vhdx")),
        ("images/gold.vhdx", ("images", "gold.vhdx")),
    ],
)
def test_a_files_location_is_split_into_folder_and_name(location: str, expected: tuple[str, str]):
    assert split_file(location) == expected


@pytest.mark.parametrize(
    "location", ["smb://files/gold.vhdx", "smb://files/store/", "/images/", ""]
)
def test_a_location_without_a_file_is_refused(location: str):
    with pytest.raises(InputError):
        split_file(location)
