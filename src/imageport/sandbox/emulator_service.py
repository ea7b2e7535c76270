"""Starts and stops the process of one emulated cloud or vCenter of an embedded site."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from imageport.sandbox.machines.left_mounts import remove_folder
from imageport.sandbox.processes import SERVICE_MARK, Child, end_marked
from imageport.sandbox.turnable import Turnable

ENDPOINT_FILE = "endpoint"


class EmulatorService(ABC):
    """One emulator in one process; the subclass says which, and what of it ends with it.

    The process writes where it is asked and turned to ``ROOT/endpoint`` when it answers.
    """

    title: ClassVar[str]
    start_seconds: ClassVar[float]
    short_lived: ClassVar[tuple[str, ...]] = ()
    """Folders that end with `stop`."""

    def __init__(self, root: Path, knobs: Turnable) -> None:
        self._root = root.resolve()
        self.knobs = knobs
        self._child: Child | None = None
        self.endpoint = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self._root.mkdir(parents=True, exist_ok=True)
        # Machines of a process that was killed would write to disks that are given out again.
        end_marked(self._root, mark=SERVICE_MARK)
        endpoint = self._root / ENDPOINT_FILE
        endpoint.unlink(missing_ok=True)
        log = self._root / "server.log"
        child = Child(self.title, self._command(), self._environment(), log)
        self._child = child
        try:
            child.wait_until(endpoint.exists, self.start_seconds)
        except BaseException:
            self.stop()
            raise
        self.endpoint = endpoint.read_text()

    def stop(self) -> None:
        """End the process and every machine; may be called twice."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        end_marked(self._root, mark=SERVICE_MARK)
        for name in self.short_lived:
            remove_folder(self._root / name)

    def kill(self) -> None:
        """End the process as a crash would: nothing is put in order."""
        if self._child is not None:
            self._child.kill()

    def turn(self, **knobs: Any) -> None:
        """Change knobs of the running emulator."""
        self.knobs.turn(knobs)
        self._ask("knobs", json.dumps(knobs).encode())

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program with its arguments."""

    def _environment(self) -> dict[str, str]:
        return {**os.environ, SERVICE_MARK: str(self._root)}

    def _ask(self, name: str, body: bytes | None = None, method: str | None = None) -> Any:
        url = f"{self.endpoint}/imageport/{name}"
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)


class CloudService(EmulatorService):
    """One account of an emulated cloud, whose machines end with it."""

    module: ClassVar[str]
    """Run as ``python -m MODULE ROOT KNOBS``."""
    short_lived: ClassVar[tuple[str, ...]] = ("machines",)

    def machines(self) -> list[dict[str, Any]]:
        """Return id, kind and ``busy`` of every machine that was switched on."""
        return list(self._ask("machines"))

    def violations(self) -> list[dict[str, Any]]:
        """Return the guests that were not started because they would not have been isolated."""
        return list(self._ask("violations"))

    def forget_calls(self) -> None:
        """Begin the record of calls anew."""
        self._ask("calls", method="DELETE")

    def _command(self) -> list[str]:
        return [sys.executable, "-m", self.module, str(self._root), self.knobs.to_json()]
