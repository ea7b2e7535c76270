# References: IAM, "Testing permissions"; Resource Manager REST v1: projects.testIamPermissions;
# Cloud Storage JSON API: buckets.testIamPermissions; Compute Engine, "IAM permissions".
"""The self-test: asks Google which of the permissions that a run needs are granted where.

Google answers with those it grants and changes nothing. What an organization's policy, a deny
policy without a principal of ours or a VPC Service Controls perimeter forbids shows only partly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.cloud import compute_v1

from imageport.cloud import PermissionGap
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.lookups import API_OFF
from imageport.clouds.gcp.names import IMAGE, SUBNET
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.signing import account_at_google
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused, InputError, PermissionMissing, ResourceGone

PROJECT, BUCKET, SUBNETS, NETWORK, ENGINE_IMAGE, SIGNER = (
    "project", "bucket", "subnets", "network's project", "engine image", "signing account",
)  # fmt: skip
"""Where a permission is needed, and asked for."""
PREFLIGHT: Final = "preflight"
"""What is needed for nothing else is optional: a run works without it and looks at less."""
SELF_TEST: Final = "cloudresourcemanager.googleapis.com"
"""Not a permission but an API: it has to be on in the project for the project to be asked."""
MOST_AT_ONCE: Final = 100
"""Permissions of one testIamPermissions request."""


@dataclass(frozen=True, slots=True)
class NeededPermission:
    """One permission of a role and which stage of a run needs it."""

    permission: str
    needed_for: str
    scope: str = PROJECT
    settings: tuple[str, ...] = ()
    """The settings that ask for it; without any of them it is not needed."""


PERMISSIONS: Final = (
    NeededPermission("compute.disks.create", "prepare"),
    NeededPermission("compute.disks.delete", "clean-up"),
    NeededPermission("compute.disks.get", "prepare, sweep"),
    NeededPermission("compute.disks.list", "sweep"),
    NeededPermission("compute.disks.setLabels", "prepare"),
    NeededPermission("compute.disks.use", "prepare"),
    NeededPermission("compute.disks.useReadOnly", "prepare"),
    NeededPermission("compute.firewalls.create", "prepare"),
    NeededPermission("compute.firewalls.delete", "clean-up"),
    NeededPermission("compute.firewalls.list", "prepare, sweep"),
    NeededPermission("compute.networks.updatePolicy", "prepare, clean-up"),
    NeededPermission("compute.globalOperations.get", "every stage"),
    NeededPermission("compute.zoneOperations.get", "prepare, clean-up"),
    NeededPermission("compute.zoneOperations.list", "prepare (first boot)"),
    NeededPermission("compute.images.create", "upload, prepare"),
    NeededPermission("compute.images.delete", "clean-up"),
    NeededPermission("compute.images.get", "every stage"),
    NeededPermission("compute.images.list", "sweep"),
    NeededPermission("compute.images.setLabels", "upload, prepare"),
    NeededPermission("compute.images.useReadOnly", "prepare"),
    NeededPermission("compute.instances.create", "prepare"),
    NeededPermission("compute.instances.delete", "clean-up"),
    NeededPermission("compute.instances.get", "prepare, sweep"),
    NeededPermission("compute.instances.getScreenshot", "prepare (reports)"),
    NeededPermission("compute.instances.getSerialPortOutput", "prepare (reports)"),
    NeededPermission("compute.instances.list", "sweep"),
    NeededPermission("compute.instances.setLabels", "prepare"),
    NeededPermission("compute.instances.setMetadata", "prepare"),
    NeededPermission("compute.instances.setTags", "prepare"),
    NeededPermission("compute.instances.stop", "prepare (first boot)"),
    NeededPermission(
        "compute.instances.attachDisk", "prepare (stopped machine)", settings=("keep_stopped_vm",)
    ),
    NeededPermission(
        "compute.instances.detachDisk", "prepare (stopped machine)", settings=("keep_stopped_vm",)
    ),
    NeededPermission("compute.diskTypes.get", PREFLIGHT),
    NeededPermission("compute.machineTypes.get", PREFLIGHT),
    NeededPermission("compute.projects.get", PREFLIGHT),
    NeededPermission("compute.regions.get", "sweep"),
    NeededPermission("compute.zones.get", PREFLIGHT),
    NeededPermission("compute.subnetworks.get", "prepare", SUBNETS),
    NeededPermission("compute.subnetworks.use", "prepare", SUBNETS),
    NeededPermission(
        "compute.firewalls.list", "prepare (first boot)", NETWORK, ("isolated_network_tag",)
    ),
    NeededPermission("compute.images.useReadOnly", "prepare", ENGINE_IMAGE, ("engine_image",)),
    NeededPermission("storage.buckets.get", PREFLIGHT, BUCKET),
    NeededPermission("storage.objects.create", "upload, prepare", BUCKET),
    NeededPermission("storage.objects.delete", "upload, clean-up", BUCKET),
    NeededPermission("storage.objects.get", "every stage", BUCKET),
    NeededPermission("storage.objects.list", "upload, sweep", BUCKET),
    NeededPermission("storage.objects.update", "upload, prepare", BUCKET),
    NeededPermission("iam.serviceAccounts.signBlob", "prepare", SIGNER),
)
"""Every permission that this product ever needs; the role in the documentation has the same."""


def check_permissions(account: GcpAccount) -> list[PermissionGap]:
    """Return the permissions that are not granted; empty when all are.

    Raises:
        CloudRefused: the credentials themselves are refused, so nothing can be said.
    """
    gaps: list[PermissionGap] = []
    for scope in (PROJECT, BUCKET, SUBNETS, NETWORK, ENGINE_IMAGE, SIGNER):
        needed = [item for item in needed_permissions(account.settings) if item.scope == scope]
        for resource in _resources(account, scope):
            gaps += _gaps(account, scope, resource, needed)
    return list(dict.fromkeys(gaps))


def needed_permissions(settings: GcpSettings) -> list[NeededPermission]:
    """Return what a run with these settings needs."""
    return [
        needed
        for needed in PERMISSIONS
        if not needed.settings or any(getattr(settings, name) for name in needed.settings)
    ]


def _resources(account: GcpAccount, scope: str) -> list[str]:
    settings = account.settings
    return {
        PROJECT: [settings.project],
        BUCKET: [settings.bucket],
        SUBNETS: sorted({settings.subnet, settings.boot_subnet} - {""}),
        # The own project is asked for all anyway.
        NETWORK: sorted({settings.boot_network_project} - {settings.project}),
        ENGINE_IMAGE: _named_image(settings),
        SIGNER: _signer(account),
    }[scope]


def _named_image(settings: GcpSettings) -> list[str]:
    """A family is no resource that could be asked; the project's own images are asked there."""
    found = IMAGE.fullmatch(settings.engine_image)
    asks = found is not None and not found[2] and found[1] != settings.project
    return [settings.engine_image] if asks else []


def _signer(account: GcpAccount) -> list[str]:
    """Return the account at Google that signs; that there is none is a problem of the place."""
    try:
        return [name for name in (account_at_google(account),) if name]
    except InputError:
        return []


def _gaps(
    account: GcpAccount, scope: str, resource: str, needed: Sequence[NeededPermission]
) -> list[PermissionGap]:
    wanted = sorted({item.permission for item in needed})
    if not wanted:
        return []
    try:
        granted = _granted(account, scope, resource, wanted)
    except PermissionMissing as error:
        return [PermissionGap(SELF_TEST, PREFLIGHT, _why(scope, resource, error), optional=True)]
    except ResourceGone:
        return []  # it is not as named, which is a problem of the place
    except CloudRefused as error:
        if error.fields.get("status") == 404:
            return []
        if error.fields.get("gcp_code") in API_OFF:
            return [PermissionGap(SELF_TEST, PREFLIGHT, "not enabled", optional=True)]
        raise
    return [
        PermissionGap(
            item.permission,
            item.needed_for,
            "denied" if scope == PROJECT else f"denied at {scope} '{resource}'",
            optional=item.needed_for == PREFLIGHT,
        )
        for item in needed
        if item.permission not in granted
    ]


def _why(scope: str, resource: str, error: PermissionMissing) -> str:
    reason = error.fields.get("gcp_code") or "denied"
    return f"cannot ask {scope} '{resource}' ({reason})"


def _granted(account: GcpAccount, scope: str, resource: str, wanted: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(wanted), MOST_AT_ONCE):
        some = list(wanted[start : start + MOST_AT_ONCE])

        def ask(some: list[str] = some) -> Iterable[str]:
            with asked(f"testIamPermissions of {scope}", resource):
                return _ask(account, scope, resource, some)

        found |= set(retried(ask))
    return found


def _ask(account: GcpAccount, scope: str, resource: str, wanted: list[str]) -> Iterable[str]:
    clients = account.clients
    if scope in {PROJECT, NETWORK}:
        path = f"/v1/projects/{resource}:testIamPermissions"
        answer = clients.ask("cloudresourcemanager", "POST", path, body={"permissions": wanted})
    elif scope == BUCKET:
        path = f"/storage/v1/b/{resource}/iam/testPermissions"
        answer = clients.ask("storage", "GET", path, params={"permissions": wanted})
    elif scope == SIGNER:
        path = f"/v1/projects/-/serviceAccounts/{resource}:testIamPermissions"
        answer = clients.ask("iam", "POST", path, body={"permissions": wanted})
    else:
        return _ask_compute(account, scope, resource, wanted)
    return list(answer.get("permissions", []))


def _ask_compute(
    account: GcpAccount, scope: str, resource: str, wanted: list[str]
) -> Iterable[str]:
    body = compute_v1.TestPermissionsRequest(permissions=wanted)
    given: dict[str, Any] = {"test_permissions_request_resource": body}
    if scope == SUBNETS:
        project, region, name = _parts(SUBNET, resource)
        subnetworks = account.clients.compute(compute_v1.SubnetworksClient)
        return subnetworks.test_iam_permissions(
            project=project, region=region, resource=name, **given
        ).permissions
    project, _, name = _parts(IMAGE, resource)
    images = account.clients.images
    return images.test_iam_permissions(project=project, resource=name, **given).permissions


def _parts(pattern: re.Pattern[str], resource: str) -> tuple[str, str, str]:
    found = pattern.fullmatch(resource)
    if found is None:
        raise CloudRefused(f"Bad resource: found '{resource}', needed one like {pattern.pattern}.")
    one, two, three = found.groups()
    return one, two, three
