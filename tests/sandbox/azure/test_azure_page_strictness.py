# References: Azure Storage, Put Page, Put Page From URL, Get Page Ranges.
"""Where the sandbox's page endpoint is as strict as Azure, and Azurite is not."""

from __future__ import annotations

import base64
import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient

from imageport.model import MIB
from imageport.sandbox.azure.page_checksums import crc64
from tests.sandbox.azure.azurite_faces import (
    BLOB_BYTES,
    SIZE,
    OwnFace,
    ask,
    page_client,
    put_page,
)

PAGE = bytes(range(256)) * 2


@pytest.fixture
def face(tmp_path: Path) -> Iterator[OwnFace]:
    own = OwnFace(tmp_path)
    yield own
    own.close()


@pytest.fixture
def url(face: OwnFace) -> str:
    return face.writable_url()


@pytest.fixture
def pages(url: str) -> Iterator[BlobClient]:
    with page_client(url) as client:
        yield client


def listed(client: BlobClient) -> list[tuple[int, int]]:
    return [(item.start, item.end) for item in client.list_page_ranges()]


def test_a_write_takes_four_mebibytes_and_not_a_page_more(url: str, pages: BlobClient) -> None:
    assert put_page(url, f"bytes=0-{4 * MIB - 1}", bytes(4 * MIB))[0] == 201
    larger = put_page(url, f"bytes=0-{4 * MIB + 511}", bytes(4 * MIB + 512))
    assert larger == (413, "RequestBodyTooLarge")
    assert listed(pages) == [(0, 4 * MIB - 1)]


def test_a_write_across_the_end_is_refused(url: str, pages: BlobClient) -> None:
    across = f"bytes={BLOB_BYTES - 512}-{BLOB_BYTES + 511}"
    assert put_page(url, across, PAGE * 2) == (416, "InvalidPageRange")
    asked = {"x-ms-range": f"bytes={BLOB_BYTES}-{BLOB_BYTES + 511}"}
    assert ask(url, "GET", asked)[0] == 416
    assert listed(pages) == []


def test_a_wrong_md5_is_refused_and_nothing_is_written(url: str, pages: BlobClient) -> None:
    right = base64.b64encode(hashlib.md5(PAGE, usedforsecurity=False).digest()).decode()
    wrong = base64.b64encode(bytes(16)).decode()
    assert put_page(url, "bytes=0-511", PAGE, Content_MD5=wrong) == (400, "Md5Mismatch")
    assert listed(pages) == []
    assert put_page(url, "bytes=0-511", PAGE, Content_MD5=right)[0] == 201
    pages.upload_page(PAGE, offset=512, length=512, validate_content=True)
    assert listed(pages) == [(0, 1023)]


def test_the_crc64_is_that_of_the_catalogue_of_crcs() -> None:
    assert crc64(b"123456789") == 0xAE8B14860A799888  # CRC-64/NVME's check value


def test_a_wrong_crc64_is_refused_and_nothing_is_written(url: str, pages: BlobClient) -> None:
    right = base64.b64encode(crc64(PAGE).to_bytes(8, "little")).decode()
    wrong = base64.b64encode(bytes(8)).decode()
    refused = put_page(url, "bytes=0-511", PAGE, x_ms_content_crc64=wrong)
    assert refused == (400, "Crc64Mismatch")
    assert listed(pages) == []
    assert put_page(url, "bytes=0-511", PAGE, x_ms_content_crc64=right)[0] == 201


def test_an_endpoint_may_refuse_checksums(face: OwnFace, url: str) -> None:
    face.knobs.checksum_refused = True
    digest = base64.b64encode(hashlib.md5(PAGE, usedforsecurity=False).digest()).decode()
    assert put_page(url, "bytes=0-511", PAGE, Content_MD5=digest) == (400, "UnsupportedHeader")
    assert put_page(url, "bytes=0-511", PAGE)[0] == 201


@pytest.mark.parametrize(
    ("method", "query", "headers"),
    [
        ("PUT", "", {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": "512"}),
        ("PUT", "comp=properties", {"x-ms-blob-content-length": "512"}),
        ("PUT", "comp=snapshot", {}),
        ("PUT", "comp=lease", {"x-ms-lease-action": "acquire"}),
        ("DELETE", "", {}),
    ],
)
def test_the_blob_of_a_disk_is_not_created_changed_or_deleted(
    url: str, method: str, query: str, headers: dict[str, str]
) -> None:
    status, found, _ = ask(url, method, headers, b"", query)
    assert (status, found["x-ms-error-code"]) == (403, "AuthorizationPermissionMismatch")


def test_a_long_list_of_ranges_comes_in_parts(url: str, pages: BlobClient, face: OwnFace) -> None:
    disk = face.store.by_account(url.split("/")[3])
    assert disk is not None
    disk.pages.replace((at * 1024, at * 1024 + 512) for at in range(10_001))
    _, _, first = ask(url, "GET", {}, query="comp=pagelist")
    assert first.count(b"<PageRange>") == 10_000
    assert f"<NextMarker>{10_000 * 1024}</NextMarker>".encode() in first
    found = listed(pages)
    assert (len(found), found[0], found[-1]) == (10_001, (0, 511), (10_240_000, 10_240_511))


def test_pages_are_copied_from_another_signed_url(face: OwnFace, pages: BlobClient) -> None:
    parent = face.new_disk(PAGE * 4)
    source = face.grant(parent, "Read")
    pages.upload_pages_from_url(source, 4096, 1024, 512)
    assert listed(pages) == [(4096, 5119)]
    assert pages.download_blob(offset=4096, length=1024).readall() == PAGE * 2
    md5 = hashlib.md5(PAGE, usedforsecurity=False).digest()
    pages.upload_pages_from_url(source, 0, 512, 0, source_content_md5=bytearray(md5))
    with pytest.raises(HttpResponseError) as error:
        pages.upload_pages_from_url(source, 512, 512, 0, source_content_md5=bytearray(16))
    assert error.value.status_code == 400
    assert listed(pages) == [(0, 511), (4096, 5119)]


def test_a_copy_needs_a_source_that_may_be_read(face: OwnFace, pages: BlobClient) -> None:
    parent = face.new_disk(PAGE)
    source = face.grant(parent, "Read")
    with pytest.raises(HttpResponseError) as error:
        pages.upload_pages_from_url(source.replace("sig=", "sig=x"), 0, 512, 0)
    assert error.value.status_code == 403
    face.store.revoke(parent)
    with pytest.raises(HttpResponseError) as error:
        pages.upload_pages_from_url(source, 0, 512, 0)
    assert error.value.status_code == 403
    assert listed(pages) == []


def test_a_copy_takes_four_mebibytes_and_not_a_page_more(face: OwnFace, pages: BlobClient) -> None:
    source = face.grant(face.new_disk(), "Read")
    pages.upload_pages_from_url(source, 0, 4 * MIB, 0)
    with pytest.raises(HttpResponseError) as error:
        pages.upload_pages_from_url(source, 4 * MIB, 4 * MIB + 512, 0)
    assert error.value.status_code == 413


def test_a_read_url_shows_the_disk_as_a_vhd(face: OwnFace) -> None:
    with page_client(face.grant(face.new_disk(PAGE), "Read")) as client:
        assert client.get_blob_properties().size == BLOB_BYTES
        assert listed(client) == [(0, 511), (SIZE, BLOB_BYTES - 1)]
        whole = client.download_blob().readall()
    assert whole[:512] == PAGE
    assert whole[512:SIZE] == bytes(SIZE - 512)
    assert whole[SIZE : SIZE + 8] == b"conectix"


def test_the_signed_url_tells_neither_time_nor_permission(url: str) -> None:
    query = url.partition("?")[2]
    names = [item.partition("=")[0] for item in query.split("&")]
    assert names == ["sv", "sr", "si", "sig"]


def test_a_revoked_url_does_nothing(face: OwnFace) -> None:
    disk = face.new_disk(PAGE)
    url = face.grant(disk, "Read")
    assert ask(url, "GET", {"x-ms-range": "bytes=0-511"})[0] == 206
    face.store.revoke(disk)
    status, headers, body = ask(url, "GET", {"x-ms-range": "bytes=0-511"})
    assert (status, headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    assert url.partition("sig=")[2].encode() not in body


def test_a_url_is_not_valid_before_its_time_on_the_servers_clock(face: OwnFace) -> None:
    face.knobs.clock_skew_seconds = 60
    url = face.writable_url()
    assert put_page(url, "bytes=0-511", PAGE) == (403, "AuthenticationFailed")
    face.knobs.clock_skew_seconds = 0
    assert put_page(url, "bytes=0-511", PAGE)[0] == 201


def test_a_faster_writer_is_told_that_the_server_is_busy(face: OwnFace, url: str) -> None:
    face.knobs.mib_per_second = 1
    answers = [put_page(url, f"bytes=0-{4 * MIB - 1}", bytes(4 * MIB)) for _ in range(4)]
    assert (503, "ServerBusy") in answers
    assert answers[0] == (201, "")


def test_a_write_that_timed_out_may_have_been_carried_out(face: OwnFace, pages: BlobClient) -> None:
    face.knobs.operation_timed_out_rate = 1.0
    for at in range(20):
        with pytest.raises(HttpResponseError) as error:
            pages.upload_page(PAGE, offset=at * 1024, length=512)
        assert error.value.status_code == 500
    assert 0 < len(listed(pages)) < 20


def test_any_request_may_fail(face: OwnFace, url: str) -> None:
    face.knobs.fault_rate = 1.0
    assert put_page(url, "bytes=0-511", PAGE) == (500, "InternalError")
    assert ask(url, "HEAD", {})[0] == 500


def test_a_changed_blob_has_another_tag(url: str, pages: BlobClient) -> None:
    before = pages.get_blob_properties().etag
    assert put_page(url, "bytes=0-511", PAGE, If_Match=str(before))[0] == 201
    assert pages.get_blob_properties().etag != before
    assert put_page(url, "bytes=0-511", PAGE, If_Match=str(before)) == (412, "ConditionNotMet")


def test_a_write_tells_its_length(url: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        headers = {"x-ms-page-write": "update", "x-ms-range": "bytes=0-511"}
        target = f"{parts.path}?{parts.query}&comp=page"
        connection.request("PUT", target, iter([PAGE]), headers, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, answer.read()[-8:]) == (411, b"</Error>")
        # The connection is of use after the refusal.
        connection.request("HEAD", f"{parts.path}?{parts.query}")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def test_a_body_is_cut_off_when_access_ends(face: OwnFace) -> None:
    disk = face.new_disk()
    with page_client(face.grant(disk, "Read")) as client:
        download = client.download_blob(max_concurrency=1)
        assert len(download.readall()) == BLOB_BYTES
    parts = urlsplit(face.grant(disk, "Read"))
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        answer.read(4096)
        face.store.revoke(disk)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
    finally:
        connection.close()
