"""A process that uploads to Google and kills itself -9: run by `test_gcp_upload_kill`.

Arguments: endpoint of the emulator, key file of its service account, folder of the state store,
where to die, and how the archive is made (``segments`` or ``stream``).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.oauth2 import service_account

from imageport.clouds.gcp import composed_archive, image_upload
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.streamed_archive_target import StreamedArchiveTarget
from imageport.model import MIB
from imageport.sandbox.gcp.account import BUCKET, PROJECT, REGION, ZONE
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.transfer.synthetic_disk import DATA, HOLE, SyntheticDisk

TARGETS: dict[str, Any] = {"segments": SegmentTarget, "stream": StreamedArchiveTarget}
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
PUTS = 40
"""After how many blocks the process dies that dies between puts."""
NOTED_SECONDS = 1.0
"""The journal writes down what was put within a third of this."""


def the_disk() -> SyntheticDisk:
    layout = [(4 * MIB, DATA, number) for number in range(1, 9)]
    return SyntheticDisk([*layout, (8 * MIB, HOLE, 0)])


def upload(
    endpoint: str, key_file: Path, folder: Path, archive: str = "segments"
) -> TransferResult:
    """Upload the disk, going on from whatever an earlier process left in ``folder``."""
    settings = GcpSettings(PROJECT, REGION, ZONE, BUCKET, site="frankfurt", endpoint_url=endpoint)
    state = StateStore(LocalFolder(folder))
    credentials = service_account.Credentials.from_service_account_file(key_file, scopes=SCOPES)
    clients = GcpClients(settings, credentials)
    target = TARGETS[archive](GcpAccount(settings, clients, state.ledger, "run-1"), "gold")
    request = TransferRequest(
        state.journals.open("one"), "token", verify=VerifyLevel.FULL, partitions=()
    )
    try:
        return transfer(the_disk(), target, request)
    finally:
        target.close()
        clients.close()


def die(*_arguments: Any, **_named: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(call: Callable[..., Any]) -> Callable[..., Any]:
    def carried_out(*arguments: Any, **named: Any) -> None:
        call(*arguments, **named)
        die()

    return carried_out


def _die_among_puts(target: Any) -> None:
    put = target.put
    done = 0

    def counted(self: Any, *arguments: Any) -> None:
        nonlocal done
        put(self, *arguments)
        done += 1
        if done == PUTS:
            time.sleep(NOTED_SECONDS)
            die()

    target.put = counted


def arrange(where: str, archive: str) -> None:
    upload_of: Any = image_upload
    if where == "before the upload is recorded":
        upload_of.write_marker = then_die(upload_of.write_marker)
    elif where == "between puts":
        _die_among_puts(TARGETS[archive])
    elif where == "while blocks are joined":
        composer: Any = composed_archive.ObjectComposer
        composer.compose = then_die(composer.compose)
    elif where == "before the image is made":
        upload_of.insert_raw_image = die
    elif where == "before the image is recorded":
        upload_of.insert_raw_image = then_die(upload_of.insert_raw_image)
    elif where == "before the marker is deleted":
        upload_of.delete_marker = die
    else:
        raise SystemExit(f"no such place: {where}")


if __name__ == "__main__":
    arrange(sys.argv[4], sys.argv[5])
    upload(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[5])
