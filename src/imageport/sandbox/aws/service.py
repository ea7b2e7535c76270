"""Starts and stops the emulated AWS account of an embedded site."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any, Self

from imageport.sandbox.aws.iam_policy import Check
from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.machines.left_mounts import remove_folder
from imageport.sandbox.processes import SERVICE_MARK, Child, end_marked

START_SECONDS = 180.0
"""Importing moto takes 3 s of an idle core; seen to take 30 s on a busy machine."""
ENDPOINT_FILE = "endpoint"


class AwsService:
    """One account in one process; its snapshots stay in ``root`` over a restart.

    Volumes, machines, buckets and networks end with `stop`.
    """

    def __init__(
        self,
        root: Path,
        *,
        throttle_rps: float = 0,
        fault_rate: float = 0.0,
        seed: int = 0,
        **knobs: Any,
    ) -> None:
        self._root = root.resolve()
        self.knobs = Knobs(throttle_rps=throttle_rps, fault_rate=fault_rate, seed=seed, **knobs)
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
        argv = [sys.executable, "-m", "imageport.sandbox.aws.server"]
        argv += [str(self._root), self.knobs.to_json()]
        environment = {**os.environ, SERVICE_MARK: str(self._root)}
        # Compiling moto anew at every start takes longer than everything else in it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        child = Child("AWS emulator", argv, environment, self._root / "server.log")
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
        for name in ("machines", "volumes"):
            remove_folder(self._root / name)

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

    def calls(self, *, asked: bool = False) -> list[str]:
        """Return the distinct IAM actions carried out since the start or `forget_calls`, sorted.

        ``asked`` takes refused requests and dry runs in: what the policy is asked about.
        """
        return list(self._ask("calls")["asked" if asked else "done"])

    def checks(self) -> list[Check]:
        """Return every distinct question that IAM was asked, with resources and tags."""
        return [Check(*item) for item in self._ask("calls")["checks"]]

    def forget_calls(self) -> None:
        """Start recording anew."""
        self._ask("calls", b"{}")

    def _ask(self, name: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.endpoint}/imageport/{name}", data=body)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
