# References: Azure Compute REST, "Virtual Machines - Retrieve Boot Diagnostics Data".
"""What the host saw of a guest: its serial console and its screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from azure.core.rest import HttpRequest

from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.names import VIRTUAL_MACHINES, parse_id
from imageport.errors import ResourceGone

LOG_BYTES: Final = 256 * 1024
"""The end of a console is what tells; Azure keeps more."""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What the host saw of a guest."""

    console_text: str
    screenshot: bytes


def read_diagnostics(
    account: AzureAccount, machine_id: str, *, screenshot: bool = False
) -> Diagnostics:
    """Return the serial console's text and, if asked for, a screenshot; empty when there is none.

    The addresses that Azure hands out for them are signed, so they never leave this function.
    """
    machine = parse_id(machine_id, VIRTUAL_MACHINES)
    with asked(f"{VIRTUAL_MACHINES}/retrieveBootDiagnosticsData/action", machine_id):
        found = account.clients.compute.virtual_machines.retrieve_boot_diagnostics_data(
            machine.group, machine.name, sas_uri_expiration_time_in_minutes=5
        )
    log = _fetch(account, machine_id, found.serial_console_log_blob_uri or "")
    picture = b""
    if screenshot:
        picture = _fetch(account, machine_id, found.console_screenshot_blob_uri or "")
    return Diagnostics(log[-LOG_BYTES:].decode(errors="replace"), picture)


def _fetch(account: AzureAccount, machine_id: str, url: str) -> bytes:
    if not url:
        return b""
    try:
        with asked("blob:GetBlob", machine_id):
            answer = account.clients.data.send_request(HttpRequest("GET", url))
            answer.raise_for_status()
            return bytes(answer.content)
    except ResourceGone:
        return b""  # a machine that has said nothing yet has no log
