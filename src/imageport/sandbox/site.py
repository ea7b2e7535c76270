"""The embedded site: two sites and their clouds on this machine, for the demo and the tests.

Real Samba, real Prefect with one worker per site, emulated clouds with machines that really run.
Everything listens on loopback on free ports. It does not boot Windows, and says so. What a run
made (state store, snapshots, vDisks) stays in the site's folder from one start to the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Self

import boto3
from botocore.exceptions import ClientError

from imageport.errors import EngineFailed, InputError
from imageport.payload import pack_payload
from imageport.progress import EventSink, Stage, silent
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.azure.service import AzureService
from imageport.sandbox.control_plane import ControlPlane, free_port
from imageport.sandbox.gcp.service import GcpService
from imageport.sandbox.processes import MARK, end_marked
from imageport.sandbox.samba import SambaServer
from imageport.sandbox.sample.driver_package import write_cloud_packages, write_ena_package
from imageport.sandbox.sample.installer_package import write_installer
from imageport.sandbox.site_facts import (
    ACCESS_KEY,
    BUCKET,
    DRIVER_FOLDERS,
    HYPERVISOR_BLOCKS,
    INSTALLER_FOLDER,
    PVS_TARGET_VERSION,
    REGION,
    SECRET_KEY,
    SOURCE_SITE,
    TARGET_BLOCKS,
    TARGET_SITE,
    ZONE,
    SiteFacts,
    SourceStore,
    block_documents,
    chosen_clouds,
    forget_facts,
    payload_folder,
    share_folders,
    write_private,
)
from imageport.sandbox.vcenter.master import master_file, master_vcenter, put_sample_master
from imageport.sandbox.vcenter.service import VcenterService

__all__ = ["BUCKET", "REGION", "ZONE", "EmbeddedSite", "prepare_account", "stop_site"]

SMB_USER = "imageport"
_NETWORK, _SUBNET = "10.77.0.0/16", "10.77.1.0/24"


def _nothing() -> None:
    """Do nothing while waiting."""


class EmbeddedSite:
    """Starts and stops everything; use as a context manager, or `detach` to leave it running.

    ``cloud`` is one of `TARGET_BLOCKS`, several of them, or ``all``; `aws`, `azure` and `gcp` are
    the services of those that were chosen. With ``hypervisor="vsphere"`` there is a vCenter with
    one master machine (`sandbox.vcenter.master`), whose disk is the sample of an MCS master unless
    ``meanwhile`` has put another there.
    """

    aws: AwsService
    azure: AzureService
    gcp: GcpService
    vcenter: VcenterService

    def __init__(
        self,
        root: Path,
        *,
        cloud: str | Collection[str] = "aws",
        hypervisor: str = "",
        events: EventSink = silent,
        source: SourceStore | None = None,
    ) -> None:
        if hypervisor and hypervisor not in HYPERVISOR_BLOCKS:
            needed = ", ".join(HYPERVISOR_BLOCKS)
            raise InputError(f"Bad embedded hypervisor: found '{hypervisor}', needed {needed}.")
        self.root = root.resolve()
        self.clouds = chosen_clouds(cloud)
        self.hypervisor = hypervisor
        self.source = source
        self._events = events
        self._detached = False
        self._lock: IO[str] | None = None
        self.facts: SiteFacts | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._detached:
            self._unlock()
        else:
            self.stop()

    def start(self, meanwhile: Callable[[], None] = _nothing) -> SiteFacts:
        """Start all services, register blocks and deployments; on any error stop everything.

        ``meanwhile`` is called while the Prefect server comes up, which takes a core for 15 s.
        `InputError` when another process is using the folder; a site that was left running there
        is stopped first.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        stop_site(self.root)
        os.environ[MARK] = str(self.root)
        total = 6 if self.hypervisor else 5
        stage = Stage("site", self._events, total=total, unit="steps")
        try:
            self.facts = self._start(stage, meanwhile)
        except BaseException:
            self.stop()
            raise
        stage.finish()
        return self.facts

    def _start(self, stage: Stage, meanwhile: Callable[[], None]) -> SiteFacts:
        self.control = ControlPlane(self.root / "prefect", self.root)
        self.control.launch_server()
        password = self._start_file_server()
        stage.advance(1, f"file server on port {self.samba.port}")
        endpoints, subnet_id = self._start_clouds()
        listed = ", ".join(f"{name} on {endpoint}" for name, endpoint in endpoints.items())
        stage.advance(1, f"cloud {listed}")
        facts = SiteFacts(
            root=str(self.root),
            ui_url=self.control.ui_url,
            api_url=self.control.api_url,
            api_auth=self.control.auth,
            smb_port=self.samba.port,
            smb_user=SMB_USER,
            smb_password=password,
            aws_endpoint=endpoints.get("aws", ""),
            azure_endpoint=endpoints.get("azure", ""),
            gcp_endpoint=endpoints.get("gcp", ""),
            subnet_id=subnet_id,
            payload_sha256=self._write_payload(),
        )
        facts.keep()
        meanwhile()
        if self.hypervisor:
            facts = self._start_vcenter(facts)
            stage.advance(1, f"vCenter on port {facts.vcenter_port}")
        self.control.await_server()
        self.control.api.delete_unfinished()
        stage.advance(1, f"Prefect on {self.control.ui_url}")
        self._register(facts)
        stage.advance(1, "blocks and deployments registered")
        for pool in (SOURCE_SITE, TARGET_SITE):
            self.start_worker(pool)
        self.control.await_workers()
        stage.advance(1, "one worker for each site")
        return facts

    def start_worker(self, pool: str) -> None:
        """Start the worker of a pool; again after it was killed."""
        self.control.start_worker(pool)

    def detach(self) -> None:
        """Leave everything running when this process ends."""
        self._detached = True

    def stop(self) -> None:
        """End everything that belongs to the site; may be called twice.

        Without the folder's lock nothing of the site is ours: another process runs it.
        """
        if self._lock is None:
            return
        for name in ("control", "vcenter", "aws", "azure", "gcp", "samba"):
            service = getattr(self, name, None)
            if service is not None:
                service.stop()
        stop_site(self.root)
        os.environ.pop(MARK, None)
        self._unlock()

    def client(self, service: str) -> Any:
        """Return a boto3 client of the embedded AWS account."""
        return _client(service, self.aws.endpoint)

    def _start_clouds(self) -> tuple[dict[str, str], str]:
        """Start the chosen clouds; return their endpoints and the subnet of the AWS account."""
        endpoints, subnet_id = {}, ""
        if "aws" in self.clouds:
            self.aws = AwsService(self.root / "aws")
            self.aws.start()
            endpoints["aws"] = self.aws.endpoint
            subnet_id = prepare_account(self.aws.endpoint)
        if "azure" in self.clouds:
            self.azure = AzureService(self.root / "azure")
            self.azure.start()
            endpoints["azure"] = self.azure.endpoint
        if "gcp" in self.clouds:
            self.gcp = GcpService(self.root / "gcp")
            self.gcp.start()
            endpoints["gcp"] = self.gcp.endpoint
        return endpoints, subnet_id

    def _start_vcenter(self, facts: SiteFacts) -> SiteFacts:
        """Start the vCenter when its machine has a disk; return the facts with it, kept."""
        self.vcenter = master_vcenter(self.root)
        if not master_file(self.root).exists():
            put_sample_master(self.root, self._events)
        self.vcenter.start()
        found = replace(
            facts,
            vcenter_port=self.vcenter.port,
            vcenter_user=self.vcenter.username,
            vcenter_password=self.vcenter.password,
            vcenter_thumbprint=self.vcenter.thumbprint,
        )
        found.keep()
        return found

    def _start_file_server(self) -> str:
        """Start Samba on the port it had before: the port is part of every vDisk's location."""
        folders = share_folders(self.root)
        password = _kept(self.root / "smb-password", lambda: secrets.token_urlsafe(12))
        self.samba = SambaServer(self.root / "samba", folders, SMB_USER, password)
        kept_port = self.root / "smb-port"
        port = int(_kept(kept_port, lambda: str(free_port())))
        if not _is_free(port):
            port = free_port()
            write_private(kept_port, str(port))
        self.samba.port = port
        self.samba.start()
        return password

    def _write_payload(self) -> str:
        """Write the operator's drivers and installers; return the digest that pins them."""
        folder = payload_folder(self.root)
        aws, *_ = DRIVER_FOLDERS
        write_ena_package(folder / aws)
        write_cloud_packages("gcp", folder / "gcp")
        installers = folder / INSTALLER_FOLDER
        write_installer(installers, "pvs_target", PVS_TARGET_VERSION, exit_code=3010)
        packed = self.root / "payload.zip"
        try:
            return pack_payload(folder, packed)
        finally:
            packed.unlink(missing_ok=True)

    def _register(self, facts: SiteFacts) -> None:
        """Save blocks and deployments as an operator would: by the project's own command."""
        blocks = self.root / "blocks.json"
        write_private(blocks, json.dumps(block_documents(facts, self.source), indent=1))
        argv = [sys.executable, "-m", "flows.register", "--blocks", str(blocks)]
        argv += ["--pools", "--deploy", "--target", TARGET_BLOCKS[self.clouds[0]]]
        try:
            done = subprocess.run(
                argv, env=self.control.environment(), cwd=self.root,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            blocks.unlink()
        if done.returncode:
            raise EngineFailed(
                f"Cannot register the site: flows.register ended with {done.returncode}.",
                log=(done.stdout + done.stderr)[-4000:],
            )

    def _take_lock(self) -> None:
        lock = (self.root / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise InputError(
                f"Cannot start a site at '{self.root}': another process is using it.",
                hint="Wait for it, or name another folder with --root.",
            ) from error
        self._lock = lock

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def prepare_account(endpoint: str) -> str:
    """Make what an account has before this product comes, bucket and subnet; return the subnet."""
    s3, ec2 = _client("s3", endpoint), _client("ec2", endpoint)
    try:
        s3.head_bucket(Bucket=BUCKET)
    except ClientError:
        place = {"LocationConstraint": REGION}
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
    wanted = [{"Name": "cidr-block", "Values": [_SUBNET]}]
    found = ec2.describe_subnets(Filters=wanted)["Subnets"]
    if found:
        return str(found[0]["SubnetId"])
    vpc = ec2.create_vpc(CidrBlock=_NETWORK)["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock=_SUBNET, AvailabilityZone=ZONE)
    return str(made["Subnet"]["SubnetId"])


def _client(service: str, endpoint: str) -> Any:
    session = boto3.Session(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION
    )
    make: Any = session.client
    return make(service, endpoint_url=endpoint)


def stop_site(root: Path) -> int:
    """End every process of the site at ``root``; returns how many there were."""
    ended = end_marked(root.resolve())
    forget_facts(root)
    return ended


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Return what the file holds; the first time, what ``make`` gives."""
    if not path.exists():
        write_private(path, make())
    return path.read_text()
