# References: Azure Storage, Put Page, Get Page Ranges, Get Blob, Put Blob, List Blobs.
"""The same statements about the sandbox's blob service and about Azurite."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient

from imageport.model import MIB
from tests.sandbox.azure.azurite_faces import (
    BLOB_BYTES,
    FACES,
    Face,
    ask,
    page_client,
    put_page,
    running_face,
)

PAGE = bytes(range(256)) * 2


@pytest.fixture(scope="module", params=FACES)
def face(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    with running_face(request.param, tmp_path_factory.mktemp("face")) as running:
        yield running


@pytest.fixture
def url(face: Face) -> str:
    return face.writable_url()


@pytest.fixture
def pages(url: str) -> Iterator[BlobClient]:
    with page_client(url) as client:
        yield client


def ranges(client: BlobClient, **within: int) -> list[tuple[int, int]]:
    return [(item.start, item.end) for item in client.list_page_ranges(**within)]


def merged(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join what touches: the service may list neighbouring writes as one range or as several."""
    joined: list[tuple[int, int]] = []
    for start, end in found:
        if joined and joined[-1][1] + 1 == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def refused(error: pytest.ExceptionInfo[Any]) -> tuple[int, str]:
    code = error.value.error_code
    return error.value.status_code, str(getattr(code, "value", code))


def test_a_new_page_blob_has_its_size_and_no_pages(pages: BlobClient) -> None:
    found = pages.get_blob_properties()
    assert (found.size, str(found.blob_type.value)) == (BLOB_BYTES, "PageBlob")
    assert ranges(pages) == []


def test_written_pages_are_listed_and_read_back(pages: BlobClient) -> None:
    pages.upload_page(PAGE * 2, offset=1024, length=1024)
    assert ranges(pages) == [(1024, 2047)]
    assert pages.download_blob(offset=1024, length=1024).readall() == PAGE * 2
    assert pages.download_blob(offset=0, length=1024).readall() == bytes(1024)


def test_neighbouring_writes_are_listed_without_gap_or_overlap(pages: BlobClient) -> None:
    pages.upload_page(PAGE, offset=1024, length=512)
    pages.upload_page(PAGE, offset=0, length=512)
    pages.upload_page(PAGE, offset=512, length=512)
    assert merged(ranges(pages)) == [(0, 1535)]


def test_zeros_that_were_written_count_as_written(pages: BlobClient) -> None:
    pages.upload_page(bytes(4096), offset=8192, length=4096)
    assert ranges(pages) == [(8192, 12287)]


def test_a_cleared_page_is_no_longer_listed_and_reads_as_zeros(pages: BlobClient) -> None:
    pages.upload_page(PAGE * 3, offset=0, length=1536)
    pages.clear_page(offset=512, length=512)
    assert ranges(pages) == [(0, 511), (1024, 1535)]
    assert pages.download_blob(offset=0, length=1536).readall() == PAGE + bytes(512) + PAGE


def test_a_clear_may_span_the_whole_blob(pages: BlobClient) -> None:
    pages.upload_page(PAGE, offset=5 * MIB, length=512)
    pages.clear_page(offset=0, length=BLOB_BYTES)
    assert ranges(pages) == []


def test_a_list_for_a_range_is_cut_to_it(pages: BlobClient) -> None:
    pages.upload_page(PAGE * 4, offset=512, length=2048)
    assert ranges(pages, offset=1024, length=512) == [(1024, 1535)]
    assert ranges(pages, offset=4096, length=512) == []


def test_a_range_to_read_is_cut_at_the_end(url: str) -> None:
    asked = {"x-ms-range": f"bytes={BLOB_BYTES - 512}-{BLOB_BYTES + 10_000}"}
    status, headers, body = ask(url, "GET", asked)
    assert (status, len(body)) == (206, 512)
    assert headers["content-range"] == f"bytes {BLOB_BYTES - 512}-{BLOB_BYTES - 1}/{BLOB_BYTES}"


def test_reading_past_the_end_is_refused(url: str) -> None:
    asked = {"x-ms-range": f"bytes={BLOB_BYTES + 512}-{BLOB_BYTES + 1023}"}
    status, headers, _ = ask(url, "GET", asked)
    assert (status, headers["x-ms-error-code"]) == (416, "InvalidRange")
    assert ask(url, "GET", asked, query="comp=pagelist")[0] == 416


def test_writing_past_the_end_is_refused(url: str, pages: BlobClient) -> None:
    assert put_page(url, f"bytes={BLOB_BYTES}-{BLOB_BYTES + 511}", PAGE)[0] == 416
    assert ranges(pages) == []


@pytest.mark.parametrize("range_text", ["bytes=1-512", "bytes=0-510", "bytes=0-512"])
def test_an_unaligned_write_is_refused(url: str, pages: BlobClient, range_text: str) -> None:
    assert put_page(url, range_text, PAGE)[0] == 416
    assert ranges(pages) == []


def test_a_body_of_another_length_than_its_range_is_refused(url: str, pages: BlobClient) -> None:
    assert put_page(url, "bytes=0-1023", PAGE)[0] in {400, 416}
    assert ranges(pages) == []


def test_a_write_without_its_kind_is_refused(url: str) -> None:
    status, _, _ = ask(url, "PUT", {"x-ms-range": "bytes=0-511"}, PAGE, "comp=page")
    assert status == 400


def test_clearing_takes_no_body(url: str) -> None:
    assert put_page(url, "bytes=0-511", PAGE, x_ms_page_write="clear")[0] == 400


def test_a_url_to_read_does_not_write(face: Face) -> None:
    url = face.readable_url()
    assert put_page(url, "bytes=0-511", PAGE) == (403, "AuthorizationPermissionMismatch")
    assert put_page(url, "bytes=0-511", b"", x_ms_page_write="clear")[0] == 403
    with page_client(url) as client:
        assert client.download_blob(offset=0, length=512).readall() == bytes(512)


def test_a_url_whose_time_is_over_does_nothing(face: Face) -> None:
    url = face.expired_url()
    assert put_page(url, "bytes=0-511", PAGE)[0] == 403
    assert ask(url, "GET", {"x-ms-range": "bytes=0-511"})[0] == 403
    assert ask(url, "HEAD", {})[0] == 403


def test_a_changed_signature_does_nothing(url: str) -> None:
    before, _, signature = url.partition("sig=")
    changed = "A" if signature[0] != "A" else "B"
    assert ask(f"{before}sig={changed}{signature[1:]}", "GET", {})[0] == 403


def test_a_signature_for_one_blob_does_not_open_another(face: Face, url: str) -> None:
    other = face.writable_url()
    mixed = f"{other.partition('?')[0]}?{url.partition('?')[2]}"
    assert ask(mixed, "GET", {"x-ms-range": "bytes=0-511"})[0] == 403


def test_any_order_of_writes_and_clears_leaves_what_a_byte_array_would(pages: BlobClient) -> None:
    chance = random.Random(20)  # noqa: S311 - repeatable on purpose
    size_pages = 64
    model, written = bytearray(size_pages * 512), [False] * size_pages
    for _ in range(60):
        first = chance.randrange(size_pages)
        count = chance.randint(1, min(12, size_pages - first))
        place = {"offset": first * 512, "length": count * 512}
        clears = chance.random() < 0.4
        data = bytes(count * 512) if clears else chance.randbytes(count * 512)
        if clears:
            pages.clear_page(**place)
        else:
            pages.upload_page(data, **place)
        model[first * 512 : (first + count) * 512] = data
        written[first : first + count] = [not clears] * count
    assert pages.download_blob(offset=0, length=len(model)).readall() == bytes(model)
    single = [(at * 512, at * 512 + 511) for at in range(size_pages) if written[at]]
    assert merged(ranges(pages)) == merged(single)


def test_block_blobs_are_put_read_listed_and_deleted(face: Face) -> None:
    with face.container() as container:
        for name in ("run/1/a.json", "run/1/b.json", "run/2/a.json"):
            container.upload_blob(name, name.encode())
        assert container.download_blob("run/1/b.json").readall() == b"run/1/b.json"
        found = list(container.list_blobs(name_starts_with="run/1/", results_per_page=1))
        assert [(item.name, item.size) for item in found] == [
            ("run/1/a.json", 12),
            ("run/1/b.json", 12),
        ]
        container.delete_blob("run/1/a.json")
        with pytest.raises(ResourceNotFoundError) as error:
            container.download_blob("run/1/a.json")
        assert refused(error) == (404, "BlobNotFound")
        with pytest.raises(ResourceNotFoundError):
            container.delete_blob("run/1/a.json")
        left = [item.name for item in container.list_blobs(name_starts_with="run/")]
        assert left == ["run/1/b.json", "run/2/a.json"]


def test_a_blob_is_replaced_only_if_that_is_asked_for(face: Face) -> None:
    with face.container() as container:
        container.upload_blob("once", b"first")
        with pytest.raises(ResourceExistsError) as error:
            container.upload_blob("once", b"second")
        assert refused(error) == (409, "BlobAlreadyExists")
        container.upload_blob("once", b"third", overwrite=True)
        assert container.download_blob("once").readall() == b"third"


def test_a_blob_of_many_blocks_is_what_was_sent(face: Face) -> None:
    data = random.Random(1).randbytes(3 * MIB + 17)  # noqa: S311 - repeatable on purpose
    with face.container() as container:
        blob = container.get_blob_client("blocks")
        ids = []
        for at in range(0, len(data), MIB):
            ids.append(f"{at:08d}")
            blob.stage_block(ids[-1], data[at : at + MIB])
        with pytest.raises(ResourceNotFoundError):
            blob.get_blob_properties()
        blob.commit_block_list(ids)
        assert blob.download_blob().readall() == data


def test_a_signed_url_does_what_it_is_for_and_no_more(face: Face) -> None:
    with face.container() as container:
        container.upload_blob("signed", b"old")
    body = {"x-ms-blob-type": "BlockBlob"}
    assert ask(face.blob_url("signed", "r"), "GET", {})[2] == b"old"
    assert ask(face.blob_url("signed", "r"), "PUT", body, b"new")[0] == 403
    assert ask(face.blob_url("signed", "r"), "DELETE", {})[0] == 403
    assert ask(face.blob_url("signed", "w"), "GET", {})[0] == 403
    assert ask(face.blob_url("signed", "w"), "PUT", body, b"new")[0] == 201
    assert ask(face.blob_url("signed", "w"), "PUT", {}, b"new")[0] == 400
    assert ask(face.blob_url("signed", "d"), "DELETE", {})[0] == 202
    assert ask(face.blob_url("signed", "r"), "GET", {})[0] == 404


def test_an_unsigned_request_is_refused(face: Face) -> None:
    status, _, _ = ask(face.blob_url("nobody", "r").partition("?")[0] + "?x=1", "GET", {})
    assert status in {401, 403, 404}


def test_errors_of_the_client_carry_the_code(pages: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as error:
        pages.download_blob(offset=BLOB_BYTES + 512, length=512)
    assert refused(error) == (416, "InvalidRange")
