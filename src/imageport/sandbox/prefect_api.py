"""The few calls of the Prefect REST API that start a run, watch it and cancel it.

Nothing here is special to the embedded site: it is what the recipes in docs/api.md do with
``curl``. Source: Prefect 3 OpenAPI; a run is created by deployment id, never by name.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from imageport.errors import CloudUnavailable, InputError

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a flow run stands."""

    id: str
    type: str
    name: str
    message: str

    @property
    def is_terminal(self) -> bool:
        """Tell whether the run will not change any more."""
        return self.type in TERMINAL


class PrefectApi:
    """A client of one Prefect server."""

    def __init__(self, url: str, auth: str = "") -> None:
        user, _, password = auth.partition(":")
        self.url = url
        self._client = httpx.Client(
            base_url=url, auth=(user, password) if auth else None, timeout=30, trust_env=False
        )

    def is_healthy(self) -> bool:
        """Tell whether the server answers."""
        try:
            return self._client.get("/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def start(
        self, deployment: str, parameters: dict[str, Any], *, idempotency_key: str = ""
    ) -> str:
        """Create a run of ``flow/deployment`` and return its id.

        The same key returns the run that it created before. Without one a fresh key is sent, so
        that a call repeated after a lost answer starts no second run.
        """
        found = self._call("GET", f"/deployments/name/{deployment}")
        key = idempotency_key or uuid.uuid4().hex
        body = {"parameters": parameters, "idempotency_key": key}
        run = self._call("POST", f"/deployments/{found['id']}/create_flow_run", body)
        return str(run["id"])

    def state(self, run_id: str) -> RunState:
        """Return the state of a run."""
        run = self._call("GET", f"/flow_runs/{run_id}")
        state = run.get("state") or {}
        return RunState(
            run_id,
            str(state.get("type", "PENDING")),
            str(state.get("name", "")),
            str(state.get("message") or ""),
        )

    def wait(self, run_id: str, timeout_seconds: float, poll_seconds: float = 1.0) -> RunState:
        """Wait until the run ended; `CloudUnavailable` when it has not in time."""
        deadline = time.monotonic() + timeout_seconds
        while not (state := self.state(run_id)).is_terminal:
            if time.monotonic() > deadline:
                raise CloudUnavailable(
                    f"Cannot await run '{run_id}': still {state.name} after "
                    f"{timeout_seconds:.0f} s."
                )
            time.sleep(poll_seconds)
        return state

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run; its worker ends it."""
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        self._call("POST", f"/flow_runs/{run_id}/set_state", state)

    def logs(self, run_ids: list[str], offset: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        """Return log records of the runs, oldest first."""
        found = self._call(
            "POST",
            "/logs/filter",
            {
                "logs": {"flow_run_id": {"any_": run_ids}},
                "sort": "TIMESTAMP_ASC",
                "limit": limit,
                "offset": offset,
            },
        )
        return list(found)

    def all_logs(self, run_ids: list[str]) -> list[dict[str, Any]]:
        """Return every log record of the runs, oldest first."""
        found: list[dict[str, Any]] = []
        while records := self.logs(run_ids, offset=len(found)):
            found += records
        return found

    def child_runs(self, run_id: str) -> dict[str, str]:
        """Return the runs that a run started on other pools, each with its name."""
        found = self._call(
            "POST", "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
        )
        return {str(run["id"]): str(run["name"]) for run in found}

    def artifacts(self, run_ids: list[str]) -> list[dict[str, Any]]:
        """Return the newest version of every artifact that the runs wrote."""
        found = self._call(
            "POST",
            "/artifacts/filter",
            {"artifacts": {"flow_run_id": {"any_": run_ids}}, "limit": 200},
        )
        return list(found)

    def online_workers(self, pool: str) -> list[str]:
        """Return the names of a pool's workers that say they are there."""
        found = self._call("POST", f"/work_pools/{pool}/workers/filter", {})
        return [str(item["name"]) for item in found if item["status"] == "ONLINE"]

    def delete_unfinished(self) -> int:
        """Delete runs that never ended because their server was switched off; return how many.

        A laboratory's way: nobody is left to end them, and they would be taken for crashed.
        """
        states = ["RUNNING", "PENDING", "CANCELLING", "PAUSED"]
        wanted = {"flow_runs": {"state": {"type": {"any_": states}}}}
        waiting = {"flow_runs": {"state": {"name": {"any_": ["AwaitingRetry"]}}}}
        found = [
            run
            for body in (wanted, waiting)
            for run in self._call("POST", "/flow_runs/filter", body)
        ]
        for run in found:
            self._call("DELETE", f"/flow_runs/{run['id']}")
        return len(found)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        for attempt in range(6):
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                if attempt == 5:
                    raise CloudUnavailable(f"Cannot reach '{self.url}': {error}.") from error
                time.sleep(0.5 * 2**attempt)
                continue
            # A server on SQLite answers 503 while another writer holds the database.
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and attempt < 5:
                time.sleep(0.5 * 2**attempt)
                continue
            break
        if answer.is_server_error:
            raise CloudUnavailable(
                f"Cannot {method} '{path}': the Prefect server answered {answer.status_code}."
            )
        if answer.is_error:
            raise InputError(
                f"Cannot {method} '{path}': the Prefect server answered {answer.status_code}: "
                f"{answer.text[:500]}"
            )
        return answer.json() if answer.content else None
