# References: Azure Storage REST, Blob service: the calls for block blobs of one account.
"""The storage account that holds the engine's job folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imageport.sandbox.azure import blob_access
from imageport.sandbox.azure.account import JOB_ACCOUNT, JOB_CONTAINER, TOKEN
from imageport.sandbox.azure.blob_access import BlobAccess, Need
from imageport.sandbox.azure.blob_answers import (
    BlobAnswer,
    BlobRefusal,
    BlobRequest,
    bad_query,
    need_length,
    send,
    server_failed,
)
from imageport.sandbox.azure.blob_delegation import delegation_key
from imageport.sandbox.azure.blob_reads import container_properties, get_blob, list_blobs
from imageport.sandbox.azure.blob_store import BlobStore
from imageport.sandbox.azure.blob_writes import WRITES, Place, delete_blob
from imageport.sandbox.azure.disk_knobs import DataKnobs, Record, no_record, storage_clock
from imageport.sandbox.faults import Chance

_BLOB_NEEDS = {
    "GET": Need(blob_access.READ, "r"),
    "HEAD": Need(blob_access.READ, "r"),
    "PUT": Need(blob_access.WRITE, "wc"),
    "DELETE": Need(blob_access.DELETE, "d"),
}


class BlobHttp:
    """A WSGI application for paths that begin with the account's name."""

    def __init__(self, root: Path, knobs: DataKnobs, record: Record = no_record) -> None:
        self._store = BlobStore(root, [JOB_CONTAINER])
        self._knobs = knobs
        self._record = record
        self._access = BlobAccess(JOB_ACCOUNT, TOKEN, self._store.secret, knobs)
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
        account, _, rest = request.path.lstrip("/").partition("/")
        container, _, blob = rest.partition("/")
        if account != JOB_ACCOUNT:
            raise BlobRefusal(404, "ResourceNotFound", "The specified resource does not exist.")
        need = _need(request, (container, blob))
        self._access.check(request, (container, blob), need)
        self._access.check_role(need, self._record)
        strikes = self._chance.strikes(self._knobs.fault_rate)
        if strikes and self._chance.strikes(0.5):
            raise server_failed()
        answer = self._carry_out(request, container, blob)
        if strikes:
            raise server_failed()  # carried out, and yet the client is told that it failed
        return answer

    def _carry_out(self, request: BlobRequest, container: str, blob: str) -> BlobAnswer:
        if not container:
            return delegation_key(self._store.secret, request.body, storage_clock(self._knobs))
        if not blob and request.method == "PUT":
            return self._create_container(container)
        if not self._store.has_container(container):
            text = "The specified container does not exist."
            raise BlobRefusal(404, "ContainerNotFound", text)
        if blob:
            return self._carry_out_on_blob(request, (container, blob))
        if request.query.get("comp") == "list":
            return list_blobs(self._store, container, request.query)
        return container_properties()

    def _carry_out_on_blob(self, request: BlobRequest, place: Place) -> BlobAnswer:
        if request.method == "PUT":
            return WRITES[request.query.get("comp", "")](self._store, place, request)
        if request.method == "DELETE":
            return delete_blob(self._store, place, request)
        return get_blob(self._store, place, request)

    def _create_container(self, container: str) -> BlobAnswer:
        if not self._store.add_container(container):
            text = "The specified container already exists."
            raise BlobRefusal(409, "ContainerAlreadyExists", text)
        return BlobAnswer(201, container_properties().headers)


def _need(request: BlobRequest, place: Place) -> Need:
    """Return what a request needs; refuse what this account does not offer."""
    container, blob = place
    query = request.query
    comp, kind = query.get("comp", ""), query.get("restype", "")
    if not container:
        if (request.method, kind, comp) == ("POST", "service", "userdelegationkey"):
            return Need(blob_access.DELEGATE)
    elif not blob:
        if (kind, comp) == ("container", "list") and request.method == "GET":
            return Need(blob_access.READ, "l")
        if (kind, comp) == ("container", "") and request.method in {"GET", "HEAD"}:
            return Need(blob_access.CONTAINER_READ)
        if (kind, comp) == ("container", "") and request.method == "PUT":
            return Need(blob_access.CONTAINER_WRITE)
    elif request.method in _BLOB_NEEDS and (not comp or request.method == "PUT"):
        if comp not in WRITES:
            raise bad_query("comp", comp)
        return _BLOB_NEEDS[request.method]
    text = "The resource doesn't support the specified HTTP verb."
    raise BlobRefusal(405, "UnsupportedHttpVerb", text)
