# References: Azure REST API, Virtual Machines - Create Or Update; "Generation 2 VMs"; "Enable
# NVMe"; "FAQ: user name requirements"; "Custom data": 64 KiB.
"""What a new machine must satisfy before anything of it is made."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from imageport.sandbox.azure.account import ENGINE_IMAGE_ID, LOCATION
from imageport.sandbox.azure.arm_body import one_of
from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, not_allowed, required
from imageport.sandbox.azure.arm_messages import ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.machine_sizes import SIZES, MachineSize, find_size
from imageport.sandbox.azure.region_facts import REGIONAL, used_vcpus

Json = dict[str, Any]
MARKETPLACE = ("debian", "debian-12", "12-gen2")
"""Publisher, offer and sku of the one image of the marketplace that exists here."""
CUSTOM_DATA_BYTES = 65535
NAMES_NEVER = {
    "administrator", "admin", "user", "user1", "test", "user2", "test1", "user3", "admin1", "1",
    "123", "a", "actuser", "adm", "admin2", "aspnet", "backup", "console", "david", "guest",
    "john", "owner", "root", "server", "sql", "support", "support_388945a0", "sys", "test2",
    "test3", "user4", "user5",
}  # fmt: skip
_KEY = re.compile(r"(ssh-rsa|ssh-ed25519) ([A-Za-z0-9+/]+={0,2})( .*)?")
_COMPUTER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Booted:
    """What a machine boots from, as far as its hardware has to fit it."""

    os_type: str
    generation: str
    controllers: tuple[str, ...]
    architecture: str = "x64"


ENGINE = Booted("Linux", "V2", ("SCSI", "NVMe"))


def check_size(emulator: Emulator, request: ArmRequest, properties: Json) -> MachineSize:
    """Return the size of a machine; refuses unknown and missing ones and what exceeds a quota."""
    name = str((properties.get("hardwareProfile") or {}).get("vmSize") or "")
    if not name:
        raise required("hardwareProfile.vmSize")
    size = find_size(name)
    if size is None:
        text = (
            f"The value {name} provided for the VM size is not valid. The valid sizes in the "
            f"current region are: {','.join(item.name for item in SIZES)}. Find out more on the "
            "valid VM sizes in each region at https://aka.ms/azure-regions."
        )
        raise bad_parameter("vmSize", text)
    if size.name.lower() in {item.lower() for item in emulator.knobs.missing_sizes}:
        text = (
            "The requested VM size for resource 'Following SKUs have failed for Capacity "
            f"Restrictions: {size.name}' is currently not available in location '{LOCATION}'. "
            "Please try another size or deploy to a different location or different zone. See "
            "https://aka.ms/azureskunotavailable for details."
        )
        raise ArmError(409, "SkuNotAvailable", text, target=size.name)
    _check_quota(emulator, request, size)
    return size


def _check_quota(emulator: Emulator, request: ArmRequest, size: MachineSize) -> None:
    used = used_vcpus(emulator, without=request.key)
    limit = emulator.knobs.quota_vcpus
    for name, title in ((REGIONAL, "Total Regional"), (size.family, size.family)):
        if used[name] + size.vcpus > limit:
            text = (
                f"Operation could not be completed as it results in exceeding approved {title} "
                "Cores quota. Additional details - Deployment Model: Resource Manager, Location: "
                f"{LOCATION}, Current Limit: {limit}, Current Usage: {used[name]}, Additional "
                f"Required: {size.vcpus}, (Minimum) New Limit Required: "
                f"{used[name] + size.vcpus}. Please read more about quota limits at "
                "https://aka.ms/azurequotas"
            )
            raise not_allowed(text)


def check_fit(size: MachineSize, booted: Booted, storage: Json) -> str:
    """Return the disk controller of a machine; refuses a size that cannot boot the disk."""
    if booted.generation not in size.generations:
        text = (
            f"The selected VM size '{size.name}' cannot boot Hypervisor Generation "
            f"'{booted.generation[1]}'. If this was a Create operation please check that the "
            "Hypervisor Generation of the Image matches the Hypervisor Generation of the selected "
            "VM Size. If this was an Update operation please select a Hypervisor Generation "
            f"'{booted.generation[1]}' VM Size. For more information, see https://aka.ms/azuregen2vm"
        )
        raise ArmError(400, "BadRequest", text)
    if booted.architecture != size.architecture:
        text = (
            f"The selected VM size '{size.name}' has the CPU architecture '{size.architecture}', "
            f"the OS disk or image '{booted.architecture}'."
        )
        raise ArmError(400, "BadRequest", text)
    asked = storage.get("diskControllerType")
    if asked:
        asked = one_of(asked, ("SCSI", "NVMe"), "storageProfile.diskControllerType")
    offered = [item for item in size.controllers if asked in {None, "", item}]
    usable = [item for item in offered if item in booted.controllers]
    if not usable:
        text = (
            f"The VM size '{size.name}' cannot boot with OS image or disk. Please check that disk "
            "controller types supported by the OS image or disk is one of the supported disk "
            f"controller types for the VM size '{size.name}'. Please query sku api at "
            "https://aka.ms/azure-compute-skus to determine supported disk controller types for "
            "the VM size."
        )
        raise bad_parameter("diskControllerType", text)
    return usable[0]


def check_image(reference: Json) -> Booted:
    """Return what is known of the image that a machine is made from."""
    image_id = str(reference.get("id") or "")
    if image_id:
        if image_id.lower() != ENGINE_IMAGE_ID.lower():
            raise ArmError(404, "NotFound", f"The Image '{image_id}' cannot be found.")
        return ENGINE
    names = [str(reference.get(item) or "") for item in ("publisher", "offer", "sku", "version")]
    if not all(names):
        text = "imageReference needs publisher, offer, sku and version, or id."
        raise bad_parameter("imageReference", text)
    if tuple(item.lower() for item in names[:3]) != MARKETPLACE:
        text = (
            f"The platform image '{':'.join(names)}' is not available. Verify that all fields in "
            "the storage profile are correct. For more details about storage profile information, "
            "please refer to https://aka.ms/storageprofile"
        )
        raise ArmError(404, "PlatformImageNotFound", text, target="imageReference")
    return ENGINE


def check_os_profile(profile: Json | None) -> str:
    """Return the custom data of a machine made from an image, decoded."""
    if not profile:
        raise required("osProfile")
    computer = str(profile.get("computerName") or "")
    if not _COMPUTER.fullmatch(computer):
        text = f"Linux host name cannot exceed 64 characters or be '{computer}'."
        raise bad_parameter("computerName", text)
    user = str(profile.get("adminUsername") or "")
    if not user:
        raise required("osProfile.adminUsername")
    if user.lower() in NAMES_NEVER:
        text = "The Admin Username specified is not allowed."
        raise bad_parameter("adminUsername", text)
    _check_login(profile, user)
    return read_custom_data(str(profile.get("customData") or ""))


def _check_login(profile: Json, user: str) -> None:
    linux = profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or []
    if not keys and not profile.get("adminPassword"):
        text = "Authentication using either SSH or by user name and password must be enabled."
        raise bad_parameter("linuxConfiguration", text)
    if linux.get("disablePasswordAuthentication") and profile.get("adminPassword"):
        text = "Parameter 'osProfile.adminPassword' is not allowed."
        raise bad_parameter("adminPassword", text)
    for key in keys:
        path = f"/home/{user}/.ssh/authorized_keys"
        if key.get("path") != path:
            text = (
                f"Destination path for SSH public keys is currently limited to its default value "
                f"{path}  due to a known issue in Linux provisioning agent."
            )
            raise bad_parameter("linuxConfiguration.ssh.publicKeys.path", text)
        found = _KEY.fullmatch(str(key.get("keyData") or "").strip())
        if found is None or not _is_key(found[1], found[2]):
            text = "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid."
            raise bad_parameter("linuxConfiguration.ssh.publicKeys.keyData", text)


def _is_key(kind: str, data: str) -> bool:
    """Tell whether the key's own bytes say the same kind (RFC 4253, 6.6), and enough bits."""
    try:
        blob = base64.b64decode(data, validate=True)
    except ValueError:
        return False
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != kind.encode():
        return False
    return kind != "ssh-rsa" or len(blob) > 2048 // 8


def read_custom_data(encoded: str) -> str:
    """Return custom data as the machine gets it; refuses what is not base64, or too long."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        text = "Custom data in OSProfile must be in Base64 encoding."
        raise bad_parameter("customData", text) from error
    if len(data) > CUSTOM_DATA_BYTES:
        text = f"Custom data in OSProfile must have at most {CUSTOM_DATA_BYTES} bytes."
        raise bad_parameter("customData", text)
    return data.decode(errors="replace")
