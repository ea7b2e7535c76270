# References: Compute Engine, "Naming resources", "Label requirements"; "Private Service Connect".
"""Where and how this product works in one Google Cloud project; no secret is ever part of it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from imageport.clouds.settings_checks import refuse_contradictions, require_set

DEFAULT_PREFIX: Final = "imageport"
ARCHIVES: Final = ("segments", "stream")
TEMPORARY: Final = "tmp"
"""Folder of all sites' temporary objects, so that one lifecycle rule does for a bucket; it lies
beside the folders of the sites, so that none may have its name."""
NIC_TYPES: Final = ("GVNIC", "VIRTIO_NET")
_PATTERNS: Final = {
    # Project ids may carry a domain (example.com:project), which no API path needs escaped.
    "project": re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"),
    "region": re.compile(r"[a-z]+-[a-z]+[0-9]+"),
    "zone": re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]"),
    "bucket": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "prefix": re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*"),
    "subnet": re.compile(r"projects/[^/]+/regions/[^/]+/subnetworks/[a-z][-a-z0-9]*"),
    "boot_subnet": re.compile(r"projects/[^/]+/regions/[^/]+/subnetworks/[a-z][-a-z0-9]*"),
    "engine_image": re.compile(r"projects/[^/]+/global/images/(family/)?[a-z][-a-z0-9]*"),
    "isolated_network_tag": re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "kms_key": re.compile(
        r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+(/cryptoKeyVersions/[0-9]+)?"
    ),
    "private_service_connect": re.compile(r"[a-z][a-z0-9-]{0,61}"),
}
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
MOST_LABELS: Final = 50
"""Of the 64 that a resource may have; the rest is ours."""


@dataclass(frozen=True, slots=True)
class GcpSettings:
    """One project, zone, bucket and network; credentials come as a google-auth object alone.

    An empty ``isolated_network_tag`` means: make firewall rules for the run and delete them
    afterwards. ``boot_subnet`` empty is ``subnet``. Subnets are ``projects/P/regions/R/…``.
    """

    project: str
    region: str
    zone: str
    bucket: str
    """Its objects become images, and carry engine jobs; uniform bucket-level access."""
    site: str = ""
    prefix: str = DEFAULT_PREFIX
    """Folder of the bucket that everything lies in."""
    archive: str = "segments"
    """How a disk is brought: ``segments`` sends only what changed; ``stream`` is one plain tar.gz,
    for when Google refuses an archive that was composed."""
    subnet: str = ""
    boot_subnet: str = ""
    engine_image: str = ""
    """An image, or a family's newest; empty takes plain Debian."""
    engine_machine_type: str = "e2-standard-2"
    boot_machine_type: str = "n2-standard-2"
    """The family that target devices will use: its network adapter is the one that is bound."""
    nic_type: str = "GVNIC"
    engine_network_tags: tuple[str, ...] = ()
    isolated_network_tag: str = ""
    """Of firewall rules that exist and let nothing out."""
    boot_egress_cidrs: tuple[str, ...] = ()
    """Destinations that the one boot may reach; empty is none."""
    disk_type: str = "pd-balanced"
    kms_key: str = ""
    """Key of your own for objects, images and disks; empty is Google's."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Your own, on everything that is made."""
    keep_stopped_vm: bool = False
    """Leave a stopped machine with the prepared disk beside each prepared image, as machine
    catalogs want one."""
    signing_account: str = ""
    """Service account that signs URLs of engine jobs where the credentials have no key of their
    own; empty is the account that the credentials are for."""
    keep_parent: bool = True
    expires_seconds: float = 6 * 3600.0
    """How long a resource outlives the last sign of life of its run."""
    image_deadline_seconds: float = 2 * 3600.0
    private_service_connect: str = ""
    """Name of an endpoint for Google APIs: ``compute-NAME.p.googleapis.com`` and the others."""
    endpoint_url: str = ""
    """A laboratory that answers for every API at one address."""
    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)
    """May hold a user and a password, so it is never shown."""

    def __post_init__(self) -> None:
        """Refuse contradictions, all at once; what is missing shows when it is needed."""
        problems = [
            *self._bad_names(),
            *self._bad_choices(),
            *self._bad_labels(),
            *self._bad_addresses(),
        ]
        refuse_contradictions("Google Cloud", problems)

    @property
    def scope(self) -> str:
        """Return what `list_ours` lists."""
        return f"gcp/{self.region}/{self.project}/{self.bucket}"

    @property
    def boot_network_project(self) -> str:
        """Return the project of the one boot's network; another one where it is shared."""
        _, _, place = (self.boot_subnet or self.subnet).partition("projects/")
        return place.partition("/")[0] or self.project

    def endpoint(self, service: str) -> str:
        """Return the base URL of an API (``compute``, ``storage``, ``sts``…), without a slash."""
        if self.endpoint_url:
            return self.endpoint_url.rstrip("/")
        if self.private_service_connect:
            return f"https://{service}-{self.private_service_connect}.p.googleapis.com"
        return f"https://{service}.googleapis.com"

    def require(self, *names: str) -> None:
        """Raise `InputError` naming every one of ``names`` that is empty."""
        require_set("Google Cloud", self, names)

    def _bad_names(self) -> list[str]:
        names = ("project", "region", "zone", "bucket", "prefix")
        problems = [f"{name} is missing" for name in names if not getattr(self, name)]
        for name, pattern in _PATTERNS.items():
            value = str(getattr(self, name))
            if value and not pattern.fullmatch(value):
                problems.append(f"{name} '{value}' is none like {pattern.pattern}")
        if self.zone and self.region and not self.zone.startswith(f"{self.region}-"):
            problems.append(f"zone '{self.zone}' is not in region '{self.region}'")
        for name in ("subnet", "boot_subnet"):
            value = str(getattr(self, name))
            if value and f"/regions/{self.region}/" not in value:
                problems.append(f"{name} '{value}' is not in region '{self.region}'")
        return problems

    def _bad_choices(self) -> list[str]:
        problems = []
        if self.archive not in ARCHIVES:
            problems.append(f"archive '{self.archive}' is none of {', '.join(ARCHIVES)}")
        if self.site == TEMPORARY:
            problems.append(f"site '{TEMPORARY}' is where all sites' temporary objects lie")
        if self.nic_type not in NIC_TYPES:
            problems.append(f"nic_type '{self.nic_type}' is none of {', '.join(NIC_TYPES)}")
        return problems

    def _bad_labels(self) -> list[str]:
        problems = []
        for name, value in self.labels.items():
            if not _LABEL.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
                problems.append(f"label '{name}={value}' has other characters than a-z, 0-9, _, -")
            elif name.startswith("imageport"):
                problems.append(f"label '{name}' is one of imageport's own")
        if len(self.labels) > MOST_LABELS:
            problems.append(f"{len(self.labels)} labels, {MOST_LABELS} is the most")
        return problems

    def _bad_addresses(self) -> list[str]:
        problems = []
        for cidr in self.boot_egress_cidrs:
            try:
                if ipaddress.ip_network(cidr).version != 4:
                    problems.append(f"boot_egress_cidrs: {cidr} is not IPv4, which machines have")
            except ValueError as error:
                problems.append(f"boot_egress_cidrs: {error}")
        if self.boot_egress_cidrs and self.isolated_network_tag:
            problems.append("boot_egress_cidrs beside isolated_network_tag, whose rules are yours")
        if self.endpoint_url and not re.fullmatch(r"https?://[^\s?#/]+/?", self.endpoint_url):
            problems.append(f"endpoint_url '{self.endpoint_url}' is no http(s)://HOST:PORT")
        if self.endpoint_url and self.private_service_connect:
            problems.append("endpoint_url beside private_service_connect")
        return problems
