"""Starts and stops the emulated Azure subscription of an embedded site."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.machines.left_mounts import remove_folder
from imageport.sandbox.processes import SERVICE_MARK, Child, end_marked

START_SECONDS = 120.0
"""Its imports take 1 s of an idle core; a busy machine has been seen to take 30 times as long."""
ENDPOINT_FILE = "endpoint"


class AzureService:
    """One subscription in one process; disks, snapshots, groups and blobs stay in ``root``.

    Machines and their interfaces end with `stop`. A service that is started again on the same root
    has the same endpoint, unless somebody else took the port meanwhile.
    """

    def __init__(self, root: Path, **knobs: Any) -> None:
        self._root = root.resolve()
        self.knobs = Knobs(**knobs)
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
        argv = [sys.executable, "-m", "imageport.sandbox.azure.server"]
        argv += [str(self._root), self.knobs.to_json()]
        environment = {**os.environ, SERVICE_MARK: str(self._root)}
        child = Child("Azure emulator", argv, environment, self._root / "server.log")
        self._child = child
        try:
            child.wait_until(endpoint.exists, START_SECONDS)
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
        remove_folder(self._root / "machines")

    def kill(self) -> None:
        """End the process as a crash would: nothing is put in order."""
        if self._child is not None:
            self._child.kill()

    def turn(self, **knobs: Any) -> None:
        """Change knobs of the running emulator."""
        self.knobs.turn(knobs)
        self._ask("knobs", json.dumps(knobs).encode())

    def machines(self) -> list[dict[str, Any]]:
        """Return id, kind and ``busy`` of every machine that was switched on."""
        return list(self._ask("machines"))

    def violations(self) -> list[dict[str, Any]]:
        """Return the guests that were not started because they would not have been isolated."""
        return list(self._ask("violations"))

    def calls(self) -> list[str]:
        """Return every distinct action and data action that was asked for, sorted."""
        return list(self._ask("calls"))

    def forget_calls(self) -> None:
        """Begin the record of calls anew."""
        self._ask("calls", method="DELETE")

    def _ask(self, name: str, body: bytes | None = None, method: str | None = None) -> Any:
        url = f"{self.endpoint}/imageport/{name}"
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
