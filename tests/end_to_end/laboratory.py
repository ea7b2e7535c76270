"""Two sites and a cloud on this machine, without Prefect: what a plain script would use."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.compose.contract import EngineOptions
from imageport.progress import Event
from imageport.sandbox.samba import SambaServer
from imageport.sandbox.sample.driver_package import write_cloud_packages, write_ena_package
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.storage.locate import open_folder
from imageport.storage.smb_location import SmbCredentials
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.place import Workplace
from tests.end_to_end.lab_clouds import LAB_CLOUDS, SITE, LabCloud, running

SHARES = ("source-store", "target-store", "exports", "state")


@dataclass
class Laboratory:
    """Everything a run needs, opened as the blocks would open it."""

    root: Path
    smb_port: int
    cloud: LabCloud
    events: list[Event] = field(default_factory=list)
    service: Any = None
    """The emulator with its knobs, in the process that started it."""
    story: dict[str, Any] = field(default_factory=dict)
    """What one chapter leaves for the next."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage → how long it took."""

    @property
    def source_file(self) -> Path:
        """The vDisk that is uploaded."""
        return self.share("source-store") / "gold.vhdx"

    def source_store(self) -> VdiskStore:
        return self.store("source-store")

    def turn(self, **knobs: object) -> None:
        """Turn the emulator's knobs: failures, permissions."""
        self.service.turn(**knobs)

    def throttle(self, blocks_per_second: float) -> None:
        """Limit how fast the cloud takes blocks; 0 is no limit."""
        knob, unit = self.cloud.throttle
        self.service.turn(**{knob: unit * blocks_per_second})

    def location(self, share: str) -> str:
        return f"smb://127.0.0.1:{self.smb_port}/{share}"

    def share(self, name: str) -> Path:
        return self.root / "shares" / name

    def store(self, name: str) -> VdiskStore:
        return VdiskStore(open_folder(self.location(name), self.credentials()))

    def credentials(self) -> SmbCredentials:
        return SmbCredentials("imageport", "Pa55-of-the-lab")

    def place(self, run: str, **changes: Any) -> Workplace:
        state = StateStore(open_folder(self.location("state"), self.credentials()))
        cloud = self.cloud.open(state.ledger, run, **changes)
        target = f"{self.cloud.name}/{self.cloud.region}/site-b"
        return Workplace(SITE, target, run, state, cloud, events=self.events.append)

    def facts(self) -> list[str]:
        """What another process needs to open the same laboratory."""
        return [str(self.root), str(self.smb_port), self.cloud.name, self.cloud.endpoint]

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
            self.fill_payload(folder)
            with zipfile.ZipFile(packed, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.write(path, path.relative_to(folder))
        return packed

    def fill_payload(self, folder: Path) -> None:
        """Write what the operator of this laboratory has."""
        write_ena_package(folder / "aws")
        write_cloud_packages("gcp", folder / "gcp")

    def choices(self) -> PrepareChoices:
        engine = EngineOptions(
            cloud=self.cloud.name,
            drivers=self.cloud.drivers,
            list_of_ddcs=("ddc1.cloud.example",),
        )
        return replace(PrepareChoices(engine=engine), boot_deadline_seconds=600.0)


def reopened(root: str, smb_port: str, cloud: str, endpoint: str) -> Laboratory:
    """The laboratory of another process, by its `Laboratory.facts`."""
    return Laboratory(Path(root), int(smb_port), LAB_CLOUDS[cloud](endpoint, Path(root, cloud)))


@contextmanager
def open_laboratory(
    root: Path, make_image: Callable[[Path], object], cloud: str = "aws"
) -> Iterator[Laboratory]:
    folders = {name: root / "shares" / name for name in SHARES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    make_image(folders["source-store"] / "gold.vhdx")
    samba = SambaServer(root / "samba", folders, "imageport", "Pa55-of-the-lab")
    try:
        samba.start()
        with running(cloud, root) as (account, service):
            yield Laboratory(root, samba.port, account, service=service)
    finally:
        samba.stop()
