"""The emulator's process: ``python -m imageport.sandbox.gcp.server ROOT KNOBS``.

Writes its endpoint to ``ROOT/endpoint`` when it answers. SIGTERM ends all machines first.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from imageport.sandbox.gcp.credential_files import write_credential_files
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.http_front import HttpFront
from imageport.sandbox.gcp.knobs import Knobs
from imageport.sandbox.http_server import WsgiServer

ENDPOINT_FILE = "endpoint"
PORT_FILE = "port"


def main(root: Path, knobs: Knobs) -> None:
    """Serve until SIGTERM."""
    emulator = Emulator(root, knobs)
    server = _listen(root, HttpFront(emulator))
    emulator.endpoint = f"http://127.0.0.1:{server.server_port}"
    write_credential_files(root, emulator.tokens, emulator.endpoint)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the site's to handle
    (root / PORT_FILE).write_text(str(server.server_port))
    part = root / f"{ENDPOINT_FILE}.part"
    part.write_text(emulator.endpoint)
    part.rename(root / ENDPOINT_FILE)
    try:
        server.serve_forever()
    finally:
        emulator.close()


def _listen(root: Path, front: HttpFront) -> WsgiServer:
    """Listen where an earlier process of this root did, if the port is free.

    Google does not move: clients and jobs keep the addresses that they were given.
    """
    before = root / PORT_FILE
    if before.exists():
        try:
            return WsgiServer(int(before.read_text()), front)
        except OSError:
            pass  # taken meanwhile: any port will do
    return WsgiServer(0, front)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Knobs.from_json(sys.argv[2]))
