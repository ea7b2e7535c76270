"""Every reason not to touch a guest, found before anything is written and reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imageport.compose.cloud_target import TARGETS, CloudTarget
from imageport.compose.contract import Action, EngineJob, Inspection, Refusal
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.drivers.installed_drivers import infs_for
from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.hives.registry import EDITED_HIVES, Registry, hive_header
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import PartitionTable

MIN_FREE_BYTES = 512 * 1024 * 1024
"""First boot installs drivers and writes logs; Windows itself misbehaves below this."""
ESP_LOADER = "EFI/Boot/bootx64.efi"
_HIBERNATED = (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR")
"""First bytes of a hiberfil.sys that holds a session; an unused one begins with zeros."""
_FIRST_SUPPORTED_MAJOR = "10."

_HINTS = {
    "wrong_disk": "Attach the disk that this job was made for; nothing was written.",
    "dynamic_disk": "Convert the disk to basic in Windows, or make a new basic image.",
    "needs_uefi": "Convert the image to GPT and UEFI (mbr2gpt) and start it once that way: "
    "cloud machines that stream from Provisioning Services boot by UEFI.",
    "bitlocker": "Decrypt the volume in Windows (manage-bde -off C:), shut down, try again.",
    "unknown_guest": "Use an image of Windows 10, 11 or Server 2016 and later, 64-bit.",
    "dirty_ntfs": "Start the image once, run chkdsk, shut it down by the menu (not by power off).",
    "hibernated": "Start the image, run `powercfg /h off`, shut down with `shutdown /s /t 0`.",
    "dirty_hive": "Start the image once and shut it down cleanly, so that Windows writes its "
    "registry out.",
    "bad_hive": "The registry is damaged: restore the image from a good copy.",
    "esp_loader_missing": "In Windows run `bcdboot C:\\Windows /s S: /f UEFI` with the EFI "
    "partition mounted as S:.",
    "pvs_target_missing": "Install the Citrix Provisioning target device software in the image.",
    "low_free_space": "Free space on the Windows volume, for example with cleanmgr.",
    "driver_missing": "Put the network driver's package (for AWS: ENA) into the site's payload "
    "folder and name its folder in the options.",
    "vm_agent": "Put the agent's MSI (WindowsAzureVmAgent.*.msi) into the site's payload folder "
    "and name it in the option, relative to that folder.",
    "dotnet_missing": "Install .NET Framework 4.8 in the image, or leave the VM agent out.",
    "no_host_time": "Repair the image (`w32tm /unregister`, `w32tm /register`), or leave the step "
    "out: Windows then keeps the time source it has.",
    "no_power_scheme": "Run `powercfg -duplicatescheme 8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c "
    "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c` in the image, or leave the step out.",
    "hosts_file": "Take the line out of the image's hosts file, or leave the step out.",
    "own_step": "Correct the file in the site's payload folder, or leave the step out.",
    "already_prepared": "Delete the folder \\Windows\\ImageportFirstBoot in the image.",
    "unknown_step": "Use names from the list of recommended steps.",
    "bad_option": "Correct the option and start again.",
}


def refusal(code: str, reason: str) -> Refusal:
    """Return a refusal with the hint for its code."""
    return Refusal(code, reason, _HINTS[code])


def disk_refusals(table: PartitionTable, job: EngineJob) -> list[Refusal]:
    """Judge the disk by its partition table alone."""
    found = []
    wanted = job.disk.disk_guid.strip("{}").lower()
    must_name = job.action in {Action.COMPOSE, Action.VERIFY} and table.scheme != "none"
    if (wanted or must_name) and wanted != table.disk_guid.lower():
        found.append(
            refusal(
                "wrong_disk",
                f"The disk's identity is '{table.disk_guid}', the job is for '{wanted}'.",
            )
        )
    if table.is_dynamic:
        found.append(refusal("dynamic_disk", "The system disk is a dynamic disk."))
    target = TARGETS.get(job.options.cloud)
    is_uefi_only = target is not None and target.is_uefi_only
    if (job.options.provisioning == "pvs" or is_uefi_only) and table.scheme != "gpt":
        reason = f"The disk's partition scheme is {table.scheme}, not GPT."
        if is_uefi_only:
            reason += f" Images for {job.options.cloud} are made for generation 2 machines only."
        found.append(refusal("needs_uefi", reason))
    return found


def volume_refusals(files: GuestFiles, action: Action) -> list[Refusal]:
    """Judge the mounted Windows volume: hibernation, free space and the state of its hives."""
    found = []
    if files.exists("hiberfil.sys") and files.read("hiberfil.sys", 4).startswith(_HIBERNATED):
        found.append(refusal("hibernated", "hiberfil.sys holds a hibernated session."))
    free = files.free_bytes()
    if free < MIN_FREE_BYTES:
        found.append(
            refusal(
                "low_free_space",
                f"The Windows volume has {free} bytes free, {MIN_FREE_BYTES} are needed.",
            )
        )
    if action is not Action.VERIFY and files.exists(FOLDER):
        found.append(refusal("already_prepared", "The image holds an earlier first boot's folder."))
    return found + hive_refusals(files)


def hive_refusals(files: GuestFiles) -> list[Refusal]:
    """Judge the hives that would be changed by their base blocks."""
    found = []
    for name in EDITED_HIVES:
        header = hive_header(files, name)
        if header is None:
            if name != "DRIVERS":  # made by Windows when the first driver is added
                found.append(refusal("bad_hive", f"Hive {name} is missing."))
        elif header.is_dirty:
            found.append(
                refusal(
                    "dirty_hive",
                    f"Hive {name} has sequence numbers {header.sequence1} and "
                    f"{header.sequence2}: changes still lie in its logs.",
                )
            )
        elif header.problem:
            found.append(refusal("bad_hive", f"Hive {name}: {header.problem}."))
    return found


def esp_refusals(esp: GuestFiles | None, table: PartitionTable) -> list[Refusal]:
    """Judge the EFI system partition: cloud machines start with an empty boot entry list."""
    if table.scheme != "gpt":
        return []
    if esp is None:
        return [refusal("esp_loader_missing", "The disk has no readable EFI system partition.")]
    if not esp.exists(ESP_LOADER):
        return [refusal("esp_loader_missing", "\\EFI\\Boot\\bootx64.efi is missing.")]
    return []


def guest_refusals(inspection: Inspection, job: EngineJob) -> list[Refusal]:
    """Judge what was found in the guest."""
    found = []
    if not inspection.build.startswith(_FIRST_SUPPORTED_MAJOR):
        found.append(
            refusal(
                "unknown_guest",
                f"'{inspection.product_name}' {inspection.build or 'of no known build'} is not "
                "supported.",
            )
        )
    if inspection.architecture != "x86_64":
        found.append(
            refusal(
                "unknown_guest",
                f"The processor architecture is '{inspection.architecture}', needed x86_64.",
            )
        )
    if job.options.provisioning == "pvs" and not inspection.pvs_target_version:
        found.append(
            refusal("pvs_target_missing", "No Citrix Provisioning target device software found.")
        )
    return found


def driver_refusals(
    registry: Registry,
    packages: Sequence[DriverPackage],
    job: EngineJob,
    target: CloudTarget,
) -> list[Refusal]:
    """Judge whether one of the target's network adapters will have a driver."""
    wanted = job.options.required_nic_ids or target.nic_ids
    for hardware_id in wanted:
        if infs_for(registry, hardware_id) or any(p.inf.serves(hardware_id) for p in packages):
            return []
    missing = refusal(
        "driver_missing",
        f"Neither the image nor the payload has a driver for {' or '.join(wanted)}.",
    )
    own_hint = target.nic_hint and not job.options.required_nic_ids
    return [replace(missing, hint=target.nic_hint) if own_hint else missing]
