# References: Azure Storage, Put Page, Put Page From URL: 512-byte pages, at most 4 MiB a write.
"""What can be written to the page blob of a disk that is being uploaded."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from imageport.model import MIB
from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    BlobRefusal,
    BlobRequest,
    bad_header,
    bad_page_range,
    bad_range,
    missing_header,
    too_large,
)
from imageport.sandbox.azure.blob_ranges import asked_range, parse_range
from imageport.sandbox.azure.disk_pages import PAGE_BYTES
from imageport.sandbox.azure.disk_stored import StoredDisk
from imageport.sandbox.azure.page_access import PageAccess
from imageport.sandbox.azure.page_checksums import check_body, check_md5
from imageport.sandbox.azure.page_reads import blob_headers

LARGEST_WRITE_BYTES = 4 * MIB


def write_length(request: BlobRequest) -> int:
    """Return how many bytes of the disk a write fills: clearing costs none."""
    if request.headers.get("x-ms-page-write") == "clear":
        return 0
    asked = asked_range(request.headers)
    if asked is None or asked[1] is None:
        return len(request.body)
    return min(asked[1] - asked[0], LARGEST_WRITE_BYTES)


def put_page(disk: StoredDisk, request: BlobRequest, access: PageAccess) -> BlobAnswer:
    """Put Page and Put Page From URL."""
    headers = request.headers
    kind = headers.get("x-ms-page-write")
    if kind is None:
        raise missing_header("x-ms-page-write")
    if kind not in {"update", "clear"}:
        raise bad_header("x-ms-page-write", kind)
    # A body over the limit is refused before its range is looked at.
    if len(request.body) > LARGEST_WRITE_BYTES:
        raise too_large(LARGEST_WRITE_BYTES)
    start, end = _pages(disk, headers)
    if kind == "clear":
        if request.body:
            raise bad_header("Content-Length", headers["content-length"])
        disk.clear(start, end)
        return _written(disk, {})
    if end - start > LARGEST_WRITE_BYTES:
        raise too_large(LARGEST_WRITE_BYTES)
    if "x-ms-copy-source" in headers:
        return _put_from_url(disk, (start, end), request, access)
    if len(request.body) != end - start:
        raise bad_header("Content-Length", headers["content-length"])
    confirmed = check_body(request.body, headers)
    disk.write(start, request.body)
    return _written(disk, confirmed)


def _put_from_url(
    disk: StoredDisk, place: tuple[int, int], request: BlobRequest, access: PageAccess
) -> BlobAnswer:
    headers = request.headers
    if request.body:
        raise bad_header("Content-Length", headers["content-length"])
    if "x-ms-source-range" not in headers:
        raise missing_header("x-ms-source-range")
    start, end = parse_range("x-ms-source-range", headers["x-ms-source-range"])
    if end is None or end - start != place[1] - place[0]:
        raise bad_header("x-ms-source-range", headers["x-ms-source-range"])
    source_url = urlsplit(headers["x-ms-copy-source"])
    query = dict(parse_qsl(source_url.query, keep_blank_values=True))
    try:
        with access.admit(source_url.path, query, "r") as source:
            if end > source.blob_bytes:
                raise bad_range()
            data = source.read(start, end)
    except BlobRefusal as refusal:
        raise _source_refused(refusal) from refusal
    confirmed = {}
    if "x-ms-source-content-md5" in headers:
        confirmed["Content-MD5"] = check_md5(data, headers["x-ms-source-content-md5"])
    disk.write(place[0], data)
    return _written(disk, confirmed)


def _pages(disk: StoredDisk, headers: dict[str, str]) -> tuple[int, int]:
    asked = asked_range(headers)
    if asked is None:
        raise missing_header("x-ms-range")
    start, end = asked
    if end is None or start % PAGE_BYTES or end % PAGE_BYTES or end > disk.blob_bytes:
        raise bad_page_range()
    return start, end


def _source_refused(refusal: BlobRefusal) -> BlobRefusal:
    text = "Server failed to authenticate the request. Please refer to the information in the "
    found = BlobRefusal(
        refusal.status,
        "CannotVerifyCopySource",
        f"{text}www-authenticate header." if refusal.status == 403 else refusal.message,
    )
    found.headers = {
        "x-ms-copy-source-status-code": str(refusal.status),
        "x-ms-copy-source-error-code": refusal.code,
    }
    return found


def _written(disk: StoredDisk, confirmed: dict[str, str]) -> BlobAnswer:
    headers = {
        **blob_headers(disk),
        "x-ms-blob-sequence-number": "0",
        "x-ms-request-server-encrypted": "true",
        **confirmed,
    }
    return BlobAnswer(201, headers)
