"""The process of an emulated cloud, ``python -m MODULE ROOT KNOBS``: where it answers, how it ends.

`imageport.sandbox.emulator_service` starts it and waits for the file that tells its endpoint.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from imageport.sandbox.emulator_service import ENDPOINT_FILE
from imageport.sandbox.http_server import Wsgi, WsgiServer

PORT_FILE: Final = "port"


class _Server(Protocol):
    @property
    def server_port(self) -> int: ...

    def serve_forever(self) -> None:
        """Answer until an exception ends it."""


def listen(root: Path, application: Wsgi) -> WsgiServer:
    """Listen where an earlier process of this root did, if the port is free.

    Clouds do not move: clients and jobs keep the addresses that they were given.
    """
    kept = root / PORT_FILE
    server = _listen_again(kept, application) or WsgiServer(0, application)
    kept.write_text(str(server.server_port))
    return server


def endpoint_of(server: _Server) -> str:
    """Return where a server of this computer answers."""
    return f"http://127.0.0.1:{server.server_port}"


def serve(root: Path, server: _Server, close: Callable[[], None]) -> None:
    """Tell the endpoint and serve until SIGTERM, then close: machines end before the process."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the site's to handle
    part = root / f"{ENDPOINT_FILE}.part"
    part.write_text(endpoint_of(server))
    part.rename(root / ENDPOINT_FILE)
    try:
        server.serve_forever()
    finally:
        close()


def _listen_again(kept: Path, application: Wsgi) -> WsgiServer | None:
    if not kept.exists():
        return None
    try:
        return WsgiServer(int(kept.read_text()), application)
    except (OSError, ValueError):
        return None  # taken meanwhile, or half written by a killed process: any port will do


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
