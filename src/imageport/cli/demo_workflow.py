"""What the demo's workflows differ in: where the image comes from, and what the run form takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from imageport.progress import EventSink
from imageport.sandbox.demo_image import DemoImage, chosen_image, chosen_master
from imageport.sandbox.sample.installer_package import FILE_NAMES, sha256_of
from imageport.sandbox.site_facts import (
    DRIVER_FOLDERS,
    HYPERVISOR_BLOCKS,
    INSTALLER_FOLDER,
    PVS_TARGET_VERSION,
    SOURCE_SITE,
    payload_folder,
    share_folders,
)
from imageport.sandbox.vcenter.master import MASTER
from imageport.workflow.master import export_target

PVS_TO_PVS, MCS_TO_PVS, FAN_OUT = "pvs-to-pvs", "mcs-to-pvs", "fan-out"
CONTROLLERS = ["ddc1.cloud.example", "ddc2.cloud.example"]
OPTIONS: dict[str, Any] = {"drivers": list(DRIVER_FOLDERS), "list_of_ddcs": CONTROLLERS}


class DemoWorkflow(ABC):
    """One workflow on the embedded site."""

    hypervisor: ClassVar[str] = ""
    """What the site needs beside its stores."""
    exports: ClassVar[str] = ""
    """What the catalogue calls the place of its exports."""

    @abstractmethod
    def chosen(self, argument: str) -> DemoImage:
        """Return what ``--image`` names."""

    @abstractmethod
    def put(self, image: DemoImage, root: Path, events: EventSink) -> None:
        """Put the image where the workflow reads it, in the site at ``root``."""

    def parameters(self, root: Path) -> dict[str, Any]:
        """Return what its run form takes beyond the common fields."""
        del root
        return {}


class _PvsToPvs(DemoWorkflow):
    """A vDisk of the source site's store."""

    def chosen(self, argument: str) -> DemoImage:
        return chosen_image(argument)

    def put(self, image: DemoImage, root: Path, events: EventSink) -> None:
        image.put_into(share_folders(root)["source-store"], events)


class _McsToPvs(DemoWorkflow):
    """A machine of the embedded vCenter, without the PVS target device software."""

    hypervisor: ClassVar[str] = "vsphere"
    exports: ClassVar[str] = export_target(SOURCE_SITE)

    def chosen(self, argument: str) -> DemoImage:
        return chosen_master(argument)

    def put(self, image: DemoImage, root: Path, events: EventSink) -> None:
        image.put_into_vcenter(root, events)

    def parameters(self, root: Path) -> dict[str, Any]:
        return {
            "hypervisor": saved_block(HYPERVISOR_BLOCKS[self.hypervisor]),
            "vm": MASTER.path,
            "options": {**OPTIONS, "installers": [_target_installer(root)]},
        }


def _target_installer(root: Path) -> dict[str, Any]:
    """Return what brings the PVS target device software at first boot."""
    path = f"{INSTALLER_FOLDER}/{FILE_NAMES['pvs_target']}"
    return {
        "software": "pvs_target",
        "name": "PVS-target",
        "version": PVS_TARGET_VERSION,
        "sha256": sha256_of(payload_folder(root) / path),
        "path": path,
        "arguments": ["/s", "/v/qn"],
    }


def saved_block(slug: str) -> dict[str, Any]:
    """Return how a run form names a saved block."""
    return {"$ref": {"block_document_slug": slug}}


WORKFLOWS: dict[str, DemoWorkflow] = {PVS_TO_PVS: _PvsToPvs(), MCS_TO_PVS: _McsToPvs()}
"""By the name of the flow, whose deployment bears the source site's name."""
