"""The same files give the same zip, whatever machine packed them."""

import os
import zipfile
from pathlib import Path

import pytest

from imageport.errors import InputError
from imageport.payload import pack_payload


def a_folder(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 1000)
    return root


def test_order_times_and_modes_do_not_count(tmp_path: Path) -> None:
    first = a_folder(tmp_path / "a", ["ena/ena.sys", "ena/ena.inf", "b.txt"])
    second = a_folder(tmp_path / "b", ["b.txt", "ena/ena.inf", "ena/ena.sys"])
    os.utime(second / "b.txt", (1, 1))
    (second / "b.txt").chmod(0o700)
    digests = {pack_payload(folder, tmp_path / "x.zip") for folder in (first, second)}
    assert len(digests) == 1


def test_a_name_or_a_byte_counts(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", ["one", "two"])
    before = pack_payload(folder, tmp_path / "x.zip")
    (folder / "one").rename(folder / "three")
    renamed = pack_payload(folder, tmp_path / "x.zip")
    (folder / "two").write_bytes(b"other")
    changed = pack_payload(folder, tmp_path / "x.zip")
    assert len({before, renamed, changed}) == 3


def test_what_comes_out_is_what_went_in(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", ["ena/ena.sys", "b.txt"])
    pack_payload(folder, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "b.txt": (folder / "b.txt").read_bytes(),
            "ena/ena.sys": (folder / "ena/ena.sys").read_bytes(),
        }


def test_a_link_is_refused_because_it_could_name_any_file(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "a", ["one"])
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="a link"):
        pack_payload(folder, tmp_path / "x.zip")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 files"):
        pack_payload(tmp_path, tmp_path / "x.zip")
