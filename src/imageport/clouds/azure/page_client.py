# References: Blob service REST API: Put Page, Put Page From URL, Get Page Ranges, Get Blob.
"""Single requests to the page blob behind a managed disk: tried once, checked, in our own errors.

Plain requests, not azure-storage-blob: its download asks for the page ranges of the whole disk at
every read, and it rebuilds signed URLs from the parameters it knows.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest, HttpResponse

from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.error_mapping import asked
from imageport.errors import CloudRefused, CloudUnavailable
from imageport.model import GIB, MIB

SERVICE_VERSION: Final = "2021-12-02"
MOST_BYTES: Final = 4 * MIB
"""Most of one Put Page, and of a range whose MD5 the service computes."""
LIST_BYTES: Final = GIB
"""Get Page Ranges of a whole, much fragmented disk runs into the service's time-out."""
_NO_CHECKSUMS: Final = {
    "FeatureNotSupportedForAccount",
    "InvalidHeaderValue",
    "UnsupportedHeader",
}


class PageClient:
    """The data path; may be used from several threads.

    URLs are signed and secret; ``subject`` stands for them in messages.
    """

    def __init__(self, clients: AzureClients, subject: str) -> None:
        self._client = clients.data
        self.subject = subject
        self.checksums = True
        """Whether the service takes and gives MD5; false once it refused."""

    def put(self, url: str, offset: int, data: bytes) -> None:
        """Write whole pages; the service compares their MD5 with what arrived."""
        headers = {"x-ms-page-write": "update", "x-ms-range": _range(offset, len(data))}
        if self.checksums:
            checked = headers | {"Content-MD5": _md5(data)}
            try:
                self._ask("PUT", f"{url}&comp=page", "PutPage", checked, data)
            except CloudRefused as error:
                self._give_up_checksums(error)
            else:
                return
        self._ask("PUT", f"{url}&comp=page", "PutPage", headers, data)

    def clear(self, url: str, offset: int, length: int) -> None:
        """Make whole pages read as zeros again; any length."""
        headers = {"x-ms-page-write": "clear", "x-ms-range": _range(offset, length)}
        self._ask("PUT", f"{url}&comp=page", "ClearPages", headers)

    def copy(self, url: str, offset: int, length: int, source_url: str) -> None:
        """Write what another disk holds at the same place, without it passing through here."""
        headers = {
            "x-ms-page-write": "update",
            "x-ms-range": _range(offset, length),
            "x-ms-copy-source": source_url,
            "x-ms-source-range": _range(offset, length),
        }
        self._ask("PUT", f"{url}&comp=page", "PutPageFromURL", headers)

    def get(self, url: str, offset: int, length: int) -> bytes:
        """Read a range of at most `MOST_BYTES` and check it against the MD5 that came with it."""
        headers = {"x-ms-range": _range(offset, length)}
        if self.checksums:
            try:
                return self._read(url, headers | {"x-ms-range-get-content-md5": "true"}, length)
            except CloudRefused as error:
                self._give_up_checksums(error)
        return self._read(url, headers, length)

    def ranges(self, url: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what is written within a range of at most `LIST_BYTES`."""
        marker = ""
        while True:
            more = f"&marker={quote(marker, safe='')}" if marker else ""
            headers = {"x-ms-range": _range(start, end - start)}
            answer = self._ask("GET", f"{url}&comp=pagelist{more}", "GetPageRanges", headers)
            # From the storage service over TLS; expat refuses entities that grow.
            try:
                listed = ET.fromstring(answer.content.decode("utf-8-sig"))  # noqa: S314
                found = [
                    (int(item.findtext("Start", "0")), int(item.findtext("End", "-1")))
                    for item in listed.iter("PageRange")
                ]
            except (ET.ParseError, ValueError) as error:
                # Cut short, or the page of a proxy on the way: asked again it may be whole.
                raise CloudUnavailable(
                    f"Bad page ranges of '{self.subject}': found no list ({error})."
                ) from None
            for first, last in found:
                if last >= first and last >= start and first < end:
                    yield max(first, start), min(last + 1, end)
            marker = (listed.findtext("NextMarker") or "").strip()
            if not marker:
                return

    def _read(self, url: str, headers: dict[str, str], length: int) -> bytes:
        answer = self._ask("GET", url, "GetBlob", headers)
        data = answer.content
        if len(data) != length:
            raise CloudUnavailable(
                f"Bad range of '{self.subject}': found {len(data)} bytes, needed {length}."
            )
        expected = answer.headers.get("Content-MD5", "")
        if "x-ms-range-get-content-md5" in headers and expected and expected != _md5(data):
            # Damage on the way: the service sends what it has stored and checked.
            raise CloudUnavailable(
                f"Bad range of '{self.subject}': found MD5 {_md5(data)}, needed {expected}."
            )
        return data

    def _ask(
        self,
        method: str,
        url: str,
        operation: str,
        headers: dict[str, str],
        data: bytes | None = None,
    ) -> HttpResponse:
        known: dict[str, Any] = {"x-ms-version": SERVICE_VERSION, **headers}
        if method == "PUT":
            known["Content-Length"] = str(len(data or b""))
        with asked(f"blob:{operation}", self.subject):
            response: HttpResponse = self._client.send_request(
                HttpRequest(method, url, headers=known, content=data)
            )
            # Nothing is redirected here: 3xx is somebody on the way, who took no page either.
            if not 200 <= response.status_code < 300:
                raise HttpResponseError(response=response)
        return response

    def _give_up_checksums(self, error: CloudRefused) -> None:
        """Go on without transactional checksums where they are refused; raise anything else."""
        if error.fields.get("azure_code") not in _NO_CHECKSUMS:
            raise error
        self.checksums = False


def _range(offset: int, length: int) -> str:
    return f"bytes={offset}-{offset + length - 1}"


def _md5(data: bytes) -> str:
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
