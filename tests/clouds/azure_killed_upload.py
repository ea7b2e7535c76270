"""A process that uploads to Azure and kills itself -9: run by `test_azure_target_kill`.

Arguments: endpoint of the emulator, folder of the state store, where to die.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imageport.clouds.azure import managed_disk_target
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.credentials import laboratory_credential
from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget
from imageport.clouds.azure.settings import AzureSettings
from imageport.model import MIB
from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP, SUBSCRIPTION
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.transfer.synthetic_disk import DATA, HOLE, SyntheticDisk

PUTS = 4
"""After how many runs of blocks the process dies that dies between puts."""
NOTED_SECONDS = 1.0
"""The journal writes down what was put within a third of this."""


def the_disk() -> SyntheticDisk:
    layout = [(4 * MIB, DATA, number) for number in range(1, 9)]
    return SyntheticDisk([*layout, (8 * MIB, HOLE, 0)])


def upload(endpoint: str, folder: Path) -> TransferResult:
    """Upload the disk, going on from whatever an earlier process left in ``folder``."""
    settings = AzureSettings(
        SUBSCRIPTION, RESOURCE_GROUP, LOCATION, site="frankfurt", endpoint_url=endpoint
    )
    state = StateStore(LocalFolder(folder))
    clients = AzureClients(settings, laboratory_credential(endpoint))
    target = ManagedDiskTarget(AzureAccount(settings, clients, state.ledger, "run-1"), "gold")
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


def _die_among_puts() -> None:
    put_run = ManagedDiskTarget.put_run
    done = 0

    def counted(self: ManagedDiskTarget, *arguments: Any) -> None:
        nonlocal done
        put_run(self, *arguments)
        done += 1
        if done == PUTS:
            time.sleep(NOTED_SECONDS)
            die()

    ManagedDiskTarget.put_run = counted  # type: ignore[method-assign]


def arrange(where: str) -> None:
    target: Any = managed_disk_target
    if where == "before the disk is recorded":
        target.create_upload_disk = then_die(target.create_upload_disk)
    elif where == "between puts":
        _die_among_puts()
    elif where == "after the upload is closed":
        target.create_snapshot = die
    elif where == "before the snapshot is recorded":
        target.create_snapshot = then_die(target.create_snapshot)
    elif where == "before the disk is deleted":
        target.delete_disk = die
    else:
        raise SystemExit(f"no such place: {where}")


if __name__ == "__main__":
    arrange(sys.argv[3])
    upload(sys.argv[1], Path(sys.argv[2]))
