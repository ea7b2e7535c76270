"""The Azure VM agent's installer in the operator's payload: found, and told from anything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imageport.compose.contract import Refusal
from imageport.compose.payload_files import MSI_SIGNATURE, inside, is_plain_name
from imageport.compose.refusals import refusal
from imageport.errors import InputError

_MAX_BYTES = 256 * 1024 * 1024
"""Published installers are about 10 MB; it is held in memory."""


@dataclass(frozen=True, slots=True)
class VmAgentPackage:
    """The installer; ``name`` is safe in a line of cmd.exe."""

    name: str
    path: Path


def find_vm_agent(payload: Path | None, name: str) -> tuple[VmAgentPackage | None, list[Refusal]]:
    """Return the installer that the option names, relative to the payload, and what is wrong."""
    if not name:
        return None, []
    if payload is None:
        reason = f"VM agent '{name}' is named, no payload is given."
        return None, [refusal("vm_agent", reason)]
    try:
        return _package(inside(payload, name)), []
    except InputError as error:
        return None, [refusal("vm_agent", error.message)]


def _package(path: Path) -> VmAgentPackage:
    if path.suffix.lower() != ".msi" or not path.is_file():
        raise InputError(f"Bad VM agent '{path.name}': needed an MSI file.")
    if not is_plain_name(path.name):
        raise InputError(f"Bad VM agent '{path.name}': its name is not plain.")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(f"Bad VM agent '{path.name}': {size} bytes, needed 256 MiB or less.")
    with path.open("rb") as file:
        head = file.read(len(MSI_SIGNATURE))
    if head != MSI_SIGNATURE:
        raise InputError(
            f"Bad VM agent '{path.name}': found {head.hex() or 'nothing'} at offset 0, needed "
            f"{MSI_SIGNATURE.hex()} (an MSI's first bytes)."
        )
    return VmAgentPackage(path.name, path)
