"""The emulator's process: ``python -m imageport.sandbox.aws.server ROOT KNOBS``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.emulator_process import serve

# Read by moto when it is imported.
MOTO_SETTINGS = {
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}


def main(root: Path, knobs: Knobs) -> None:
    """Serve until SIGTERM."""
    os.environ.update(MOTO_SETTINGS)
    from werkzeug.serving import make_server  # noqa: PLC0415 - after the settings

    from imageport.sandbox.aws.account_start import start_account  # noqa: PLC0415
    from imageport.sandbox.aws.http_front import HttpFront  # noqa: PLC0415

    emulator, keep = start_account(root, knobs)
    from moto.moto_server.werkzeug_app import MotoRequestHandler  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(
        "127.0.0.1", 0, HttpFront(emulator), threaded=True, request_handler=MotoRequestHandler
    )

    def close() -> None:
        emulator.hypervisor.stop_all()
        keep()

    serve(root, server, close)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Knobs.from_json(sys.argv[2]))
