"""Every reason not to touch a guest, found before anything is written and reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from imageport.compose.cloud_target import TARGETS, CloudTarget
from imageport.compose.contract import Action, EngineJob, Inspection, Refusal, Software
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.drivers.installed_drivers import infs_for, stored_package
from imageport.compose.hives.registry import HiveCopies, Registry
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import PartitionTable

MIN_FREE_BYTES = 512 * 1024 * 1024
"""First boot installs drivers and writes logs; Windows itself misbehaves below this."""
ESP_LOADER = "EFI/Boot/bootx64.efi"
HIBERNATION_FILE = "hiberfil.sys"
_HIBERNATED = (b"hibr", b"HIBR", b"rstr", b"RSTR")
"""First bytes of a hiberfil.sys that holds a session, or one half brought back. An unused one
begins with zeros, one that was brought back whole with ``wake``."""
_LINUX_CONTENTS = {
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "swap", "LVM2_member", "crypto_LUKS",
    "linux_raid_member", "zfs_member",
}  # fmt: skip
"""Words of blkid for what Linux and no Windows makes."""
_FIRST_SUPPORTED_MAJOR = "10."

_HINTS = {
    "wrong_disk": "Attach the disk that this job was made for; nothing was written.",
    "dynamic_disk": "Convert the disk to basic in Windows, or make a new basic image.",
    "needs_uefi": "Set the option convert_to_uefi, or convert the image in Windows (mbr2gpt). "
    "Machines that stream from Provisioning Services, and all that Azure makes, boot by UEFI.",
    "no_uefi_conversion": "Correct what is named and start again, or convert the image in Windows "
    "(mbr2gpt /convert /allowFullOS); nothing was written.",
    "bitlocker": "Decrypt the volume in Windows (manage-bde -off C:), shut down, try again.",
    "unknown_guest": "Use an image of Windows 10, 11 or Server 2016 and later, 64-bit.",
    "dirty_ntfs": "Start the image once, run chkdsk, shut it down by the menu (not by power off).",
    "hibernated": "Start the image, run `powercfg /h off`, shut down with `shutdown /s /t 0`.",
    "dirty_hive": "Start the image once and shut it down cleanly, so that Windows writes its "
    "registry out.",
    "bad_hive": "The registry is damaged: restore the image from a good copy.",
    "esp_loader_missing": "In Windows run `bcdboot C:\\Windows /s S: /f UEFI` with the EFI "
    "partition mounted as S:.",
    "pvs_target_missing": "Install the Citrix Provisioning target device software in the image, or "
    "name its installer in the option `installers`.",
    "installer": "Put the installer that the option means into the site's payload folder, and its "
    "sha256 into the option.",
    "no_silent_uninstall": "Uninstall the software in the image, or leave the step out.",
    "vda_missing": "Install the Virtual Delivery Agent in the image, or name its installer.",
    "low_free_space": "Free space on the Windows volume, for example with cleanmgr.",
    "driver_missing": "Put the driver's package (AWS: ENA; Google Cloud: vioscsi, and gVNIC or "
    "netkvm) into the site's payload folder and name its folder in the options.",
    "vm_agent": "Put the agent's MSI (WindowsAzureVmAgent.*.msi) into the site's payload folder "
    "and name it in the option, relative to that folder.",
    "dotnet_missing": "Install .NET Framework 4.8 in the image, or leave the VM agent out.",
    "no_host_time": "Repair the image (`w32tm /unregister`, `w32tm /register`), or leave the step "
    "out: Windows then keeps the time source it has.",
    "no_power_scheme": "Run `powercfg -duplicatescheme 8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c "
    "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c` in the image, or leave the step out.",
    "hosts_file": "Take the line out of the image's hosts file, or leave the step out.",
    "own_step": "Correct the file in the site's payload folder, or leave the step out.",
    "already_prepared": "Take an image that was never prepared, or start this one until it shuts "
    "down by itself; the folder \\Windows\\ImageportFirstBoot says what came of it.",
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
    becomes_uefi = job.options.convert_to_uefi and table.scheme == "mbr"
    needs_uefi = job.options.provisioning == "pvs" or is_uefi_only
    if needs_uefi and table.scheme != "gpt" and not becomes_uefi:
        reason = f"The disk's partition scheme is {table.scheme}, not GPT."
        if is_uefi_only:
            reason += f" Images for {job.options.cloud} are made for generation 2 machines only."
        found.append(refusal("needs_uefi", reason))
    return found


def volume_refusals(files: GuestFiles) -> list[Refusal]:
    """Judge the mounted Windows volume: hibernation and free space."""
    found = []
    if holds_session(files):
        found.append(refusal("hibernated", "hiberfil.sys holds a hibernated session."))
    free = files.free_bytes()
    if free < MIN_FREE_BYTES:
        found.append(
            refusal(
                "low_free_space",
                f"The Windows volume has {free} bytes free, {MIN_FREE_BYTES} are needed.",
            )
        )
    return found


def holds_session(files: GuestFiles) -> bool:
    """Say whether the hibernation file is there and Windows would go on from it."""
    is_there = files.exists(HIBERNATION_FILE)
    return is_there and files.read(HIBERNATION_FILE, 4).startswith(_HIBERNATED)


def hive_refusals(hives: HiveCopies) -> list[Refusal]:
    """Judge the hives that would be changed: written out to the end, or sound after their logs."""
    return [refusal(item.code, item.reason) for item in hives.damage]


def no_windows_reason(contents: Mapping[str, str]) -> str:
    """Return why there is nothing to prepare; ``contents`` are blkid's words by partition."""
    known = [f"{where} holds {kind}" for where, kind in contents.items() if kind]
    reason = "No partition holds a Windows system"
    if known:
        reason += f": {', '.join(known)}"
    if any(kind in _LINUX_CONTENTS for kind in contents.values()):
        reason += "; this looks like Linux"
    return f"{reason}."


def with_fast_startup_told(found: list[Refusal], registry: Registry) -> list[Refusal]:
    """Return the refusals with what the registry says about a session in ``hiberfil.sys``."""
    place = f"{registry.current_control_set}\\Control\\Session Manager\\Power"
    is_on = registry.number("SYSTEM", place, "HiberbootEnabled") == 1
    told = "hiberfil.sys holds a hibernated session; Fast Startup is off."
    if is_on:
        told = (
            "hiberfil.sys holds a session, and Fast Startup is on (HiberbootEnabled = 1): a "
            "shutdown by the menu leaves the kernel's session there."
        )
    return [replace(one, reason=told) if one.code == "hibernated" else one for one in found]


def esp_refusals(esp: GuestFiles | None, table: PartitionTable) -> list[Refusal]:
    """Judge the EFI system partition: cloud machines start with an empty boot entry list."""
    if table.scheme == "gpt" and esp is None:
        return [refusal("esp_loader_missing", "The disk has no readable EFI system partition.")]
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
    is_brought = any(i.software == Software.PVS_TARGET for i in job.options.installers)
    is_there = bool(inspection.pvs_target_version)
    if job.options.provisioning == "pvs" and not is_there and not is_brought:
        found.append(
            refusal("pvs_target_missing", "No Citrix Provisioning target device software found.")
        )
    return found


def driver_refusals(
    registry: Registry,
    files: GuestFiles,
    packages: Sequence[DriverPackage],
    job: EngineJob,
    target: CloudTarget,
) -> list[Refusal]:
    """Judge whether one of the target's network adapters will have a driver.

    One whose package is gone from the driver store is none.
    """
    wanted = job.options.required_nic_ids or target.nic_ids
    for hardware_id in wanted:
        found = infs_for(registry, hardware_id)
        if any(stored_package(registry, files, hive, inf) for hive, inf in found):
            return []
        if any(package.inf.serves(hardware_id) for package in packages):
            return []
    missing = refusal(
        "driver_missing",
        f"Neither the image nor the payload has a driver for {' or '.join(wanted)}.",
    )
    own_hint = target.nic_hint and not job.options.required_nic_ids
    return [replace(missing, hint=target.nic_hint) if own_hint else missing]
