"""What carries our tags in the account and region, and how each kind is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from imageport.cloud import CloudResource
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.disks import delete_volume
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.instances import terminate
from imageport.clouds.aws.job_folder import delete_prefix, list_objects
from imageport.clouds.aws.network import delete_group
from imageport.clouds.aws.snapshots import delete_snapshot
from imageport.clouds.aws.stub_image import deregister
from imageport.clouds.job_names import ROOT, job_folders, require_own_folder
from imageport.clouds.own_resources import require_own
from imageport.clouds.tags import TAG_SITE


def list_ours(account: Account, site: str) -> list[CloudResource]:
    """Return every tagged resource of the site, machines first: the order of deletion."""
    # Without the bucket the ledger's job folders would look as if they were gone.
    account.settings.require("bucket")
    ec2 = account.clients.ec2
    filters: Any = [{"Name": f"tag:{TAG_SITE}", "Values": [site]}]
    alive: Any = {
        "Name": "instance-state-name",
        "Values": ["pending", "running", "stopping", "stopped"],
    }
    found: list[CloudResource] = []
    with asked("ec2:DescribeInstances", site):
        pages = ec2.get_paginator("describe_instances").paginate(Filters=[*filters, alive])
        machines = [
            item for page in pages for one in page["Reservations"] for item in one["Instances"]
        ]
    found += _resources("instance", "InstanceId", machines)
    with asked("ec2:DescribeVolumes", site):
        volumes = ec2.get_paginator("describe_volumes").paginate(Filters=filters)
        found += _resources(
            "volume", "VolumeId", (item for page in volumes for item in page["Volumes"])
        )
    with asked("ec2:DescribeImages", site):
        images = ec2.describe_images(Owners=["self"], Filters=filters)
    found += _resources("machine-image", "ImageId", images["Images"])
    with asked("ec2:DescribeSnapshots", site):
        snapshots = ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"], Filters=filters
        )
        found += _resources(
            "snapshot", "SnapshotId", (item for page in snapshots for item in page["Snapshots"])
        )
    with asked("ec2:DescribeSecurityGroups", site):
        groups = ec2.describe_security_groups(Filters=filters)
    found += _resources("security-group", "GroupId", groups["SecurityGroups"])
    return found + _job_folders(account, site)


def delete_resource(account: Account, resource: CloudResource) -> None:
    """Delete what `list_ours` found; what is gone is no error.

    Raises:
        CloudRefused: it is not tagged as this site's.
    """
    require_own(resource, account.settings.site)
    deletions: dict[str, Callable[[Account, str], None]] = {
        "instance": terminate,
        "volume": delete_volume,
        "machine-image": deregister,
        "snapshot": delete_snapshot,
        "security-group": delete_group,
        "object": _delete_folder,
    }
    deletions[resource.kind](account, resource.id)


def _resources(kind: str, id_key: str, items: Iterable[Any]) -> list[CloudResource]:
    return [
        CloudResource(
            kind, item[id_key], {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}
        )
        for item in items
    ]


def _job_folders(account: Account, site: str) -> list[CloudResource]:
    listed = list_objects(account, f"{ROOT}/{site}/")
    return job_folders(listed, site, account.settings.expires_seconds)


def _delete_folder(account: Account, prefix: str) -> None:
    require_own_folder(prefix, account.settings.site)
    delete_prefix(account, prefix)
    account.mark(prefix, "deleted")
