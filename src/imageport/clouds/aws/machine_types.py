# References: Amazon EC2 API Reference: DescribeInstanceTypes, DescribeInstanceTypeOfferings;
# Amazon EC2 User Guide, "Amazon EC2 instance type quotas"; Service Quotas, L-1216C47A.
"""Whether the two machine types of the settings exist where they are wanted, and may run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from imageport.cloud import PlaceProblem
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.error_mapping import asked
from imageport.errors import CloudRefused, ResourceGone

STANDARD_QUOTA = "L-1216C47A"
STANDARD_TYPE = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)[0-9]")
"""The families that the quota counts; others have quotas of their own, which are not asked for."""


def check_types(account: Account, zone: str) -> Iterator[PlaceProblem]:
    """Yield what keeps the engine's or the boot machine's type from running in the zone."""
    settings = account.settings
    wanted = {
        "engine_instance_type": settings.engine_instance_type,
        "boot_instance_type": settings.boot_instance_type,
    }
    offered = _offered(account, sorted(set(wanted.values())), zone)
    facts = _types(account, sorted(offered))
    for setting, name in wanted.items():
        if name not in offered:
            yield PlaceProblem(
                setting,
                f"'{name}', which '{zone}' does not offer",
                "a type offered there",
                "Name another type in the AWS target, or a subnet in another zone.",
            )
        elif name in facts:
            lacks = list(_lacks(facts[name], boots_image=setting == "boot_instance_type"))
            if lacks:
                yield PlaceProblem(setting, f"'{name}' without {', '.join(lacks)}", "all of it")


def _offered(account: Account, names: list[str], zone: str) -> set[str]:
    filters: Any = [{"Name": "instance-type", "Values": names}]
    if zone:
        filters.append({"Name": "location", "Values": [zone]})
    with asked("ec2:DescribeInstanceTypeOfferings", ", ".join(names)):
        answer = account.clients.ec2.describe_instance_type_offerings(
            LocationType="availability-zone" if zone else "region", Filters=filters
        )
    return {item["InstanceType"] for item in answer["InstanceTypeOfferings"]}


def _types(account: Account, names: list[str]) -> dict[str, dict[str, Any]]:
    if not names:
        return {}
    kinds: Any = names
    with asked("ec2:DescribeInstanceTypes", ", ".join(names)):
        answer = account.clients.ec2.describe_instance_types(InstanceTypes=kinds)
    return {item["InstanceType"]: dict(item) for item in answer["InstanceTypes"]}


def _lacks(facts: dict[str, Any], *, boots_image: bool) -> Iterator[str]:
    """Yield what the type lacks: the engine finds its disk by NVMe serial, the image boots UEFI."""
    # Bare metal has no hypervisor to name, and takes too long to boot once.
    if facts.get("Hypervisor") != "nitro":
        yield "the Nitro hypervisor"
    if "x86_64" not in facts.get("ProcessorInfo", {}).get("SupportedArchitectures", []):
        yield "x86_64 processors"
    if not boots_image:
        return
    if facts.get("NetworkInfo", {}).get("EnaSupport") not in {"required", "supported"}:
        yield "the Elastic Network Adapter"
    if "uefi" not in facts.get("SupportedBootModes", []):
        yield "UEFI boot"
    if facts.get("NitroTpmSupport", "supported") != "supported":
        yield "NitroTPM"


def check_quota(account: Account) -> Iterator[PlaceProblem]:
    """Yield a quota that leaves no room for the larger of the two machines.

    The two never run at the same time in one run.
    """
    settings = account.settings
    names = [settings.engine_instance_type, settings.boot_instance_type]
    mine = [name for name in names if STANDARD_TYPE.match(name)]
    if not mine:
        return
    limit = _limit(account)
    if limit is None:
        return
    running = _running(account)
    offered = _offered(account, sorted({*mine, *running}), "")
    sizes = {
        name: int(facts["VCpuInfo"]["DefaultVCpus"])
        for name, facts in _types(account, sorted(offered)).items()
    }
    used = sum(sizes.get(name, 0) * count for name, count in running.items())
    needed = max(sizes.get(name, 0) for name in mine)
    if used + needed > limit:
        yield PlaceProblem(
            f"quota {STANDARD_QUOTA} (vCPUs of running standard instances)",
            f"{limit:.0f}, of which {used} are in use",
            f"{needed} more",
            "Raise it in Service Quotas, wait for other machines to end, or name smaller types.",
        )


def _limit(account: Account) -> float | None:
    try:
        with asked("servicequotas:GetServiceQuota", STANDARD_QUOTA):
            answer = account.clients.quotas.get_service_quota(
                ServiceCode="ec2", QuotaCode=STANDARD_QUOTA
            )
    except (ResourceGone, CloudRefused):
        # An account that never asked for more, or a partition without the service.
        return None
    return float(answer["Quota"]["Value"])


def _running(account: Account) -> dict[str, int]:
    """Return how many standard machines of each type count against the quota."""
    states: Any = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    counts: dict[str, int] = {}
    with asked("ec2:DescribeInstances", "running"):
        pages = account.clients.ec2.get_paginator("describe_instances").paginate(Filters=states)
        for page in pages:
            for reservation in page["Reservations"]:
                for item in reservation["Instances"]:
                    name = str(item["InstanceType"])
                    # Spot machines have a quota of their own.
                    if STANDARD_TYPE.match(name) and "InstanceLifecycle" not in item:
                        counts[name] = counts.get(name, 0) + 1
    return counts
