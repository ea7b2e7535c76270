"""A Prefect server and its workers on this machine, for the embedded site.

SQLite, loopback and one auth string: right for a laboratory. README says what production takes.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from functools import partial
from pathlib import Path

from imageport.sandbox.prefect_api import PrefectApi
from imageport.sandbox.processes import MARK, Child

SERVER_START_SECONDS = 120.0
"""Measured 15 s on two idle cores with an empty database; migrations are CPU-bound."""
WORKER_START_SECONDS = 180.0
"""Measured 8 s on two idle cores; seen to take a minute on a busy machine."""


class ControlPlane:
    """The Prefect server of one embedded site."""

    def __init__(self, root: Path, site_root: Path) -> None:
        self._root = root
        self._site_root = site_root
        self._children: list[Child] = []
        self.workers: dict[str, Child] = {}
        root.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.auth = f"imageport:{_kept_secret(root / 'auth')}"
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.ui_url = f"http://127.0.0.1:{self.port}"
        self.api = PrefectApi(self.api_url, self.auth)

    def environment(self) -> dict[str, str]:
        """Return the variables under which Prefect's own programs find this server."""
        return {
            **os.environ,
            MARK: str(self._site_root),
            # The project's own programs (prefect, python) come first, whatever the shell had.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PREFECT_HOME": str(self._root / "home"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            # --port alone leaves the pages asking port 4200.
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            # Leases in memory are lost with the server, and with them limited long runs.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            "PREFECT_SERVER_ENCRYPTION_KEY": _kept_key(self._root / "encryption-key"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(self._root / "results"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_COLORS": "false",
            "NO_COLOR": "1",
        }

    def launch_server(self) -> None:
        """Start the server; others may start meanwhile (see `await_server`)."""
        argv = [sys.executable, "-m", "prefect", "server", "start"]
        argv += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._server = Child("Prefect server", argv, self.environment(), self._root / "server.log")
        self._children.append(self._server)

    def await_server(self) -> None:
        """Wait until the server answers."""
        self._server.wait_until(self.api.is_healthy, SERVER_START_SECONDS)

    def start_worker(self, pool: str, environment: dict[str, str] | None = None) -> Child:
        """Start one process worker for ``pool``; a second call after a crash starts another."""
        argv = [sys.executable, "-m", "prefect", "worker", "start"]
        argv += ["--pool", pool, "--type", "process", "--limit", "4", "--name", f"{pool}-worker"]
        folder = self._root / pool
        folder.mkdir(parents=True, exist_ok=True)
        child = Child(
            f"worker of {pool}",
            argv,
            {**self.environment(), **(environment or {})},
            folder / "worker.log",
        )
        self._children.append(child)
        self.workers[pool] = child
        return child

    def await_workers(self) -> None:
        """Wait until every worker has said to the server that it is there."""
        for pool, child in self.workers.items():
            child.wait_until(partial(self.is_online, pool), WORKER_START_SECONDS)

    def is_online(self, pool: str) -> bool:
        """Tell whether the pool's own worker is there; one that was killed still counts a while."""
        return f"{pool}-worker" in self.api.online_workers(pool)

    def stop(self) -> None:
        """End workers first, then the server; may be called twice."""
        for child in self._children:
            if child is not self._server:
                child.ask_to_end()  # they end side by side; each takes its seconds
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        self.api.close()


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kept_secret(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(18))
    return path.read_text()


def _kept_key(path: Path) -> str:
    """Return a Fernet key (32 random bytes, URL-safe base64) that outlives a restart."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32) + "=")
    return path.read_text()
