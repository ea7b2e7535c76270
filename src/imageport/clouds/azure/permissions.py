# References: Azure RBAC, "Understand role definitions"; Authorization REST, "Permissions - List";
# Azure permissions for Compute, Networking, Storage.
"""The self-test: asks Azure what the credential may do and compares it with what a run needs.

Azure tells for every scope which actions are granted. It does not tell the data actions on a
storage account whose place in the subscription nobody named; there the request names a blob that
cannot be, so that the service refuses it after the permission was checked. Deny assignments,
locks and policies show in neither answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from azure.core import MatchConditions

from imageport.cloud import PermissionGap
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.arm_http import AUTHORIZATION_API
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.job_folder import BLOBS, DELEGATION
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.job_names import ROOT
from imageport.errors import CloudError, CloudRefused, PermissionMissing, ResourceGone

GROUP, SUBSCRIPTION, NAMED, CONTAINER = "resource group", "subscription", "named", "container"
"""Where an action is needed: everywhere in the resource group; in the subscription; on a resource
that a setting names, wherever that lies; on the storage account of the job container."""
PREFLIGHT: Final = "preflight"
"""What is needed for nothing else is optional: a run works without it and looks at less."""
SELF_TEST: Final = "Microsoft.Authorization/permissions/read"


@dataclass(frozen=True, slots=True)
class NeededAction:
    """One action of a role definition and which stage of a run needs it."""

    action: str
    needed_for: str
    data: bool = False
    """True for a data action (``dataActions`` of a role)."""
    scope: str = GROUP
    settings: tuple[str, ...] = ()
    """The settings that name the resource (`NAMED`); without any of them it is not needed."""


_COMPUTE: Final = "Microsoft.Compute"
_NETWORK: Final = "Microsoft.Network"
_SUBNETS: Final = ("subnet_id", "boot_subnet_id")
_GROUPS: Final = ("engine_network_security_group_id", "isolated_network_security_group_id")

ACTIONS: Final = (
    NeededAction(SELF_TEST, PREFLIGHT),
    NeededAction("Microsoft.Resources/subscriptions/resourceGroups/read", PREFLIGHT),
    NeededAction(f"{_COMPUTE}/disks/read", "upload, prepare, sweep"),
    NeededAction(f"{_COMPUTE}/disks/write", "upload, prepare"),
    NeededAction(f"{_COMPUTE}/disks/delete", "clean-up"),
    NeededAction(f"{_COMPUTE}/disks/beginGetAccess/action", "upload"),
    NeededAction(f"{_COMPUTE}/disks/endGetAccess/action", "upload, clean-up"),
    NeededAction(f"{_COMPUTE}/snapshots/read", "upload, verify, publish, sweep"),
    NeededAction(f"{_COMPUTE}/snapshots/write", "upload, prepare"),
    NeededAction(f"{_COMPUTE}/snapshots/delete", "clean-up"),
    NeededAction(f"{_COMPUTE}/snapshots/beginGetAccess/action", "verify, publish"),
    NeededAction(f"{_COMPUTE}/snapshots/endGetAccess/action", "verify, publish, clean-up"),
    NeededAction(f"{_COMPUTE}/virtualMachines/read", "prepare, sweep"),
    NeededAction(f"{_COMPUTE}/virtualMachines/write", "prepare"),
    NeededAction(f"{_COMPUTE}/virtualMachines/powerOff/action", "prepare (first boot)"),
    NeededAction(f"{_COMPUTE}/virtualMachines/delete", "clean-up"),
    NeededAction(
        f"{_COMPUTE}/virtualMachines/retrieveBootDiagnosticsData/action", "prepare (reports)"
    ),
    NeededAction(f"{_COMPUTE}/locations/diskOperations/read", "every stage"),
    NeededAction(f"{_COMPUTE}/skus/read", PREFLIGHT, scope=SUBSCRIPTION),
    NeededAction(f"{_COMPUTE}/locations/usages/read", PREFLIGHT, scope=SUBSCRIPTION),
    NeededAction(
        f"{_COMPUTE}/images/read", "prepare", scope=NAMED, settings=("engine_image_id",)
    ),
    NeededAction(
        f"{_COMPUTE}/galleries/images/versions/read", "prepare", scope=NAMED,
        settings=("engine_image_id",),
    ),
    NeededAction(
        f"{_COMPUTE}/diskEncryptionSets/read", "upload, prepare", scope=NAMED,
        settings=("disk_encryption_set_id",),
    ),
    NeededAction(
        f"{_COMPUTE}/diskAccesses/read", "upload, prepare", scope=NAMED,
        settings=("disk_access_id",),
    ),
    NeededAction(f"{_NETWORK}/networkInterfaces/read", "sweep"),
    NeededAction(f"{_NETWORK}/networkInterfaces/write", "prepare"),
    NeededAction(f"{_NETWORK}/networkInterfaces/join/action", "prepare"),
    NeededAction(f"{_NETWORK}/networkInterfaces/delete", "clean-up"),
    NeededAction(f"{_NETWORK}/networkSecurityGroups/read", "prepare, sweep"),
    NeededAction(f"{_NETWORK}/networkSecurityGroups/write", "prepare"),
    NeededAction(f"{_NETWORK}/networkSecurityGroups/join/action", "prepare"),
    NeededAction(f"{_NETWORK}/networkSecurityGroups/delete", "clean-up"),
    NeededAction(
        f"{_NETWORK}/networkSecurityGroups/join/action", "prepare", scope=NAMED, settings=_GROUPS
    ),
    NeededAction(f"{_NETWORK}/locations/operations/read", "prepare"),
    NeededAction(
        f"{_NETWORK}/virtualNetworks/read", PREFLIGHT, scope=NAMED, settings=_SUBNETS
    ),
    NeededAction(
        f"{_NETWORK}/virtualNetworks/subnets/read", PREFLIGHT, scope=NAMED, settings=_SUBNETS
    ),
    NeededAction(
        f"{_NETWORK}/virtualNetworks/subnets/join/action", "prepare", scope=NAMED,
        settings=_SUBNETS,
    ),
    NeededAction(DELEGATION, "prepare", scope=CONTAINER),
    NeededAction(f"{BLOBS}/read", "prepare, sweep", data=True, scope=CONTAINER),
    NeededAction(f"{BLOBS}/write", "prepare", data=True, scope=CONTAINER),
    NeededAction(f"{BLOBS}/delete", "clean-up", data=True, scope=CONTAINER),
)  # fmt: skip
"""Every action that this product ever asks for; the role in the documentation has the same."""
_OF_IMAGES: Final = {
    f"{_COMPUTE}/images/read": False,
    f"{_COMPUTE}/galleries/images/versions/read": True,
}
"""Whether the engine image lies in a gallery: only one of the two is asked for."""
_MAKES_GROUPS: Final = {
    f"{_NETWORK}/networkSecurityGroups/write",
    f"{_NETWORK}/networkSecurityGroups/join/action",
    f"{_NETWORK}/networkSecurityGroups/delete",
}


def check_permissions(account: AzureAccount) -> list[PermissionGap]:
    """Return the actions that are not granted; empty when all are.

    Raises:
        CloudRefused: the credential itself is refused, so nothing can be said.
    """
    settings = account.settings
    by_scope: dict[str, list[NeededAction]] = {}
    for needed in needed_actions(settings):
        for scope in _scopes(settings, needed):
            by_scope.setdefault(scope, []).append(needed)
    gaps: list[PermissionGap] = []
    closed: list[str] = []
    for scope, asked_for in by_scope.items():
        granted = _granted(account, scope)
        if granted is None:
            closed.append(scope)
            continue
        gaps += [
            PermissionGap(
                needed.action, needed.needed_for, "denied", optional=needed.needed_for == PREFLIGHT
            )
            for needed in asked_for
            if not is_granted(granted, needed.action)
        ]
    if closed:
        found = f"denied on {', '.join(closed)}, so what else is granted there is not known"
        gaps.append(PermissionGap(SELF_TEST, PREFLIGHT, found))
    if settings.job_container_url:
        gaps += _container_gaps(account)
    return list(dict.fromkeys(gaps))


def needed_actions(settings: AzureSettings) -> list[NeededAction]:
    """Return what a run with these settings needs."""
    own_groups = not all(getattr(settings, name) for name in _GROUPS)
    in_gallery = settings.image_in_gallery
    return [
        needed
        for needed in ACTIONS
        if (own_groups or needed.scope != GROUP or needed.action not in _MAKES_GROUPS)
        and (needed.scope != NAMED or any(getattr(settings, name) for name in needed.settings))
        and (needed.scope != CONTAINER or settings.job_container_url)
        and _OF_IMAGES.get(needed.action, in_gallery) is in_gallery
    ]


def is_granted(permissions: Iterable[dict[str, Any]], action: str) -> bool:
    """Tell whether one of the permissions of a scope grants an action.

    What ``notActions`` takes from one role another role may still grant.
    """
    return any(
        _matches(one.get("actions"), action) and not _matches(one.get("notActions"), action)
        for one in permissions
    )


def _matches(patterns: list[str] | None, action: str) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE)
        for pattern in patterns or []
    )


def _scopes(settings: AzureSettings, needed: NeededAction) -> list[str]:
    if needed.scope == GROUP:
        return [settings.group_id]
    if needed.scope == SUBSCRIPTION:
        return [f"/subscriptions/{settings.subscription_id}"]
    return [getattr(settings, name) for name in needed.settings if getattr(settings, name)]


def _granted(account: AzureAccount, scope: str) -> list[dict[str, Any]] | None:
    """Return the permissions on a scope; None when the credential may not even ask."""
    path = f"{scope}/providers/Microsoft.Authorization/permissions"
    try:
        return list(account.clients.arm.pages(path, AUTHORIZATION_API, SELF_TEST))
    except PermissionMissing:
        return None
    except (ResourceGone, CloudRefused) as error:
        if error.fields.get("status") != 404:
            raise
        return [{"actions": ["*"]}]  # it is not as named, which is a problem of the place


def _container_gaps(account: AzureAccount) -> Iterator[PermissionGap]:
    needed_for = {item.action: item.needed_for for item in ACTIONS if item.scope == CONTAINER}
    for action, call in _container_probes(account):
        try:
            with asked(action, "permission test"):
                call()
        except PermissionMissing:
            yield PermissionGap(action, needed_for[action], "denied")
        except CloudRefused as error:
            if error.fields.get("status") == 401:
                raise
        except CloudError as error:
            # Gone, throttled or failing: no denial; where nobody answers, nobody need be asked on.
            if error.retryable:
                return


def _container_probes(account: AzureAccount) -> Iterator[tuple[str, Callable[[], object]]]:
    service, name = account.clients.blob_service, account.clients.job_container
    container = service.get_container_client(name)
    blob = service.get_blob_client(
        name, f"{ROOT}/{account.settings.site or 'site'}/permission-test"
    )
    # No blob has this tag, so the service refuses after it has looked at the permission.
    never: Any = {"etag": '"0x0"', "match_condition": MatchConditions.IfNotModified}
    now = datetime.now(UTC)
    pages = container.list_blobs(name_starts_with=f"{ROOT}/", results_per_page=1).by_page()
    yield f"{BLOBS}/read", lambda: list(next(pages, ()))
    yield (
        f"{BLOBS}/write",
        lambda: blob.upload_blob(b"permission test", overwrite=True, **never),
    )
    yield f"{BLOBS}/delete", lambda: blob.delete_blob(**never)
    yield (
        DELEGATION,
        lambda: service.get_user_delegation_key(now, now + timedelta(minutes=5)),
    )
