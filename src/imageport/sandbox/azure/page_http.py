# References: Azure Storage REST, page blobs behind managed disks (signed URLs of beginGetAccess).
"""The endpoint behind a managed disk's signed URL: pages in, pages out, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from imageport.model import MIB
from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    BlobRefusal,
    BlobRequest,
    bad_query,
    need_length,
    send,
    server_busy,
    server_failed,
    timed_out,
)
from imageport.sandbox.azure.disk_knobs import DataKnobs
from imageport.sandbox.azure.disk_store import DiskStore
from imageport.sandbox.azure.disk_stored import StoredDisk
from imageport.sandbox.azure.page_access import PageAccess
from imageport.sandbox.azure.page_checksums import CHECKSUM_HEADERS, unsupported
from imageport.sandbox.azure.page_reads import (
    check_conditions,
    get_blob,
    page_list,
    properties,
    read_length,
)
from imageport.sandbox.azure.page_writes import put_page, write_length
from imageport.sandbox.faults import Chance

_CHUNK_BYTES = 4 * MIB


class PageHttp:
    """A WSGI application for paths that begin with ``/md-``."""

    def __init__(self, store: DiskStore, knobs: DataKnobs) -> None:
        self._access = PageAccess(store, knobs)
        self._knobs = knobs
        self._chance = Chance(knobs.seed)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = BlobRequest.read(environ)
        try:
            outcome: BlobAnswer | BlobRefusal = self._answer(request)
        except BlobRefusal as refusal:
            outcome = refusal
        return send(start_response, request, outcome)

    def _answer(self, request: BlobRequest) -> BlobAnswer:
        need_length(request)
        comp = request.query.get("comp", "")
        with self._access.admit(request.path, request.query, _need(request.method, comp)) as disk:
            failure = self._failure(request)
            if failure is not None and self._chance.strikes(0.5):
                raise failure
            check_conditions(disk, request.headers)
            answer = self._carry_out(disk, request, comp)
            if failure is not None:
                raise failure  # carried out, and yet the client is told that it failed
            return answer

    def _carry_out(self, disk: StoredDisk, request: BlobRequest, comp: str) -> BlobAnswer:
        self._refuse_checksums(request)
        if request.method == "HEAD":
            return properties(disk)
        if request.method == "PUT":
            self._slow_down(disk, write_length(request))
            return put_page(disk, request, self._access)
        if comp == "pagelist":
            return page_list(disk, request.query, request.headers)
        if comp:
            raise bad_query("comp", comp)
        self._slow_down(disk, read_length(disk, request.headers))
        return get_blob(disk, request.headers, lambda: self._stream(disk))

    def _failure(self, request: BlobRequest) -> BlobRefusal | None:
        if self._chance.strikes(self._knobs.fault_rate):
            return server_failed()
        writes = request.method == "PUT"
        if writes and self._chance.strikes(self._knobs.operation_timed_out_rate):
            return timed_out()
        return None

    def _slow_down(self, disk: StoredDisk, length_bytes: int) -> None:
        if not disk.rate.allows(length_bytes, self._knobs.mib_per_second):
            raise server_busy()

    def _refuse_checksums(self, request: BlobRequest) -> None:
        if self._knobs.checksum_refused:
            for name in CHECKSUM_HEADERS:
                if name in request.headers:
                    raise unsupported(name, request.headers[name])

    def _stream(self, disk: StoredDisk) -> Iterator[bytes]:
        for start in range(0, disk.blob_bytes, _CHUNK_BYTES):
            with disk.busy():
                if disk.policy is None:
                    return  # revoked meanwhile: the client sees a body that is too short
                yield disk.read(start, min(start + _CHUNK_BYTES, disk.blob_bytes))


def _need(method: str, comp: str) -> str:
    """Return the permission that a request needs; ``-`` is one that no URL of a disk has."""
    if method in {"HEAD", "GET"}:
        return "r"
    if method == "PUT" and comp == "page":
        return "w"
    return "-"  # create, resize, delete, lease, snapshot: the blob belongs to its disk
