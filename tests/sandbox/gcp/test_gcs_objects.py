"""What a bucket does with objects, as the emulator has it and as an emulator of others has it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.gcp.fake_gcs import fake_gcs_bucket
from tests.sandbox.gcp.gcs_lab import Bucket, GcsLab, crc32c_text

DATA = bytes(range(256)) * 8
# Building it takes a minute and a half of a core: its second opinion is heard in the long form.
FACES = ["ours", pytest.param("fake-gcs-server", marks=pytest.mark.slow)]


@pytest.fixture(params=FACES)
def bucket(request: pytest.FixtureRequest, tmp_path: Path, gcp_keys: Path) -> Iterator[Bucket]:
    """Give an empty bucket of either emulator."""
    if request.param == "fake-gcs-server":
        yield fake_gcs_bucket()
        return
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        yield lab
    finally:
        lab.close()


def test_a_written_object_is_read_back_with_its_checksums(bucket: Bucket) -> None:
    answer = bucket.put("folder/object", DATA)
    assert answer.status == 200
    found = bucket.stat("folder/object").json()
    assert found["name"] == "folder/object"
    assert found["size"] == str(len(DATA))
    assert found["crc32c"] == crc32c_text(DATA)
    digest = hashlib.md5(DATA, usedforsecurity=False).digest()
    assert found["md5Hash"] == base64.b64encode(digest).decode()
    assert bucket.read("folder/object").body == DATA


def test_metadata_come_with_a_multipart_upload(bucket: Bucket) -> None:
    document = {"name": "with-metadata", "metadata": {"crc32": "00c0ffee"}}
    assert bucket.put_related(document, DATA).status == 200
    assert bucket.stat("with-metadata").json()["metadata"] == {"crc32": "00c0ffee"}
    assert bucket.read("with-metadata").body == DATA


def test_line_ends_and_dashes_among_the_bytes_are_kept(bucket: Bucket) -> None:
    data = b"a--x--\r\n\r\n--\r\nx--\r\n\r\n"
    assert bucket.put_related({"name": "odd"}, data).status == 200
    assert bucket.read("odd").body == data


@pytest.mark.parametrize(
    ("span", "first", "last"), [("0-9", 0, 9), ("100-", 100, 2047), ("-5", 2043, 2047)]
)
def test_a_range_is_read_alone(bucket: Bucket, span: str, first: int, last: int) -> None:
    bucket.put("ranged", DATA)
    answer = bucket.read("ranged", {"Range": f"bytes={span}"})
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert answer.body == DATA[first : last + 1]


def test_an_object_that_is_not_there_is_not_found(bucket: Bucket) -> None:
    assert bucket.stat("missing").status == 404
    assert bucket.read("missing").status == 404
    assert bucket.ask("DELETE", bucket.at("missing")).status == 404


def test_a_deleted_object_is_gone(bucket: Bucket) -> None:
    bucket.put("short-lived", DATA)
    assert bucket.ask("DELETE", bucket.at("short-lived")).status in {200, 204}
    assert bucket.stat("short-lived").status == 404


def test_who_asks_that_nothing_be_there_overwrites_nothing(bucket: Bucket) -> None:
    assert bucket.put("once", b"first", ifGenerationMatch=0).status == 200
    assert bucket.put("once", b"second", ifGenerationMatch=0).status == 412
    assert bucket.read("once").body == b"first"


def test_a_generation_is_replaced_only_while_it_is_the_one(bucket: Bucket) -> None:
    before = bucket.put("changing", b"1").json()["generation"]
    assert bucket.put("changing", b"2", ifGenerationMatch=before).status == 200
    assert bucket.put("changing", b"3", ifGenerationMatch=before).status == 412
    assert bucket.read("changing").body == b"2"


def test_metadata_are_patched_by_name(bucket: Bucket) -> None:
    bucket.put_related({"name": "patched", "metadata": {"kept": "1", "changed": "1"}}, DATA)
    body = b'{"metadata": {"changed": "2"}}'
    headers = {"Content-Type": "application/json"}
    answer = bucket.ask("PATCH", bucket.at("patched"), body, headers)
    assert answer.status == 200
    assert bucket.stat("patched").json()["metadata"] == {"kept": "1", "changed": "2"}


def test_composed_objects_hold_their_sources_in_order(bucket: Bucket) -> None:
    for name in ("b", "a"):
        bucket.put(name, name.encode() * 1000)
    answer = bucket.compose("joined", [{"name": "b"}, {"name": "a"}, {"name": "b"}])
    assert answer.status == 200
    data = b"b" * 1000 + b"a" * 1000 + b"b" * 1000
    assert bucket.read("joined").body == data
    assert bucket.stat("joined").json()["crc32c"] == crc32c_text(data)


def test_a_compose_without_its_sources_makes_nothing(bucket: Bucket) -> None:
    bucket.put("there", DATA)
    # A 404 of ours; the other one says 500, which is no example.
    assert bucket.compose("joined", [{"name": "there"}, {"name": "lost"}]).status in {404, 500}
    assert bucket.stat("joined").status == 404


def test_a_list_is_sorted_and_cut_to_a_prefix(bucket: Bucket) -> None:
    for name in ("p/3", "p/1", "q/1", "p/2"):
        bucket.put(name, b"x")
    found = bucket.list(prefix="p/").json()["items"]
    assert [item["name"] for item in found] == ["p/1", "p/2", "p/3"]


def test_a_list_goes_on_page_by_page(bucket: Bucket) -> None:
    names = [f"p/{index:02d}" for index in range(5)]
    for name in names:
        bucket.put(name, b"x")
    seen, query = [], {"prefix": "p/", "maxResults": "2"}
    while True:
        page = bucket.list(**query).json()
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        if "nextPageToken" not in page:
            break
        query["pageToken"] = page["nextPageToken"]
    assert seen == names


def test_a_delimiter_shows_folders(bucket: Bucket) -> None:
    for name in ("p/a/1", "p/a/2", "p/b", "p/c/1"):
        bucket.put(name, b"x")
    found = bucket.list(prefix="p/", delimiter="/").json()
    assert found["prefixes"] == ["p/a/", "p/c/"]
    assert [item["name"] for item in found["items"]] == ["p/b"]


def test_a_list_is_cut_by_names_from_and_to(bucket: Bucket) -> None:
    for name in ("p/1", "p/2", "p/3", "p/4"):
        bucket.put(name, b"x")
    found = bucket.list(prefix="p/", startOffset="p/2", endOffset="p/4").json()["items"]
    assert [item["name"] for item in found] == ["p/2", "p/3"]


def test_a_resumable_upload_becomes_an_object(bucket: Bucket) -> None:
    data = bytes(512 * 1024) + b"end"
    url = bucket.begin("resumed")
    half = 256 * 1024
    answer = bucket.chunk(url, f"0-{half - 1}/*", data[:half])
    assert answer.status == 308
    assert answer.headers["range"] == f"bytes=0-{half - 1}"
    answer = bucket.chunk(url, f"{half}-{len(data) - 1}/{len(data)}", data[half:])
    assert answer.status == 200
    assert answer.json()["crc32c"] == crc32c_text(data)
    assert bucket.read("resumed").body == data
