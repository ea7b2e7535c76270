# References: Cloud Storage JSON API, "Buckets" resource; "Object Lifecycle Management"; "Uniform
# bucket-level access"; "Credential Access Boundaries" (needs uniform access); "Composite objects"
# (of one storage class); "Use customer-managed encryption keys" (key where the bucket is).
"""What about the bucket would stop an image, lose it, or make it dear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from imageport.cloud import PlaceProblem
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.lookups import look_up
from imageport.clouds.gcp.names import site_folder, temporary_folder, temporary_root
from imageport.clouds.gcp.settings import GcpSettings

STANDARD: Final = "STANDARD"
SAMPLE: Final = "0" * 64
"""Stands for a name below a folder, where a rule is held against one."""
LASTING: Final = {
    "seg": "images are read from there",
    "out": "images are read from there",
    "index": "images are read from there",
    "uploads": "what lies there keeps the blocks of uploads that go on for days",
}
"""Folders of a site where no rule of the bucket may delete, and why."""
ONE_CLASS: Final = "blocks are joined, which have to be of one storage class"
_OF_OTHERS: Final = frozenset(
    {"daysSinceNoncurrentTime", "noncurrentTimeBefore", "daysSinceCustomTime", "customTimeBefore"}
)
"""Conditions that hold for old versions, or where somebody gave an object a time of its own."""
_AROUND: Final = {"us": ("us",), "eu": ("europe",), "europe": ("europe",), "asia": ("asia",)}
"""Locations that are continents, and how the names of their regions begin."""

Json = dict[str, Any]
Problems = Iterator[PlaceProblem]


def check_bucket(account: GcpAccount) -> Problems:
    """Yield what about the bucket has to be mended first."""
    settings = account.settings
    path = f"/storage/v1/b/{settings.bucket}"
    bucket = look_up(
        "storage.buckets.get",
        settings.bucket,
        lambda: account.clients.ask("storage", "GET", path, params={"projection": "noAcl"}),
    )
    if bucket is None:
        yield PlaceProblem(
            "bucket", f"no '{settings.bucket}'", f"a bucket in '{settings.region}'",
            "Make one: docs/production.md says how.",
        )  # fmt: skip
        return
    yield from _place(settings, bucket)
    yield from _key(settings, bucket)
    yield from _kind(bucket)
    yield from _keeping(bucket)
    yield from _lifecycle(settings, bucket)


def covers(location: str, region: str) -> bool:
    """Tell whether what is in a location is in a region, or in a group of regions around it."""
    lower = location.lower()
    return lower in {region, "global"} or region.partition("-")[0] in _AROUND.get(lower, ())


def _place(settings: GcpSettings, bucket: Json) -> Problems:
    placement: Json = bucket.get("customPlacementConfig") or {}
    locations = [str(item) for item in placement.get("dataLocations") or []]
    locations = locations or [str(bucket.get("location", settings.region))]
    if not any(covers(item, settings.region) for item in locations):
        found = f"'{settings.bucket}' in '{', '.join(locations).lower()}'"
        hint = "Images are made of its objects: from another region that is slow, and costs."
        yield PlaceProblem("bucket", found, f"one in '{settings.region}'", hint)


def _key(settings: GcpSettings, bucket: Json) -> Problems:
    """Images take keys of their region, its continent or ``global``; objects of their place."""
    location = settings.kms_key.partition("/locations/")[2].partition("/")[0]
    place = str(bucket.get("location", location)).lower()
    if location not in {place, *_AROUND.get(place, ())} and covers(location, settings.region):
        needed = f"one in '{place}', where the bucket is"
        yield PlaceProblem("kms_key", f"a key in '{location}'", needed)


def _kind(bucket: Json) -> Problems:
    access: Json = bucket.get("iamConfiguration") or {}
    uniform: Json = access.get("uniformBucketLevelAccess") or {}
    if not uniform.get("enabled"):
        yield PlaceProblem(
            "bucket",
            "access lists for each object",
            "uniform bucket-level access",
            "The machine that writes the prepared disk gets a token for one folder of the bucket; "
            "Google limits tokens so only there.",
        )
    kind = str(bucket.get("storageClass", STANDARD))
    if kind != STANDARD:
        needed = f"{STANDARD}: others charge for what is deleted early"
        yield PlaceProblem("bucket", f"storage class {kind}", needed)
    if (bucket.get("autoclass") or {}).get("enabled"):
        yield PlaceProblem("bucket", "Autoclass", f"it switched off: {ONE_CLASS}")
    if (bucket.get("billing") or {}).get("requesterPays"):
        yield PlaceProblem("bucket", "requester pays", "it switched off")


def _keeping(bucket: Json) -> Problems:
    """Temporary objects are deleted, and a resumable one is overwritten: nothing may hold them."""
    retention: Json = bucket.get("retentionPolicy") or {}
    seconds = int(retention.get("retentionPeriod", 0))
    if seconds:
        yield PlaceProblem("bucket", f"a retention policy of {seconds} s", "none")
    if bucket.get("defaultEventBasedHold"):
        yield PlaceProblem("bucket", "objects held by default", "no default event-based hold")


def _lifecycle(settings: GcpSettings, bucket: Json) -> Problems:
    rules = (bucket.get("lifecycle") or {}).get("rule") or []
    deleting, moving = (
        [item for item in rules if (item.get("action") or {}).get("type") == action]
        for action in ("Delete", "SetStorageClass")
    )
    folder = site_folder(settings)
    if not any(_reaches(item, f"{temporary_folder(settings)}{SAMPLE}") for item in deleting):
        yield PlaceProblem(
            "bucket",
            "no lifecycle rule that deletes what a killed upload left",
            f"one of a day for the prefix '{temporary_root(settings)}'",
            "gcloud storage buckets update gs://"
            f"{settings.bucket} --lifecycle-file=docs/policies/gcp-lifecycle.json",
        )
    for name, reason in LASTING.items():
        if any(_reaches(item, f"{folder}{name}/{SAMPLE}") for item in deleting):
            yield PlaceProblem(
                "bucket",
                f"a lifecycle rule that deletes '{folder}{name}/'",
                f"none: {reason}",
            )

    if any(_reaches(item, f"{folder}seg/{SAMPLE}") for item in moving):
        found = f"a lifecycle rule that moves '{folder}seg/' to another storage class"
        yield PlaceProblem("bucket", found, f"none: {ONE_CLASS}")


def _reaches(rule: Json, key: str) -> bool:
    """Tell whether a rule is for a living object of this name once it is old enough."""
    condition: Json = rule.get("condition") or {}
    if condition.get("isLive") is False or "numNewerVersions" in condition:
        return False
    if _OF_OTHERS & set(condition):
        return False
    classes = condition.get("matchesStorageClass") or [STANDARD]
    prefixes, suffixes = condition.get("matchesPrefix"), condition.get("matchesSuffix")
    return (
        STANDARD in classes
        and (not prefixes or any(key.startswith(item) for item in prefixes))
        and (not suffixes or any(key.endswith(item) for item in suffixes))
    )
