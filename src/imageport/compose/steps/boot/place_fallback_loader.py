# References: UEFI 2.10 §3.5.1.1 (removable media boot behaviour: \EFI\BOOT\BOOTx64.EFI).
r"""``\EFI\Boot\bootx64.efi``: what firmware starts that has no boot entries, as a new machine's."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.guest_paths import shown_file
from imageport.compose.refusals import ESP_LOADER, refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.boot.convert_to_uefi import BOOT_MANAGER_SOURCE
from imageport.compose.volumes.efi_program import (
    HEAD_BYTES,
    MAX_PROGRAM_BYTES,
    efi_program_problem,
)
from imageport.compose.volumes.guest_files import GuestFiles

BOOT_MANAGER_ON_ESP = "EFI/Microsoft/Boot/bootmgfw.efi"


class PlaceFallbackLoader(Step):
    r"""Put Windows' boot manager where a new machine's firmware looks, where nothing is there."""

    name: ClassVar[str] = "place_fallback_loader"
    tier: ClassVar[Tier] = Tier.REQUIRED

    def reason(self, facts: Facts) -> str:
        """Return "" where a loader is, and on disks without an EFI partition."""
        return f"{shown_file(ESP_LOADER)} is missing" if _is_missing(facts) else ""

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Return that there is nothing to take it from."""
        if not _is_missing(facts):
            return []
        source, why = _source(facts)
        if source is not None:
            return []
        reason = f"{shown_file(ESP_LOADER)} is missing, and {' and '.join(why)}."
        return [refusal("esp_loader_missing", reason)]

    def run(self, context: Context) -> None:
        """Copy the boot manager of the EFI partition, else the one that Windows keeps."""
        source, _ = _source(context)
        if source is not None:
            files, path = source
            context.recorder.add_boot_file(ESP_LOADER, files.read(path, files.size_bytes(path)))


def _is_missing(facts: Facts) -> bool:
    is_uefi = facts.inspection.firmware == "uefi"
    return is_uefi and facts.boot_files is not None and not facts.boot_files.exists(ESP_LOADER)


def _source(facts: Facts) -> tuple[tuple[GuestFiles, str] | None, list[str]]:
    """Return the first real boot manager, or why each place has none."""
    why = []
    places = (facts.boot_files, BOOT_MANAGER_ON_ESP), (facts.files, BOOT_MANAGER_SOURCE)
    for files, path in places:
        if files is None or not files.exists(path):
            why.append(f"{shown_file(path)} does not exist")
            continue
        problem = efi_program_problem(files.read(path, HEAD_BYTES))
        if files.size_bytes(path) > MAX_PROGRAM_BYTES:
            problem = f"larger than {MAX_PROGRAM_BYTES} bytes"
        if not problem:
            return (files, path), []
        why.append(f"{shown_file(path)} is {problem}")
    return None, why
