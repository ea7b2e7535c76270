"""The embedded site: two sites and a cloud on this machine, for the demo and the tests.

Real Samba, real Prefect with one worker per site, moto made strict with machines that really run.
Everything listens on loopback on free ports. It does not boot Windows, and says so.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import boto3

from imageport.errors import EngineFailed, FileMissing
from imageport.progress import EventSink, Stage, silent
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.control_plane import ControlPlane
from imageport.sandbox.processes import MARK, end_marked, marked_processes
from imageport.sandbox.samba import SambaServer

REGION = "eu-central-1"
ZONE = "eu-central-1a"
BUCKET = "imageport-jobs"
SOURCE_POOL = "onprem"
TARGET_POOL = "cloud"
SMB_USER = "imageport"


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What others need to reach a running site; holds secrets of the laboratory only."""

    root: str
    ui_url: str
    api_url: str
    api_auth: str
    smb_port: int
    smb_user: str
    smb_password: str
    aws_endpoint: str
    subnet_id: str

    def shares(self) -> dict[str, Path]:
        """Return the folders behind the shares."""
        return share_folders(Path(self.root))


def share_folders(root: Path) -> dict[str, Path]:
    """Return share name → folder: two vDisk stores and what both sites must see."""
    names = ("source-store", "target-store", "state")
    return {name: root / "shares" / name for name in names}


class EmbeddedSite:
    """Starts and stops everything; use as a context manager, or `detach` to leave it running."""

    def __init__(self, root: Path, *, events: EventSink = silent) -> None:
        self.root = root.resolve()
        self._events = events
        self._detached = False
        self.facts: SiteFacts | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._detached:
            self.stop()

    def start(self) -> SiteFacts:
        """Start all services, register blocks and deployments; on any error stop everything."""
        stop_site(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        os.environ[MARK] = str(self.root)
        stage = Stage("site", self._events, total=5, unit="steps")
        try:
            self.facts = self._start(stage)
        except BaseException:
            self.stop()
            raise
        stage.finish()
        return self.facts

    def _start(self, stage: Stage) -> SiteFacts:
        folders = share_folders(self.root)
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        password = _kept_password(self.root / "smb-password")
        self.samba = SambaServer(self.root / "samba", folders, SMB_USER, password)
        self.samba.start()
        stage.advance(1, f"file server on port {self.samba.port}")
        self.aws = AwsService(self.root / "aws")
        self.aws.start()
        subnet_id = self._prepare_account()
        stage.advance(1, f"cloud on {self.aws.endpoint}")
        self.control = ControlPlane(self.root / "prefect", self.root)
        self.control.start_server()
        stage.advance(1, f"Prefect on {self.control.ui_url}")
        facts = SiteFacts(
            root=str(self.root),
            ui_url=self.control.ui_url,
            api_url=self.control.api_url,
            api_auth=self.control.auth,
            smb_port=self.samba.port,
            smb_user=SMB_USER,
            smb_password=password,
            aws_endpoint=self.aws.endpoint,
            subnet_id=subnet_id,
        )
        self._keep(facts)
        self._register(facts)
        stage.advance(1, "blocks and deployments registered")
        for pool in (SOURCE_POOL, TARGET_POOL):
            self.start_worker(pool)
        stage.advance(1, "one worker for each site")
        return facts

    def start_worker(self, pool: str) -> None:
        """Start the worker of a pool; again after it was killed."""
        self.control.start_worker(pool)

    def detach(self) -> None:
        """Leave everything running when this process ends."""
        self._detached = True

    def stop(self) -> None:
        """End everything that belongs to the site; may be called twice."""
        for name in ("control", "aws", "samba"):
            service = getattr(self, name, None)
            if service is not None:
                service.stop()
        stop_site(self.root)
        os.environ.pop(MARK, None)

    def boto3_client(self, service: str) -> object:
        """Return a client of the embedded cloud."""
        return _session().client(service, endpoint_url=self.aws.endpoint, region_name=REGION)

    def _prepare_account(self) -> str:
        """Make what an account has before this product comes: a bucket, a network."""
        session = _session()
        s3 = session.client("s3", endpoint_url=self.aws.endpoint, region_name=REGION)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        ec2 = session.client("ec2", endpoint_url=self.aws.endpoint, region_name=REGION)
        vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.1.0/24", AvailabilityZone=ZONE)
        return str(subnet["Subnet"]["SubnetId"])

    def _keep(self, facts: SiteFacts) -> None:
        path = self.root / "site.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(facts), indent=1))

    def _register(self, facts: SiteFacts) -> None:
        """Save blocks and deployments as an operator would: by the project's own commands."""
        blocks = self.root / "blocks.json"
        blocks.touch(mode=0o600)
        blocks.write_text(json.dumps(block_documents(facts), indent=1))
        for argv in ([sys.executable, "-m", "flows.register", "--blocks", str(blocks)],):
            done = subprocess.run(
                argv, env=self.control.environment(), cwd=project_root(),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise EngineFailed(
                    f"Cannot register '{argv[2]}': it ended with {done.returncode}.",
                    log=(done.stdout + done.stderr)[-4000:],
                )


def block_documents(facts: SiteFacts) -> list[dict[str, object]]:
    """Return the block documents of the embedded site, as `flows.register` takes them."""
    raise FileMissing(facts.root)


def load_facts(root: Path) -> SiteFacts:
    """Return the facts of a running site; `FileMissing` when none runs at ``root``."""
    path = root / "site.json"
    if not path.exists() or not marked_processes(root.resolve()):
        raise FileMissing(
            f"Cannot find a running site at '{root}': nothing of it runs.",
            hint="Start it with `imageport sandbox up`.",
        )
    return SiteFacts(**json.loads(path.read_text()))


def stop_site(root: Path) -> int:
    """End every process of the site at ``root``; returns how many there were."""
    ended = end_marked(root.resolve())
    (root / "site.json").unlink(missing_ok=True)
    return ended


def project_root() -> Path:
    """Return the folder that holds prefect.yaml."""
    return Path(__file__).parents[3]


def _session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="imageport-sandbox",
        aws_secret_access_key="imageport-sandbox-secret",  # noqa: S106 - of the emulator
        region_name=REGION,
    )


def _kept_password(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(12))
    return path.read_text()
