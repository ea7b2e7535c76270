"""Two sites and a cloud on this machine, without Prefect: what a plain script would use."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import boto3

from imageport.citrix.vdisk_store import VdiskStore
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.compose.contract import EngineOptions
from imageport.progress import Event
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.samba import SambaServer
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.sample.recipe import Variant
from imageport.sandbox.site import BUCKET, REGION, ZONE, prepare_account
from imageport.state.store import StateStore
from imageport.storage.locate import open_folder
from imageport.storage.smb_location import SmbCredentials
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.place import Workplace

SHARES = ("source-store", "target-store", "state")


@dataclass
class Laboratory:
    """Everything a run needs, opened as the blocks would open it."""

    root: Path
    samba: SambaServer
    aws: AwsService
    subnet_id: str
    events: list[Event]

    def share(self, name: str) -> Path:
        return self.root / "shares" / name

    def store(self, name: str) -> VdiskStore:
        return VdiskStore(open_folder(self.samba.location(name), self.credentials()))

    def credentials(self) -> SmbCredentials:
        return SmbCredentials("imageport", "Pa55-of-the-lab")

    def session(self) -> boto3.Session:
        return boto3.Session("lab-key", "lab-secret-key", region_name=REGION)

    def place(self, run: str) -> Workplace:
        state = StateStore(open_folder(self.samba.location("state"), self.credentials()))
        settings = AwsSettings(
            region=REGION,
            availability_zone=ZONE,
            bucket=BUCKET,
            subnet_id=self.subnet_id,
            site="site-a",
            endpoint_url=self.aws.endpoint,
        )
        cloud = AwsCloud(settings, self.session(), state.ledger, run)
        return Workplace(
            "site-a", f"aws/{REGION}/site-b", run, state, cloud, events=self.events.append
        )

    def payload(self) -> Path:
        folder, packed = self.root / "payload", self.root / "payload.zip"
        if not packed.exists():
            write_ena_package(folder / "ena")
            with zipfile.ZipFile(packed, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.write(path, path.relative_to(folder))
        return packed

    def choices(self) -> PrepareChoices:
        engine = EngineOptions(drivers=("ena",), list_of_ddcs=("ddc1.cloud.example",))
        return replace(PrepareChoices(engine=engine), boot_deadline_seconds=600.0)


@contextmanager
def open_laboratory(root: Path) -> Iterator[Laboratory]:
    folders = {name: root / "shares" / name for name in SHARES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    build_sample(folders["source-store"] / "gold.vhdx", Variant.SMALL)
    samba = SambaServer(root / "samba", folders, "imageport", "Pa55-of-the-lab")
    aws = AwsService(root / "aws")
    try:
        samba.start()
        aws.start()
        yield Laboratory(root, samba, aws, prepare_account(aws.endpoint), [])
    finally:
        aws.stop()
        samba.stop()
