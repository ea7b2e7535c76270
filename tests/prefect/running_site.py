"""The embedded site as the tests see it: what they ask of it and what they do to it."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from blocks import AzureTarget
from imageport.sandbox.azure.account import (
    LOCATION,
    RESOURCE_GROUP,
    SUBSCRIPTION,
    job_container_url,
)
from imageport.sandbox.prefect_api import RunState
from imageport.sandbox.processes import marked_processes
from imageport.sandbox.site import EmbeddedSite
from imageport.sandbox.site_facts import TARGET_BLOCKS, TARGET_SITE, place_of
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder

IMAGE = "gold"


class RunningSite:
    """The site with the few things that these tests ask and do."""

    def __init__(self, site: EmbeddedSite) -> None:
        self.site = site
        self.api = site.control.api
        self.target = place_of("aws")

    def folder(self, name: str) -> Path:
        return self.site.root / "shares" / name

    def state(self) -> StateStore:
        return StateStore(LocalFolder(self.folder("state")))

    def start(self, deployment: str, key: str = "", **values: Any) -> str:
        places = {
            "source": saved("imageport-site/onprem"),
            "target": saved("imageport-site/cloud"),
            "cloud": saved(TARGET_BLOCKS["aws"]),
        }
        options = {"options": {"drivers": ["aws/ena"]}}
        return self.api.start(deployment, {**places, **options, **values}, idempotency_key=key)

    def snapshots(self) -> set[str]:
        ec2 = self.site.client("ec2")
        return {
            item["SnapshotId"] for item in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        }

    def leftovers(self, cloud: str = "aws") -> dict[str, list[str]]:
        """Return what a cloud holds beyond what the catalogue names."""
        return self._aws_leftovers() if cloud == "aws" else self._azure_leftovers()

    def _aws_leftovers(self) -> dict[str, list[str]]:
        ec2 = self.site.client("ec2")
        kept = {item.handle.get("snapshot_id", "") for item in self.state().catalogue.list()}
        instances = [
            machine["InstanceId"]
            for reservation in ec2.describe_instances()["Reservations"]
            for machine in reservation["Instances"]
            if machine["State"]["Name"] != "terminated"
        ]
        volumes = [item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]]
        found = {
            "snapshots": sorted(self.snapshots() - kept),
            "instances": instances,
            "volumes": volumes,
        }
        return {kind: names for kind, names in found.items() if names}

    def _azure_leftovers(self) -> dict[str, list[str]]:
        """Everything of the group with our tags: disks, machines, security groups, accesses."""
        endpoint = self.site.azure.endpoint
        block = AzureTarget(
            subscription_id=SUBSCRIPTION, resource_group=RESOURCE_GROUP, location=LOCATION,
            endpoint_url=endpoint, job_container_url=job_container_url(endpoint),
        )  # fmt: skip
        state = self.state()
        kept = {item.handle.get("snapshot_id", "") for item in state.catalogue.list()}
        found: dict[str, list[str]] = {}
        with closing(block.open_cloud(state.ledger, "test", site=TARGET_SITE)) as cloud:
            for resource in cloud.list_ours(TARGET_SITE):
                if resource.id not in kept:
                    found.setdefault(resource.kind, []).append(resource.id)
        return found

    def processes_of(self, word: str) -> list[int]:
        """Return the site's processes whose command line has a word."""
        return [pid for pid in marked_processes(self.site.root) if word in command_line(pid)]

    def kill_source_worker(self) -> None:
        """What a power cut at the source site does: the worker and every run of it at once."""
        worker = self.site.control.workers["onprem"]
        for pid in [worker.pid, *self.processes_of("prefect.engine")]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return all runs of a flow, newest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        return list(self.api._call("POST", "/flow_runs/filter", body))

    def until(self, what: Callable[[], Any], timeout_seconds: float) -> Any:
        deadline = time.monotonic() + timeout_seconds
        while not (found := what()):
            assert time.monotonic() < deadline, f"{what} stayed false for {timeout_seconds} s"
            time.sleep(1)
        return found

    def wait_over_crashes(self, run_id: str, timeout_seconds: float) -> RunState:
        """Wait for the end of a run that may crash and be resumed meanwhile."""
        last = {"CRASHED"}
        self.until(
            lambda: (state := self.api.state(run_id)).is_terminal and state.type not in last,
            timeout_seconds,
        )
        return self.api.state(run_id)

    def progress_of(self, run_id: str, stage: str) -> float:
        """Return per cent of a stage by its artifact; 0 before there is one."""
        for artifact in self.api.artifacts([run_id]):
            if artifact["type"] == "progress" and artifact["key"].startswith(f"{stage}-"):
                return float(artifact["data"])
        return 0.0


def saved(slug: str) -> dict[str, Any]:
    return {"$ref": {"block_document_slug": slug}}


def command_line(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
