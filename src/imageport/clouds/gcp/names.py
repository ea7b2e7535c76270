# References: Compute Engine, "Naming resources", "Label requirements"; Cloud Storage object names.
"""Names, labels and ids: deterministic, because the name is Google's idempotency.

Labels take 63 characters of a-z, 0-9, ``_`` and ``-``, too few for our tags: labels are for
searching, the exact tags stand as JSON in the description (of objects: in their metadata).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from imageport.clouds.gcp.settings import TEMPORARY, GcpSettings
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_EXPIRES, TAG_NAME, TAG_ROLE, TAG_RUN, TAG_SITE
from imageport.errors import InputError, ResourceGone

TOKEN_CHARACTERS: Final = 24
"""96 bits of the client token: no two resources of a project ever share them."""
DESCRIPTION_CHARACTERS: Final = 2048
"""Of every Compute Engine resource."""
LABEL_SITE: Final = "imageport-site"
LABEL_RUN: Final = "imageport-run"
LABEL_ROLE: Final = "imageport-role"
LABEL_EXPIRES: Final = "imageport-expires"
"""Seconds since 1970, because no label may hold a time as text."""
METADATA_TAGS: Final = "imageport-tags"
"""Key of an object's metadata; the expiry stands beside it as `LABEL_EXPIRES`, to be renewed."""
SUBNET: Final = re.compile(r"projects/([^/]+)/regions/([^/]+)/subnetworks/([^/]+)")
"""A subnet as settings name it: project, region, name."""
IMAGE: Final = re.compile(r"projects/([^/]+)/global/images/(family/)?([^/]+)")
"""An image as settings name it: project, whether it is a family, name."""

_UNFIT: Final = re.compile(r"[^a-z0-9_-]+")
_ID: Final = re.compile(
    r"projects/(?P<project>[^/]+)/(?:global|zones/(?P<zone>[^/]+))"
    r"/(?P<type>images|disks|instances|firewalls)/(?P<name>[a-z]([-a-z0-9]{0,61}[a-z0-9])?)"
)


@dataclass(frozen=True, slots=True)
class ResourceId:
    """A Compute Engine resource as ledger and catalogue name it: its path without a host."""

    project: str
    zone: str
    """Empty for global resources."""
    type: str
    """``images``, ``disks``, ``instances``, ``firewalls``."""
    name: str

    def __str__(self) -> str:
        place = f"zones/{self.zone}" if self.zone else "global"
        return f"projects/{self.project}/{place}/{self.type}/{self.name}"


def resource_name(intent: Intent) -> str:
    """Return the name of what an intent makes: the same after a crash, new after a deletion."""
    return f"imageport-{intent.tags[TAG_ROLE]}-{intent.client_token[:TOKEN_CHARACTERS]}"


def image_id(settings: GcpSettings, name: str) -> str:
    """Return the reference of an image."""
    return str(ResourceId(settings.project, "", "images", name))


def zonal_id(settings: GcpSettings, type_: str, name: str) -> str:
    """Return the id of a disk or an instance in the settings' zone."""
    return str(ResourceId(settings.project, settings.zone, type_, name))


def disk_type_path(settings: GcpSettings) -> str:
    """Return the settings' disk type as requests name it."""
    return str(ResourceId(settings.project, settings.zone, "diskTypes", settings.disk_type))


def parse_id(text: str, type_: str) -> ResourceId:
    """Take an id or a self link apart.

    Raises:
        ResourceGone: it is no id, or of another type: nothing of that name can exist.
    """
    found = _ID.fullmatch(text[text.find("projects/") :])
    if found is None or found["type"] != type_:
        raise ResourceGone(f"Bad resource id: found '{text[:200]}', needed one of {type_}.")
    return ResourceId(found["project"], found["zone"] or "", found["type"], found["name"])


def label_value(text: str) -> str:
    """Return any text as a label's value; what does not fit ends in a digest of the whole."""
    if re.fullmatch(r"[a-z0-9_-]{1,63}", text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{_UNFIT.sub('-', text.lower())[:50]}-{digest}"


def labels_of(settings: GcpSettings, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the operator's labels and ours, by which `list_ours` searches."""
    expires = datetime.fromisoformat(tags[TAG_EXPIRES])
    return {
        **settings.labels,
        LABEL_SITE: label_value(tags[TAG_SITE]),
        LABEL_RUN: label_value(tags[TAG_RUN]),
        LABEL_ROLE: label_value(tags[TAG_ROLE]),
        LABEL_EXPIRES: expires_label(expires),
    }


def expires_label(moment: datetime) -> str:
    """Return a time as the label holds it."""
    return str(int(moment.timestamp()))


def description_of(tags: Mapping[str, str], words: str = "") -> str:
    """Return a description with the exact tags, which `tags_of` reads.

    Of what is too long for Google, the words go first, then the end of the name: both are for
    people.

    Raises:
        InputError: the other tags alone are too long.
    """
    text = json.dumps({"imageport": dict(tags), "about": words[:200]}, sort_keys=True)
    if len(text) <= DESCRIPTION_CHARACTERS:
        return text
    if words:
        return description_of(tags)
    name = tags.get(TAG_NAME, "")
    if not name:
        raise InputError(
            f"Bad tags: found {len(text)} characters, needed {DESCRIPTION_CHARACTERS} at most.",
            problems=["the site's name is too long"],
        )
    return description_of({**tags, TAG_NAME: name[: len(name) // 2]})


def tags_of(description: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the exact tags of a resource; the label is newer than the described expiry."""
    try:
        document: Any = json.loads(description)
        tags = {str(name): str(value) for name, value in document["imageport"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    seconds = labels.get(LABEL_EXPIRES, "")
    if seconds.isdigit():
        tags[TAG_EXPIRES] = datetime.fromtimestamp(int(seconds), UTC).isoformat()
    return tags


def metadata_of(tags: Mapping[str, str], words: str = "") -> dict[str, str]:
    """Return an object's metadata with the exact tags, which `tags_of_object` reads."""
    expires = datetime.fromisoformat(tags[TAG_EXPIRES])
    return {METADATA_TAGS: description_of(tags, words), LABEL_EXPIRES: expires_label(expires)}


def tags_of_object(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the exact tags of an object; empty for one that is none of ours."""
    return tags_of(metadata.get(METADATA_TAGS, ""), metadata)


def site_folder(settings: GcpSettings) -> str:
    """Return the folder of what a site keeps in the bucket, with a slash at its end."""
    return f"{settings.prefix}/{label_value(settings.site)}/"


def temporary_root(settings: GcpSettings) -> str:
    """Return the folder of what all sites need for hours; a lifecycle rule may empty it."""
    return f"{settings.prefix}/{TEMPORARY}/"


def temporary_folder(settings: GcpSettings) -> str:
    """Return a site's part of `temporary_root`, with a slash at its end."""
    return f"{temporary_root(settings)}{label_value(settings.site)}/"


def object_id(settings: GcpSettings, key: str) -> str:
    """Return the id under which ledger and sweep know an object."""
    return f"gs://{settings.bucket}/{key}"
