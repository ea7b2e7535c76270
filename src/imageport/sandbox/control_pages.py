"""The pages below ``/imageport/`` by which tests ask and turn an emulated cloud; of no cloud."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from imageport.sandbox.machines.hypervisor import Hypervisor
from imageport.sandbox.turnable import Turnable

PREFIX: Final = "/imageport/"
Page = Callable[[], Any]
"""Returns what the page shows, as JSON can hold it."""


class _Record(Protocol):
    def forget(self) -> None:
        """Start anew."""


class _Emulator(Protocol):
    @property
    def hypervisor(self) -> Hypervisor: ...

    @property
    def knobs(self) -> Turnable: ...

    @property
    def calls(self) -> _Record: ...


class ControlPages:
    """A WSGI application: what `EmulatorService` and `CloudService` ask.

    Args:
        emulator: Whose machines and knobs are shown; its record of calls is forgotten on demand.
        calls: Shows that record.
        more: Further pages by name.
    """

    def __init__(
        self, emulator: _Emulator, calls: Page, more: Mapping[str, Page] | None = None
    ) -> None:
        self._emulator = emulator
        self._pages: dict[str, Page] = {
            "health": lambda: "ok",
            "machines": emulator.hypervisor.facts,
            "violations": emulator.hypervisor.violations,
            "knobs": lambda: json.loads(emulator.knobs.to_json()),
            "calls": calls,
            **(more or {}),
        }

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is one of these."""
        return path.startswith(PREFIX)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request: POST turns knobs, DELETE forgets calls, all show the page."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        name = environ["PATH_INFO"].removeprefix(PREFIX)
        if name not in self._pages:
            return answer_json(start_response, 404, {})
        asked = (environ["REQUEST_METHOD"], name)
        if asked == ("POST", "knobs"):
            try:
                self._emulator.knobs.turn(json.loads(body))
            except ValueError as error:
                return answer_json(start_response, 400, str(error))
        if asked == ("DELETE", "calls"):
            self._emulator.calls.forget()
        return answer_json(start_response, 200, self._pages[name]())


def answer_json(start_response: Any, status: int, document: Any) -> Iterable[bytes]:
    """Give a document to WSGI as the whole answer."""
    content = json.dumps(document).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [content]
