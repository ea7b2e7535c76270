"""Two blob services behind one shape: the sandbox's own, and Azurite, which nobody here wrote."""

from __future__ import annotations

import atexit
import functools
import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.storage.blob import (
    BlobClient,
    BlobServiceClient,
    ContainerClient,
    UserDelegationKey,
    generate_blob_sas,
)
from werkzeug.serving import WSGIRequestHandler, make_server

from imageport.model import MIB
from imageport.sandbox.azure.account import JOB_ACCOUNT, JOB_CONTAINER, TOKEN
from imageport.sandbox.azure.blob_http import BlobHttp
from imageport.sandbox.azure.disk_footer import export_footer
from imageport.sandbox.azure.disk_store import DiskStore
from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.azure.page_http import PageHttp

SIZE = 20 * MIB
"""Of the disks in these tests, without the footer."""
BLOB_BYTES = SIZE + 512
AZURITE = Path(__file__).parents[3] / ".imageport" / "azurite"
AZURITE_ACCOUNT = "devstoreaccount1"
# Azurite's published key of its one account: no secret.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class Face(Protocol):
    """What the tests need of a blob service."""

    def writable_url(self) -> str:
        """Return a signed URL for a new page blob of BLOB_BYTES zeros: read and write."""

    def readable_url(self) -> str:
        """Return a signed URL for another page blob: read only."""

    def expired_url(self) -> str:
        """Return a signed URL whose time is over."""

    def container(self) -> ContainerClient:
        """Return a container that may be written to; the caller closes it."""

    def blob_url(self, name: str, permission: str) -> str:
        """Return a signed URL for one block blob of that container."""


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing."""


class _Bearer(SansIOHTTPPolicy):  # type: ignore[type-arg]
    def on_request(self, request: Any) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {TOKEN}"


class OwnFace:
    """The sandbox's page endpoint and job account on a port of their own."""

    def __init__(self, root: Path) -> None:
        self.knobs = Knobs()
        self.store = DiskStore(root / "disks", self.knobs)
        self.actions: set[str] = set()
        self._pages = PageHttp(self.store, self.knobs)
        self._blobs = BlobHttp(root / "blobs", self.knobs, self.actions.add)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"
        self._count = 0

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.store.close()

    def new_upload(self) -> str:
        self._count += 1
        disk_id = f"/subscriptions/x/disks/upload-{self._count}"
        self.store.create_upload(disk_id, BLOB_BYTES)
        return disk_id

    def new_disk(self, data: bytes = b"") -> str:
        """Return the id of a disk that was uploaded; its first bytes are ``data``."""
        disk_id = self.new_upload()
        with page_client(self.store.grant(disk_id, "Write", 3600, self.base_url)) as client:
            if data:
                client.upload_page(data, offset=0, length=len(data))
            client.upload_page(export_footer(SIZE, "test"), offset=SIZE, length=512)
        self.store.revoke(disk_id)
        return disk_id

    def grant(self, disk_id: str, mode: str, seconds: float = 3600) -> str:
        return self.store.grant(disk_id, mode, seconds, self.base_url)

    def writable_url(self) -> str:
        return self.grant(self.new_upload(), "Write")

    def readable_url(self) -> str:
        return self.grant(self.new_disk(), "Read")

    def expired_url(self) -> str:
        return self.grant(self.new_upload(), "Write", seconds=0)

    def service(self) -> BlobServiceClient:
        policies = [_Bearer()]
        url = f"{self.base_url}/{JOB_ACCOUNT}"
        return BlobServiceClient(url, retry_total=0, _additional_pipeline_policies=policies)

    def container(self) -> ContainerClient:
        return self.service().get_container_client(JOB_CONTAINER)

    def delegation_key(self) -> UserDelegationKey:
        now = datetime.now(UTC)
        with self.service() as service:
            return service.get_user_delegation_key(now, now + timedelta(hours=1))

    def blob_url(self, name: str, permission: str) -> str:
        sas = generate_blob_sas(
            JOB_ACCOUNT,
            JOB_CONTAINER,
            name,
            user_delegation_key=self.delegation_key(),
            permission=permission,
            expiry=datetime.now(UTC) + timedelta(minutes=10),
        )
        return f"{self.base_url}/{JOB_ACCOUNT}/{JOB_CONTAINER}/{name}?{sas}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        pages = environ["PATH_INFO"].startswith("/md-")
        return (self._pages if pages else self._blobs)(environ, start_response)


class AzuriteFace:
    """A running Azurite, its account and one container."""

    def __init__(self, base_url: str) -> None:
        self._base_url = f"{base_url}/{AZURITE_ACCOUNT}"
        self._count = 0
        with self.container() as container:
            container.create_container()

    def writable_url(self) -> str:
        return self._page_blob_url("rw", 3600)

    def readable_url(self) -> str:
        return self._page_blob_url("r", 3600)

    def expired_url(self) -> str:
        return self._page_blob_url("rw", -5)

    def container(self) -> ContainerClient:
        return ContainerClient(self._base_url, "jobs", credential=AZURITE_KEY, retry_total=0)

    def blob_url(self, name: str, permission: str) -> str:
        return self._signed(name, permission, 600)

    def _page_blob_url(self, permission: str, seconds: int) -> str:
        self._count += 1
        name = f"disk-{self._count}"
        with self.container() as container:
            container.get_blob_client(name).create_page_blob(BLOB_BYTES)
        return self._signed(name, permission, seconds)

    def _signed(self, name: str, permission: str, seconds: int) -> str:
        sas = generate_blob_sas(
            AZURITE_ACCOUNT,
            "jobs",
            name,
            account_key=AZURITE_KEY,
            permission=permission,
            expiry=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        return f"{self._base_url}/jobs/{name}?{sas}"


FACES = ["ours", "azurite"]


@functools.cache
def azurite_face() -> AzuriteFace:
    """Start Azurite, once for all tests; skip where it is not installed, fail with CI=true."""
    node, main = AZURITE / "node", AZURITE / "node_modules/azurite/dist/src/blob/main.js"
    if not (node.exists() and main.exists()):
        missing = "Azurite is not installed; ./test installs it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="azurite-")
    argv = [str(node), str(main), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    argv += ["--location", folder, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(_end, process, folder)
    _wait_for(process, port)
    return AzuriteFace(f"http://127.0.0.1:{port}")


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    process.terminate()
    process.wait(30)
    shutil.rmtree(folder)


@contextmanager
def running_face(name: str, root: Path) -> Iterator[Face]:
    """Run ``ours`` or ``azurite``."""
    if name == "azurite":
        yield azurite_face()
        return
    own = OwnFace(root)
    try:
        yield own
    finally:
        own.close()


def page_client(url: str) -> BlobClient:
    """Return a client that tries once; the caller closes it."""
    return BlobClient.from_blob_url(url, retry_total=0)


def ask(
    url: str, method: str, headers: dict[str, str], body: bytes | None = None, query: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is; return status, headers (lower case) and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        target = f"{parts.path}?{parts.query}" + (f"&{query}" if query else "")
        connection.request(method, target, body, {"x-ms-version": "2021-12-02", **headers})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


def put_page(url: str, range_text: str, body: bytes, **headers: str) -> tuple[int, str]:
    """Send Put Page; return status and error code."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"x-ms-page-write": "update", "x-ms-range": range_text, **named}
    status, found, _ = ask(url, "PUT", named, body, "comp=page")
    return status, found.get("x-ms-error-code", "")


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("Azurite does not start.")
            time.sleep(0.1)
        else:
            return
