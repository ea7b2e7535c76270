# References: Service Quotas, L-1216C47A; Amazon EC2 API: DescribeInstanceTypeOfferings, "Error
# codes" (VcpuLimitExceeded, Unsupported).
"""What the account may run and the zone offers: moto takes any number of any type anywhere."""

from __future__ import annotations

import re
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES, InstanceTypeOfferingBackend
from moto.servicequotas.models import ServiceQuotasBackend

from imageport.sandbox.aws.emulator import ACCOUNT, current
from imageport.sandbox.aws.moto_patches import replaces

STANDARD_QUOTA = "L-1216C47A"
STANDARD_TYPE = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)[0-9]")
"""The families A, C, D, H, I, M, R, T and Z; others (hpc, inf, x, …) have quotas of their own."""
LIVE = {"pending", "running"}
"""Stopped machines use nothing of the quota ("Amazon EC2 instance type quotas")."""

_moto_offerings = InstanceTypeOfferingBackend.describe_instance_type_offerings
_moto_quota = ServiceQuotasBackend.get_service_quota


def vcpus_of(instance_type: str) -> int:
    """Return the processors of a type, 0 for one that does not exist."""
    found = INSTANCE_TYPES.get(instance_type, {})
    return int(found.get("VCpuInfo", {}).get("DefaultVCpus", 0))


def is_standard(instance_type: str) -> bool:
    """Tell whether the quota of standard types counts this one."""
    return bool(STANDARD_TYPE.match(instance_type))


def check_launch(backend: Any, instance_type: str, subnet_id: str | None, count: int) -> None:
    """Refuse a launch that AWS would refuse."""
    subnet = backend.get_subnet(subnet_id) if subnet_id else None
    if subnet is not None and not _offered(backend, instance_type, subnet.availability_zone):
        raise EC2ClientError(
            "Unsupported",
            f"Your requested instance type ({instance_type}) is not supported in your requested "
            f"Availability Zone ({subnet.availability_zone}).",
        )
    if not is_standard(instance_type):
        return
    wanted = vcpus_of(instance_type) * count
    if used_vcpus(backend) + wanted > current().knobs.quota_vcpus:
        raise EC2ClientError(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of "
            f"{current().knobs.quota_vcpus:.0f} allows for the instance bucket that the "
            "specified instance type belongs to.",
        )


def used_vcpus(backend: Any) -> int:
    """Return the processors of the live standard machines of a region."""
    machines = [item for one in backend.reservations.values() for item in one.instances]
    return sum(
        vcpus_of(item.instance_type)
        for item in machines
        if item.state in LIVE and is_standard(item.instance_type)
    )


def _offered(backend: Any, instance_type: str, zone: str) -> bool:
    filters = {"instance-type": [instance_type], "location": [zone]}
    return bool(backend.describe_instance_type_offerings("availability-zone", filters))


@replaces(
    InstanceTypeOfferingBackend, "describe_instance_type_offerings", "every zone offers everything"
)
def _offerings(
    self: Any, location_type: str | None = None, filters: dict[str, Any] | None = None
) -> list[Any]:
    found = _moto_offerings(self, location_type, filters)
    missing = current().knobs.missing_types
    return [item for item in found if item["InstanceType"] not in missing]


@replaces(ServiceQuotasBackend, "get_service_quota", "moto knows the quotas of VPC only")
def _quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
    if (service_code, quota_code) != ("ec2", STANDARD_QUOTA):
        return _moto_quota(self, service_code, quota_code)
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{self.region_name}:{ACCOUNT}:ec2/{STANDARD_QUOTA}",
        "QuotaCode": STANDARD_QUOTA,
        "QuotaName": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        "Value": current().knobs.quota_vcpus,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
