# References: Compute Engine REST v1, "images.list" and the like (filter); "Organize resources".
"""What carries our tags in the project and the bucket, and how each kind is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from imageport.cloud import CloudResource
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.bucket_inventory import KIND as OBJECT
from imageport.clouds.gcp.bucket_inventory import BucketInventory, delete_from_bucket
from imageport.clouds.gcp.disks import delete_disk
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.instances import delete_machine
from imageport.clouds.gcp.names import LABEL_SITE, ResourceId, image_id, label_value, tags_of
from imageport.clouds.gcp.network import delete_rule
from imageport.clouds.gcp.prepared_images import delete_whole_image
from imageport.clouds.gcp.segment_collection import Collected
from imageport.clouds.gcp.zones import zones_of_region
from imageport.clouds.own_resources import require_own
from imageport.clouds.tags import ROLE_PREPARED, TAG_ROLE, TAG_SITE, TAG_TOKEN
from imageport.clouds.waiting import retried

ROLE_LEFT: Final = "left-behind"
"""Of a stopped machine, and its disk, whose image was deleted outside this product."""
PAGE: Final = 500
"""Most that Google gives at a time."""


def list_ours(account: GcpAccount, site: str) -> list[CloudResource]:
    """Return every resource of the site that this region's and bucket's targets made."""
    in_bucket = BucketInventory(account, site)
    project = account.settings.project
    images = _listed(account, site, ("snapshot", "images", ""), {"project": project})
    names = frozenset(_name(item) for item in images)
    found = []
    for zone in zones_of_region(account):
        where = {"project": project, "zone": zone}
        zonal = _listed(account, site, ("instance", "instances", zone), where)
        zonal += _listed(account, site, ("disk", "disks", zone), where)
        found += [_judged(account, item, names) for item in zonal]
    rules = _listed(account, site, ("security-group", "firewalls", ""), {"project": project})
    return found + images + rules + in_bucket.resources(names)


def delete_resource(account: GcpAccount, resource: CloudResource) -> Collected | None:
    """Delete what `list_ours` found, and say what became of segments; what is gone is no error.

    Raises:
        CloudRefused: it is not tagged as this site's.
    """
    require_own(resource, account.settings.site)
    if resource.kind == OBJECT:
        return delete_from_bucket(account, resource)
    deletions: dict[str, Callable[[GcpAccount, str], Collected | None]] = {
        "instance": delete_machine,
        "disk": delete_disk,
        "snapshot": delete_whole_image,
        "security-group": delete_rule,
    }
    return deletions[resource.kind](account, resource.id)


def _listed(
    account: GcpAccount, site: str, kinds: tuple[str, str, str], where: dict[str, str]
) -> list[CloudResource]:
    """Return the resources of a type: (our kind, Google's type, zone)."""
    kind, type_, zone = kinds
    request: dict[str, Any] = where | {"max_results": PAGE}
    if type_ != "firewalls":  # which have no labels
        request["filter"] = f'labels.{LABEL_SITE}="{label_value(site)}"'

    def ask() -> list[Any]:
        with asked(f"compute.{type_}.list", where.get("zone", account.settings.project)):
            return list(getattr(account.clients, type_).list(request))

    project = account.settings.project
    return [
        CloudResource(kind, str(ResourceId(project, zone, type_, item.name)), tags)
        for item, tags in _of_site(account, site, retried(ask))
    ]


def _of_site(
    account: GcpAccount, site: str, items: Iterable[Any]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield what is the site's by its exact tags and lies here.

    A project may hold what targets of other regions or buckets made, which the ledger keeps apart.
    """
    here = f"{account.scope}/"
    for item in items:
        # Firewall rules have no labels.
        tags = tags_of(item.description, getattr(item, "labels", {}))
        if tags.get(TAG_SITE) == site and tags.get(TAG_TOKEN, "").startswith(here):
            yield item, tags


def _judged(account: GcpAccount, resource: CloudResource, images: frozenset[str]) -> CloudResource:
    """Return a stopped machine, or its disk, that its image left behind, as what it is now."""
    lasts = resource.tags.get(TAG_ROLE) == ROLE_PREPARED
    if not lasts or _name(resource) in images:
        return resource
    # An image whose labels or description somebody changed is in no list of ours, but there.
    if describe_image(account, image_id(account.settings, _name(resource))) is not None:
        return resource
    return CloudResource(resource.kind, resource.id, resource.tags | {TAG_ROLE: ROLE_LEFT})


def _name(resource: CloudResource) -> str:
    return resource.id.rsplit("/", maxsplit=1)[-1]
