"""The emulator's process: ``python -m imageport.sandbox.azure.server ROOT KNOBS``."""

from __future__ import annotations

import sys
from pathlib import Path

from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.http_front import HttpFront
from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.azure.left_behind import take_up
from imageport.sandbox.azure.machine_power import guest_shut_down
from imageport.sandbox.emulator_process import endpoint_of, listen, serve


def main(root: Path, knobs: Knobs) -> None:
    """Serve until SIGTERM."""
    emulator = Emulator(root, knobs)
    emulator.hypervisor.on_shutdown = lambda machine_id: guest_shut_down(emulator, machine_id)
    take_up(emulator)
    server = listen(root, HttpFront(emulator))
    emulator.endpoint = endpoint_of(server)
    serve(root, server, emulator.hypervisor.stop_all)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Knobs.from_json(sys.argv[2]))
