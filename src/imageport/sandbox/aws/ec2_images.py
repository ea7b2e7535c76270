# References: Amazon EC2 API: RegisterImage, DescribeImages; "Boot modes"; "NitroTPM".
"""Machine images that keep what they were registered with, and one that the engine runs on."""

from __future__ import annotations

import copy
import time
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.responses.amis import AmisResponse

from imageport.sandbox.aws.ec2_snapshots import show_in_ec2
from imageport.sandbox.aws.emulator import ACCOUNT, current
from imageport.sandbox.aws.moto_patches import replaces
from imageport.sandbox.aws.snapshot_store import new_id
from imageport.sandbox.aws.stored_snapshot import SnapshotFacts

DEBIAN_OWNER = "136693071363"
"""The account under which Debian publishes (wiki.debian.org/Cloud/AmazonEC2Image)."""
DEBIAN_NAME = "debian-12-amd64-imageport-laboratory"
DEBIAN_ROOT = "/dev/xvda"
ENGINE_NAMES = ("imageport-engine", "debian-")
"""Images whose machines run a Python user-data script, as this computer's own distribution can."""


class KeptAmi(Ami):
    """An image over a given snapshot; moto's own makes one of 15 GiB of nothing."""

    def __init__(self, ec2_backend: Any, given: dict[str, Any], mappings: list[Any]) -> None:
        self.ec2_backend = ec2_backend
        self.id = new_id("ami")
        self.state = "available"
        self.image_type = "machine"
        self.image_location = f"{given.get('OwnerId', ACCOUNT)}/{given['Name']}"
        self.owner_id = given.get("OwnerId", ACCOUNT)
        self.owner_alias = None
        self.name = given["Name"]
        self.description = given.get("Description")
        self.virtualization_type = given.get("VirtualizationType", "paravirtual")
        self.architecture = given.get("Architecture", "i386")
        self.kernel_id = None
        self.platform = None
        self.hypervisor = "xen"
        self.root_device_name = given["RootDeviceName"]
        self.root_device_type = "ebs"
        self.sriov = "simple"
        self.creation_date = _now()
        self.product_codes = set()
        self.boot_mode = given.get("BootMode", "legacy-bios")
        self.tpm_support = given.get("TpmSupport")
        self.ena_support = bool(given.get("EnaSupport", False))
        self.instance_id = None
        self.launch_permissions = [{"Group": "all"}] if given.get("Public") else []
        self.mappings = mappings

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Return the devices as they were registered."""
        return copy.deepcopy(self.mappings)


@replaces(AmiBackend, "_load_amis", "hundreds of images with disks that nobody launches")
def _load_amis(self: Any) -> None:
    """Publish the one image that is in every region, as Debian does."""
    emulator = current()
    facts = SnapshotFacts(
        id=new_id("snap"),
        region=self.region_name,
        owner=DEBIAN_OWNER,
        size_gib=8,
        started=time.time(),
        description="Debian 12, the distribution of this computer stands in",
        status="completed",
    )
    emulator.snapshots.create(facts)
    given = {
        "Name": DEBIAN_NAME,
        "OwnerId": DEBIAN_OWNER,
        "Description": facts.description,
        "RootDeviceName": DEBIAN_ROOT,
        "VirtualizationType": "hvm",
        "Architecture": "x86_64",
        "BootMode": "uefi-preferred",
        "EnaSupport": True,
        "Public": True,
    }
    ebs = {
        "SnapshotId": facts.id,
        "VolumeSize": 8,
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
    }
    image = KeptAmi(self, given, [{"DeviceName": DEBIAN_ROOT, "Ebs": ebs}])
    self.amis[image.id] = image


def show_public_snapshots(backend: Any) -> None:
    """Show the snapshots behind public images; tags need the whole backend, so not before."""
    for image in list(backend.amis.values()):
        for mapping in image.block_device_mappings:
            stored = current().snapshots.get(mapping["Ebs"]["SnapshotId"])
            if stored is not None and stored.facts.id not in backend.snapshots:
                show_in_ec2(stored, backend).from_ami = image.id


@replaces(AmisResponse, "register_image", "moto drops all but name and description")
def _register_image(self: AmisResponse) -> ActionResult:
    names = (
        "Name", "Description", "Architecture", "VirtualizationType", "BootMode", "TpmSupport",
        "EnaSupport", "RootDeviceName",
    )  # fmt: skip
    given = {name: self._get_param(name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    backend = self.ec2_backend
    mappings = self._get_param("BlockDeviceMappings", [])
    self.error_on_dryrun()
    _check_image(backend, given, mappings)
    with current().lock:
        mappings = [_complete_mapping(backend, item) for item in mappings]
        image = KeptAmi(backend, given, mappings)
        backend.amis[image.id] = image
        for mapping in mappings:
            backend.get_snapshot(mapping["Ebs"]["SnapshotId"]).from_ami = image.id
        image.add_tags(self._parse_tag_specification("image").get("image", {}))
    return ActionResult({"ImageId": image.id})


def _check_image(backend: Any, given: dict[str, Any], mappings: list[dict[str, Any]]) -> None:
    if not 3 <= len(given.get("Name", "")) <= 128:
        raise EC2ClientError("InvalidAMIName.Malformed", "AMI names are 3 to 128 characters.")
    if any(
        image.name == given["Name"] and image.owner_id == ACCOUNT for image in backend.amis.values()
    ):
        raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {given['Name']} is in use.")
    root = given.get("RootDeviceName")
    if not root or root not in [item.get("DeviceName") for item in mappings]:
        raise EC2ClientError("InvalidBlockDeviceMapping", "The root device has no mapping.")
    if given.get("TpmSupport") and given.get("BootMode") != "uefi":
        raise EC2ClientError("InvalidParameterCombination", "NitroTPM needs BootMode uefi.")
    for mapping in mappings:
        snapshot_id = mapping.get("Ebs", {}).get("SnapshotId")
        if not snapshot_id:
            raise EC2ClientError("MissingParameter", "The mapping names no snapshot.")
        if backend.get_snapshot(snapshot_id).status != "completed":
            raise EC2ClientError(
                "InvalidSnapshot.InProgress", f"The snapshot {snapshot_id} is not completed."
            )


def _complete_mapping(backend: Any, mapping: dict[str, Any]) -> dict[str, Any]:
    ebs = dict(mapping["Ebs"])
    snapshot = backend.get_snapshot(ebs["SnapshotId"])
    size_gib = int(ebs.get("VolumeSize") or snapshot.volume_size)
    if size_gib < int(snapshot.volume_size):
        raise EC2ClientError(
            "InvalidBlockDeviceMapping", "The volume is smaller than its snapshot."
        )
    ebs |= {"VolumeSize": size_gib, "Encrypted": bool(snapshot.encrypted)}
    ebs.setdefault("VolumeType", "gp2")
    ebs.setdefault("DeleteOnTermination", True)
    return {"DeviceName": mapping["DeviceName"], "Ebs": ebs}


def _now() -> Any:
    from moto.core.utils import utcnow  # noqa: PLC0415 - moto's clock has no time zone

    return utcnow()
