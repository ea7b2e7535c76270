"""The embedded site as the tests see it: what they ask of it and what they do to it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imageport.sandbox.prefect_api import RunState
from imageport.sandbox.processes import marked_processes
from imageport.sandbox.site import EmbeddedSite
from imageport.sandbox.site_facts import REGION, TARGET_SITE
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder

IMAGE = "gold"


class RunningSite:
    """The site with the few things that these tests ask and do."""

    def __init__(self, site: EmbeddedSite) -> None:
        self.site = site
        self.api = site.control.api
        self.target = f"aws/{REGION}/{TARGET_SITE}"

    def folder(self, name: str) -> Path:
        return self.site.root / "shares" / name

    def state(self) -> StateStore:
        return StateStore(LocalFolder(self.folder("state")))

    def start(self, deployment: str, key: str = "", **values: Any) -> str:
        places = {
            "source": saved("imageport-site/onprem"),
            "target": saved("imageport-site/cloud"),
            "cloud": saved("imageport-aws-target/aws"),
        }
        options = {"options": {"drivers": ["aws/ena"]}}
        return self.api.start(deployment, {**places, **options, **values}, idempotency_key=key)

    def snapshots(self) -> set[str]:
        ec2 = self.site.client("ec2")
        return {
            item["SnapshotId"] for item in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        }

    def leftovers(self) -> dict[str, list[str]]:
        """Return what the cloud holds beyond what the catalogue names."""
        ec2 = self.site.client("ec2")
        kept = {item.handle["snapshot_id"] for item in self.state().catalogue.list()}
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
