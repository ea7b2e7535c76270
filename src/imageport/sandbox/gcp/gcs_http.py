# References: Cloud Storage request endpoints; PEP 3333.
"""Cloud Storage over HTTP: who asks, what goes wrong on purpose, and the form of refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from imageport.model import MIB
from imageport.sandbox.faults import Chance, Rate
from imageport.sandbox.gcp.account import SERVICE_ACCOUNT
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.gcs_access import Access, bearer
from imageport.sandbox.gcp.gcs_json import JsonFace
from imageport.sandbox.gcp.gcs_messages import (
    GcsAnswer,
    GcsRefusal,
    GcsRequest,
    send,
    unavailable,
)
from imageport.sandbox.gcp.gcs_sessions import Sessions
from imageport.sandbox.gcp.gcs_signatures import check_signature, is_signed
from imageport.sandbox.gcp.gcs_xml import XmlFace
from imageport.sandbox.gcp.token_http import TokenHttp
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM, Caller

_SURFACES: Final = {"storage", "upload", "download"}


class GcsHttp:
    """A WSGI application for Cloud Storage and for the services that hand out tokens."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rate = Rate()
        self._link = _Link(emulator)
        self._chance = Chance(emulator.knobs.seed)
        sessions = Sessions(emulator.root / "sessions", emulator.objects, self._link)
        sessions.take_up(self._access(_account()), time.time())
        self._json = JsonFace(emulator.objects, sessions, self._link)
        self._xml = XmlFace(emulator.objects, self._link)
        self._tokens = TokenHttp(emulator.tokens, emulator.knobs, emulator.calls)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = GcsRequest.read(environ)
        try:
            answer = self._with_faults(request)
        except GcsRefusal as refusal:
            answer = _refuse(request, refusal)
        return send(start_response, answer)

    def _with_faults(self, request: GcsRequest) -> GcsAnswer:
        knobs = self._emulator.knobs
        if self._tokens.serves(request.raw_path):
            return self._tokens.answer(request)
        if not self._rate.allows(knobs.requests_per_second):
            text = "The rate of requests is too high. Please reduce your request rate."
            raise GcsRefusal(429, "rateLimitExceeded", text)
        strikes = self._chance.strikes(knobs.fault_rate)
        if strikes and self._chance.strikes(0.5):
            raise unavailable()
        answer = self._carry_out(request)
        changes = request.method not in {"GET", "HEAD"}
        if strikes or (changes and knobs.take("lost_answers")):
            _close(answer)
            raise unavailable()  # carried out, and yet the client is told that it failed
        if answer.stream is not None:
            answer.stream = self._spoilt(answer.stream)
        return answer

    def _carry_out(self, request: GcsRequest) -> GcsAnswer:
        if request.parts[0] not in _SURFACES:
            if is_signed(request):
                check_signature(request, self._emulator.tokens)
                return self._xml.answer(request, self._access(_account()))
            return self._xml.answer(request, self._access(self._bearer(request)))
        if request.parts[0] == "upload" and request.method in {"PUT", "DELETE"}:
            if "upload_id" not in request.query:
                raise GcsRefusal(400, "invalid", "Missing upload_id.")
            return self._json.session(request, self._access(_account()))
        return self._json.answer(request, self._access(self._bearer(request)))

    def _bearer(self, request: GcsRequest) -> Caller:
        return bearer(self._emulator.tokens, request.headers.get("authorization", ""))

    def _access(self, caller: Caller) -> Access:
        return Access(caller, self._emulator.knobs, self._emulator.calls)

    def _spoilt(self, stream: Iterable[bytes]) -> Iterable[bytes]:
        knobs = self._emulator.knobs
        if knobs.take("corrupted_answers"):
            return _corrupted(stream)
        if knobs.take("truncated_answers"):
            return _truncated(stream)
        return stream


class _Link:
    """Makes bytes wait as a line of a certain speed would."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        speed = self._emulator.knobs.mib_per_second * MIB
        if speed <= 0:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / speed
            wait = self._free_at - now
        time.sleep(wait)


def _account() -> Caller:
    """Return whom signed URLs and upload sessions stand for."""
    return Caller(SERVICE_ACCOUNT, frozenset({CLOUD_PLATFORM}))


def _refuse(request: GcsRequest, refusal: GcsRefusal) -> GcsAnswer:
    if TokenHttp.serves(request.raw_path):
        return refusal.service()
    if request.parts[0] not in _SURFACES:
        return refusal.xml()
    is_media = request.query.get("alt") == "media"
    if refusal.status in {304, 499} or is_media:
        return refusal.plain()
    return refusal.json()


def _close(answer: GcsAnswer) -> None:
    close = getattr(answer.stream, "close", None)
    if close is not None:
        close()


def _corrupted(stream: Iterable[bytes]) -> Iterator[bytes]:
    wrong = False
    for data in stream:
        middle = len(data) // 2
        yield data if wrong else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        wrong = True


def _truncated(stream: Iterable[bytes]) -> Iterator[bytes]:
    for data in stream:
        yield data[: len(data) // 2]
        raise ConnectionAbortedError("Cut off on purpose.")
