"""An emulated bucket in this process, and plain HTTP to ask it: no client of Google's between."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import google_crc32c

from imageport.sandbox.gcp.account import BUCKET, SERVICE_ACCOUNT
from imageport.sandbox.gcp.credential_files import write_credential_files
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.http_front import HttpFront
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM
from imageport.sandbox.http_server import WsgiServer

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def reason(self) -> str:
        """Return the reason of a refusal in the JSON API's form."""
        return str(self.json()["error"]["errors"][0]["reason"])


class Bucket:
    """One bucket behind the JSON API, whoever serves it."""

    def __init__(self, endpoint: str, name: str, headers: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self.name = name
        self.headers = dict(headers)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request as it is; ``target`` is a path or a whole URL of the same host."""
        parts = urlsplit(target)
        place = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=30)
        try:
            connection.request(method, place, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def at(self, name: str, action: str = "", **query: object) -> str:
        """Return the path of an object."""
        path = f"/storage/v1/b/{self.name}/o/{quote(name, safe='')}{action}"
        return path + (f"?{urlencode(query)}" if query else "")

    def put(self, name: str, data: bytes, **query: object) -> Answer:
        """Write an object in one piece, without metadata."""
        fields = urlencode({"uploadType": "media", "name": name, **query})
        headers = {"Content-Type": "application/octet-stream"}
        return self.ask("POST", f"/upload/storage/v1/b/{self.name}/o?{fields}", data, headers)

    def put_related(self, document: Json, data: bytes, **query: object) -> Answer:
        """Write an object with metadata in one piece."""
        fields = urlencode({"uploadType": "multipart", **query})
        head = "--x\r\nContent-Type: application/json\r\n\r\n" + json.dumps(document)
        middle = "\r\n--x\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + middle.encode() + data + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/related; boundary=x"}
        return self.ask("POST", f"/upload/storage/v1/b/{self.name}/o?{fields}", body, headers)

    def read(self, name: str, headers: Mapping[str, str] | None = None, **query: object) -> Answer:
        """Read an object's bytes."""
        return self.ask("GET", self.at(name, alt="media", **query), b"", headers)

    def stat(self, name: str, **query: object) -> Answer:
        """Read an object's resource."""
        return self.ask("GET", self.at(name, **query))

    def list(self, **query: object) -> Answer:
        """List objects."""
        return self.ask("GET", f"/storage/v1/b/{self.name}/o?{urlencode(query)}")

    def compose(self, name: str, sources: list[Json], **query: object) -> Answer:
        """Join objects; ``sources`` as the API takes them."""
        body = json.dumps({"sourceObjects": sources, "destination": {}}).encode()
        target = self.at(name, "/compose", **query)
        return self.ask("POST", target, body, {"Content-Type": "application/json"})

    def begin(self, name: str, document: Json | None = None, **query: object) -> str:
        """Begin a resumable upload; return its URL."""
        fields = urlencode({"uploadType": "resumable", "name": name, **query})
        body = json.dumps(document or {}).encode()
        headers = {"Content-Type": "application/json"}
        answer = self.ask("POST", f"/upload/storage/v1/b/{self.name}/o?{fields}", body, headers)
        assert answer.status == 200, answer
        return answer.headers["location"]

    def chunk(self, url: str, span: str, data: bytes = b"", **headers: str) -> Answer:
        """Send ``Content-Range: bytes SPAN`` to a session, without any token."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        unsigned = Bucket(self.endpoint, self.name, {})
        return unsigned.ask("PUT", url, data, {"Content-Range": f"bytes {span}", **named})


class GcsLab(Bucket):
    """The emulator of this project, served by a thread."""

    def __init__(self, root: Path, keys: Path, **knobs: Any) -> None:
        if not (root / "keys").exists():
            shutil.copytree(keys, root / "keys")
        self.emulator = Emulator(root, Knobs(**knobs))
        self.knobs = self.emulator.knobs
        self._server = WsgiServer(0, HttpFront(self.emulator))
        self.emulator.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        write_credential_files(root, self.emulator.tokens, self.emulator.endpoint)
        super().__init__(self.emulator.endpoint, BUCKET, {"Authorization": self.bearer()})
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def bearer(self, *scopes: str, seconds: float = 3600) -> str:
        """Return the ``Authorization`` header of a new token."""
        granted = frozenset(scopes or (CLOUD_PLATFORM,))
        return f"Bearer {self.emulator.tokens.issue(SERVICE_ACCOUNT, granted, seconds)}"

    def close(self) -> None:
        """End the server; may be called twice."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.emulator.close()


def crc32c_text(data: bytes) -> str:
    """Return a CRC32C as the API writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
