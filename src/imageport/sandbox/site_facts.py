"""What others need to know of a running embedded site, and the blocks that describe it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imageport.errors import FileMissing, InputError
from imageport.sandbox.azure.account import (
    LOCATION,
    RESOURCE_GROUP,
    SUBNET_ID,
    SUBSCRIPTION,
    job_container_url,
)
from imageport.sandbox.gcp import account as gcp
from imageport.sandbox.processes import marked_processes
from imageport.sandbox.sample.driver_package import CLOUD_PACKAGES
from imageport.storage.smb_location import SmbLocation

REGION = "eu-central-1"
ZONE = "eu-central-1a"
BUCKET = "imageport-jobs"
SOURCE_SITE = "onprem"
TARGET_SITE = "cloud"
"""A site's block, its work pool and its deployments bear one name, as prefect.yaml has it."""
ACCESS_KEY = "imageport-sandbox"
SECRET_KEY = "imageport-sandbox-secret"  # noqa: S105 - of the emulator, which takes any
DRIVER_FOLDERS = ("aws/ena", *(f"gcp/{name}" for name in CLOUD_PACKAGES["gcp"]))
"""In the payload: what machines need there and Windows does not bring."""
INSTALLER_FOLDER = "citrix"
PVS_TARGET_VERSION = "2407.0.0.10"
"""Of the PVS target device's installer in the payload; MCS masters have no such software."""
TARGET_BLOCKS = {
    "aws": "imageport-aws-target/aws",
    "azure": "imageport-azure-target/azure",
    "gcp": "imageport-gcp-target/gcp",
}
"""Cloud → the target block under which runs name it; every cloud that can be embedded."""
HYPERVISOR_BLOCKS = {"vsphere": "imageport-vsphere/vcenter"}
"""Hypervisor → the connection block under which runs name it; each that can be embedded."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """How to reach a running site; holds secrets of the laboratory only."""

    root: str
    ui_url: str
    api_url: str
    api_auth: str
    smb_port: int
    smb_user: str
    smb_password: str
    aws_endpoint: str
    """Empty when the site has no such cloud, as every endpoint below."""
    subnet_id: str
    payload_sha256: str
    azure_endpoint: str = ""
    gcp_endpoint: str = ""
    vcenter_port: int = 0
    """0 when the site has no vCenter; it is on loopback."""
    vcenter_user: str = ""
    vcenter_password: str = ""
    vcenter_thumbprint: str = ""

    def clouds(self) -> dict[str, str]:
        """Return cloud → endpoint of the clouds that the site has."""
        found = {
            "aws": self.aws_endpoint, "azure": self.azure_endpoint, "gcp": self.gcp_endpoint,
        }  # fmt: skip
        return {name: endpoint for name, endpoint in found.items() if endpoint}

    def shares(self) -> dict[str, Path]:
        """Return the folders behind the shares."""
        return share_folders(Path(self.root))

    def keep(self) -> None:
        """Write the facts down for `load_facts`; readable by the owner only."""
        write_private(_facts_path(Path(self.root)), json.dumps(asdict(self), indent=1))


def load_facts(root: Path) -> SiteFacts:
    """Return the facts of a running site; `FileMissing` when none runs at ``root``."""
    path = _facts_path(root)
    if not path.exists() or not marked_processes(root.resolve()):
        raise FileMissing(
            f"Cannot find a running site at '{root}': nothing of it runs.",
            hint="Start it with `imageport sandbox up`.",
        )
    return SiteFacts(**json.loads(path.read_text()))


def forget_facts(root: Path) -> None:
    """Remove what `SiteFacts.keep` wrote; may be called twice."""
    _facts_path(root).unlink(missing_ok=True)


def chosen_clouds(cloud: str | Collection[str]) -> tuple[str, ...]:
    """Return the clouds to embed, in one order; ``all`` is every one that there is.

    `InputError` for one that cannot be embedded, or none at all.
    """
    wanted = {cloud} if isinstance(cloud, str) else set(cloud)
    if wanted == {"all"}:
        wanted = set(TARGET_BLOCKS)
    if not wanted or not wanted <= set(TARGET_BLOCKS):
        found, needed = ", ".join(sorted(wanted)) or "none", ", ".join(TARGET_BLOCKS)
        raise InputError(f"Bad embedded cloud: found {found}, needed some of {needed}, or all.")
    return tuple(name for name in TARGET_BLOCKS if name in wanted)


def place_of(cloud: str) -> str:
    """Return where generations of the embedded site lie, as the catalogue writes it."""
    region = {"aws": REGION, "azure": LOCATION, "gcp": gcp.REGION}[cloud]
    return f"{cloud}/{region}/{TARGET_SITE}"


def share_folders(root: Path) -> dict[str, Path]:
    """Return share name → folder: two vDisk stores, exports, and what both sites must see."""
    names = ("source-store", "target-store", "exports", "state")
    return {name: root / "shares" / name for name in names}


def payload_folder(root: Path) -> Path:
    """Return the folder with the operator's drivers and installers."""
    return root / "payload"


@dataclass(frozen=True, slots=True)
class SourceStore:
    """A vDisk store of the user's own that the embedded source site reads; nothing writes there.

    The password stays in the worker's environment, under the name that ``password_variable`` says.
    """

    location: SmbLocation
    username: str
    domain: str
    password_variable: str

    def share_values(self) -> dict[str, Any]:
        """Return the fields of its share block."""
        return {
            "host": self.location.host,
            "port": self.location.port,
            "share": self.location.share,
            "folder": self.location.folder,
            "username": self.username,
            "domain": self.domain,
            "password_variable": self.password_variable,
        }


def block_documents(facts: SiteFacts, source: SourceStore | None = None) -> list[dict[str, Any]]:
    """Return the blocks of the embedded site, as ``flows.register`` takes them."""
    documents = [
        _block("imageport-smb-share", share, _share_values(facts, share))
        for share in share_folders(Path(facts.root))
    ]
    if source is not None:
        documents[0] = _block("imageport-smb-share", "source-store", source.share_values())
    exports: dict[str, Any] = {}
    if facts.vcenter_port:
        documents += _vcenter_documents(facts)
        exports["exports"] = _nested("imageport-pvs-store", "exports")
    for site, store in ((SOURCE_SITE, "source-store"), (TARGET_SITE, "target-store")):
        values = {"share": _nested("imageport-smb-share", store)}
        documents.append(_block("imageport-pvs-store", store, values))
        payload = {
            "payload_folder": str(payload_folder(Path(facts.root))),
            "payload_sha256": facts.payload_sha256,
        }
        documents.append(
            _block("imageport-site", site, {
                "name": site,
                "work_pool": site,
                "store": _nested("imageport-pvs-store", store),
                "state_share": _nested("imageport-smb-share", "state"),
                **(payload | exports if site == SOURCE_SITE else {}),
            })
        )  # fmt: skip
    if facts.aws_endpoint:
        documents += _aws_documents(facts)
    if facts.azure_endpoint:
        documents.append(_azure_document(facts))
    if facts.gcp_endpoint:
        documents.append(_gcp_document(facts))
    return documents


def _aws_documents(facts: SiteFacts) -> list[dict[str, Any]]:
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    return [
        _block("aws-credentials", "sandbox", {**keys, "region_name": REGION}),
        _block(*_kind_and_name(TARGET_BLOCKS["aws"]), {
            "credentials": _nested("aws-credentials", "sandbox"),
            "region": REGION,
            "availability_zone": ZONE,
            "subnet_id": facts.subnet_id,
            "bucket": BUCKET,
            "endpoint_url": facts.aws_endpoint,
        }),
    ]  # fmt: skip


def _azure_document(facts: SiteFacts) -> dict[str, Any]:
    """Return a target without credentials: an endpoint on loopback has the laboratory's."""
    return _block(*_kind_and_name(TARGET_BLOCKS["azure"]), {
        "subscription_id": SUBSCRIPTION,
        "resource_group": RESOURCE_GROUP,
        "location": LOCATION,
        "subnet_id": SUBNET_ID,
        "job_container_url": job_container_url(facts.azure_endpoint),
        "endpoint_url": facts.azure_endpoint,
    })  # fmt: skip


def _gcp_document(facts: SiteFacts) -> dict[str, Any]:
    """Return a target whose workers prove who they are by a file of the laboratory."""
    return _block(*_kind_and_name(TARGET_BLOCKS["gcp"]), {
        "project": gcp.PROJECT,
        "region": gcp.REGION,
        "zone": gcp.ZONE,
        "bucket": gcp.BUCKET,
        "subnet": gcp.SUBNET,
        "credentials_file": str(Path(facts.root, "gcp", gcp.KEY_FILE)),
        "endpoint_url": facts.gcp_endpoint,
    })  # fmt: skip


def _vcenter_documents(facts: SiteFacts) -> list[dict[str, Any]]:
    """Return the vCenter and the folder that its masters are exported to."""
    return [
        _block(*_kind_and_name(HYPERVISOR_BLOCKS["vsphere"]), {
            "host": "127.0.0.1",
            "port": facts.vcenter_port,
            "username": facts.vcenter_user,
            "password": facts.vcenter_password,
            "thumbprint": facts.vcenter_thumbprint,
        }),
        _block("imageport-pvs-store", "exports", {
            "share": _nested("imageport-smb-share", "exports"),
        }),
    ]  # fmt: skip


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _share_values(facts: SiteFacts, share: str) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": facts.smb_port,
        "share": share,
        "username": facts.smb_user,
        "password": facts.smb_password,
    }


def _kind_and_name(slug: str) -> tuple[str, str]:
    kind, _, name = slug.partition("/")
    return kind, name


def _block(kind: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "name": name, "values": values}


def _nested(kind: str, name: str) -> dict[str, str]:
    return {"$block": f"{kind}/{name}"}


def _facts_path(root: Path) -> Path:
    return root / "site.json"
