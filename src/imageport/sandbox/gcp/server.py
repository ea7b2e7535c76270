"""The emulator's process: ``python -m imageport.sandbox.gcp.server ROOT KNOBS``."""

from __future__ import annotations

import sys
from pathlib import Path

from imageport.sandbox.emulator_process import endpoint_of, listen, serve
from imageport.sandbox.gcp.credential_files import write_credential_files
from imageport.sandbox.gcp.emulator import Emulator
from imageport.sandbox.gcp.http_front import HttpFront
from imageport.sandbox.gcp.knobs import Knobs


def main(root: Path, knobs: Knobs) -> None:
    """Serve until SIGTERM."""
    emulator = Emulator(root, knobs)
    server = listen(root, HttpFront(emulator))
    emulator.endpoint = endpoint_of(server)
    write_credential_files(root, emulator.tokens, emulator.endpoint)
    serve(root, server, emulator.close)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Knobs.from_json(sys.argv[2]))
