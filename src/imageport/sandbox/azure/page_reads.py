# References: Azure Storage, Get Blob Properties, Get Blob, Get Page Ranges (10 000 ranges an
# answer, then NextMarker).
"""What can be read of a managed disk's page blob."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imageport.model import MIB
from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    bad_header,
    bad_query,
    bad_range,
    condition_not_met,
    http_date,
)
from imageport.sandbox.azure.blob_ranges import asked_range
from imageport.sandbox.azure.disk_pages import PAGE_BYTES
from imageport.sandbox.azure.disk_stored import StoredDisk
from imageport.sandbox.azure.page_checksums import md5_of

LARGEST_LIST = 10_000
LARGEST_CHECKED_BYTES = 4 * MIB
"""A range whose MD5 is asked for may be no longer."""


def blob_headers(disk: StoredDisk) -> dict[str, str]:
    """Return ETag and time of the last change."""
    return {"ETag": etag(disk), "Last-Modified": http_date(disk.path.stat().st_mtime)}


def etag(disk: StoredDisk) -> str:
    """Return the tag of the disk's present content."""
    return f'"0x{0x8DD0000000000000 + disk.version:X}"'


def check_conditions(disk: StoredDisk, headers: dict[str, str]) -> None:
    """Refuse with 412 where ``If-Match`` or ``If-None-Match`` does not hold."""
    wanted, unwanted = headers.get("if-match", "*"), headers.get("if-none-match", "")
    if wanted not in {"*", etag(disk)} or unwanted in {"*", etag(disk)}:
        raise condition_not_met()


def properties(disk: StoredDisk) -> BlobAnswer:
    """Get Blob Properties."""
    return BlobAnswer(200, {**_read_headers(disk), "Content-Length": str(disk.blob_bytes)})


def page_list(disk: StoredDisk, query: dict[str, str], headers: dict[str, str]) -> BlobAnswer:
    """Get Page Ranges: whole pages, the footer's among them, at most 10 000 at once."""
    for name in ("prevsnapshot", "prevsnapshoturl"):
        if name in query:
            raise bad_query(name, query[name])
    start, end = _range_within(disk, headers)
    start, end = start - start % PAGE_BYTES, end + -end % PAGE_BYTES
    marker, limit = query.get("marker", ""), query.get("maxresults", str(LARGEST_LIST))
    if marker and not marker.isdigit():
        raise bad_query("marker", marker)
    if not limit.isdigit() or limit == "0":
        raise bad_query("maxresults", limit)
    found = disk.written(max(start, int(marker or 0)), end)
    shown = found[: min(int(limit), LARGEST_LIST)]
    following = str(found[len(shown)][0]) if len(shown) < len(found) else ""
    ranges = "".join(
        f"<PageRange><Start>{first}</Start><End>{last - 1}</End></PageRange>"
        for first, last in shown
    )
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<PageList>{ranges}<NextMarker>{following}</NextMarker></PageList>"
    )
    answer = {
        **blob_headers(disk),
        "Content-Type": "application/xml",
        "x-ms-blob-content-length": str(disk.blob_bytes),
    }
    return BlobAnswer(200, answer, body.encode())


def read_length(disk: StoredDisk, headers: dict[str, str]) -> int:
    """Return how many bytes Get Blob will send."""
    start, end = _range_within(disk, headers)
    return end - start


def get_blob(
    disk: StoredDisk, headers: dict[str, str], stream: Callable[[], Iterator[bytes]]
) -> BlobAnswer:
    """Get Blob: a range at once, the whole as a stream."""
    answer = {**_read_headers(disk), "Content-Length": str(disk.blob_bytes)}
    if asked_range(headers) is None:
        return BlobAnswer(200, answer, stream=stream())
    start, end = _range_within(disk, headers)
    checked = headers.get("x-ms-range-get-content-md5", "").lower() == "true"
    if checked and end - start > LARGEST_CHECKED_BYTES:
        raise bad_header("x-ms-range-get-content-md5", "true")
    body = disk.read(start, end)
    answer["Content-Length"] = str(len(body))
    answer["Content-Range"] = f"bytes {start}-{end - 1}/{disk.blob_bytes}"
    if checked:
        answer["Content-MD5"] = md5_of(body)
    return BlobAnswer(206, answer, body)


def _range_within(disk: StoredDisk, headers: dict[str, str]) -> tuple[int, int]:
    """Return the range asked for, its end cut to the blob's; 416 where it begins behind it."""
    start, end = asked_range(headers) or (0, None)
    if start >= disk.blob_bytes:
        raise bad_range()
    return start, disk.blob_bytes if end is None else min(end, disk.blob_bytes)


def _read_headers(disk: StoredDisk) -> dict[str, str]:
    return {
        **blob_headers(disk),
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "PageBlob",
        "x-ms-blob-sequence-number": "0",
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "true",
    }
