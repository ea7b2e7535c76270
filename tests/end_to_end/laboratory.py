"""Two sites and a cloud on this machine, without Prefect: what a plain script would use."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import boto3

from imageport.citrix.vdisk_store import VdiskStore
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.compose.contract import EngineOptions
from imageport.progress import Event
from imageport.sandbox.aws.service import AwsService
from imageport.sandbox.samba import SambaServer
from imageport.sandbox.sample.driver_package import write_ena_package
from imageport.sandbox.site import BUCKET, REGION, ZONE, prepare_account
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.storage.locate import open_folder
from imageport.storage.smb_location import SmbCredentials
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.place import Workplace

SHARES = ("source-store", "target-store", "state")


@dataclass
class Laboratory:
    """Everything a run needs, opened as the blocks would open it."""

    root: Path
    smb_port: int
    aws_endpoint: str
    subnet_id: str
    events: list[Event] = field(default_factory=list)
    aws: AwsService | None = None
    """In the process that started it."""

    def turn(self, **knobs: float) -> None:
        """Turn the emulator's knobs: throttling, failures."""
        assert self.aws is not None
        self.aws.turn(**knobs)

    def location(self, share: str) -> str:
        return f"smb://127.0.0.1:{self.smb_port}/{share}"

    def share(self, name: str) -> Path:
        return self.root / "shares" / name

    def store(self, name: str) -> VdiskStore:
        return VdiskStore(open_folder(self.location(name), self.credentials()))

    def credentials(self) -> SmbCredentials:
        return SmbCredentials("imageport", "Pa55-of-the-lab")

    def session(self) -> boto3.Session:
        return boto3.Session("lab-key", "lab-secret-key", region_name=REGION)

    def place(self, run: str) -> Workplace:
        state = StateStore(open_folder(self.location("state"), self.credentials()))
        settings = AwsSettings(
            region=REGION,
            availability_zone=ZONE,
            bucket=BUCKET,
            subnet_id=self.subnet_id,
            site="site-a",
            endpoint_url=self.aws_endpoint,
        )
        cloud = AwsCloud(settings, self.session(), state.ledger, run)
        return Workplace(
            "site-a", f"aws/{REGION}/site-b", run, state, cloud, events=self.events.append
        )

    def facts(self) -> list[str]:
        """What another process needs to open the same laboratory."""
        return [str(self.root), str(self.smb_port), self.aws_endpoint, self.subnet_id]

    @contextmanager
    def other_share(self, state: Path, folder: Path) -> Iterator[Folder]:
        """Serve one more folder, by a file server of its own."""
        server = SambaServer(state, {folder.name: folder}, "imageport", "Pa55-of-the-lab")
        server.start()
        try:
            with open_folder(server.location(folder.name), self.credentials()) as opened:
                yield opened
        finally:
            server.stop()

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


def reopened(root: str, smb_port: str, aws_endpoint: str, subnet_id: str) -> Laboratory:
    """The laboratory of another process, by its `Laboratory.facts`."""
    return Laboratory(Path(root), int(smb_port), aws_endpoint, subnet_id)


@contextmanager
def open_laboratory(root: Path, make_image: Callable[[Path], object]) -> Iterator[Laboratory]:
    folders = {name: root / "shares" / name for name in SHARES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    make_image(folders["source-store"] / "gold.vhdx")
    samba = SambaServer(root / "samba", folders, "imageport", "Pa55-of-the-lab")
    aws = AwsService(root / "aws")
    try:
        samba.start()
        aws.start()
        subnet_id = prepare_account(aws.endpoint)
        yield Laboratory(root, samba.port, aws.endpoint, subnet_id, aws=aws)
    finally:
        aws.stop()
        samba.stop()
