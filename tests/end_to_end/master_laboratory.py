"""The laboratory of master images: a real vcsim in front of the source site's export folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.compose.contract import Installer, Software
from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.sandbox.sample.installer_package import sha256_of, write_installer
from imageport.sandbox.vcenter.machines import MasterDisk, MasterMachine
from imageport.sandbox.vcenter.service import VcenterService
from imageport.state.records import Generation
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.export import export
from imageport.workflow.master import ExportPlace, WantedMaster, export_target
from tests.end_to_end.lab_clouds import SITE
from tests.end_to_end.laboratory import Laboratory, open_laboratory
from tests.end_to_end.story import run
from tests.sandbox.vcenter.vcenter_lab import require_vcsim

DISK = MasterDisk("win11-master", boot=True)
MASTER = MasterMachine("win11-master", (DISK,))
PVS_VERSION = "2407.0.0.10"


@dataclass
class MasterLaboratory(Laboratory):
    """A laboratory whose image is a machine of a vCenter until it is exported."""

    vcenter: VcenterService = field(kw_only=True)
    exported: Generation = field(init=False)

    @property
    def flat_file(self) -> Path:
        """The disk as the hypervisor has it."""
        return MASTER.flat_file(self.vcenter.datastore, DISK)

    @property
    def source_file(self) -> Path:
        return self.share("exports") / "gold.vhdx"

    def source_store(self) -> VdiskStore:
        return self.store("exports")

    def hypervisor(self) -> VsphereHypervisor:
        service = self.vcenter
        return VsphereHypervisor(
            VsphereSettings(
                service.host, service.port, service.username, service.password, service.thumbprint
            )
        )

    def export(self, run_name: str, **wanted: Any) -> Generation:
        """Take the master out of the vCenter as a run would."""
        work = self.place(run_name)
        with self.hypervisor() as hypervisor:
            place = ExportPlace(
                SITE, export_target(SITE), run_name, work.state, hypervisor, self.source_store(),
                events=self.events.append,
            )  # fmt: skip
            return export(place, WantedMaster(MASTER.path, image="gold", **wanted))

    def fill_payload(self, folder: Path) -> None:
        super().fill_payload(folder)
        write_installer(folder / "citrix", "pvs_target", PVS_VERSION, exit_code=3010)

    def choices(self) -> PrepareChoices:
        """The master has no PVS target device software: first boot installs it."""
        self.payload()
        choices = super().choices()
        (program,) = (self.root / "payload" / "citrix").iterdir()
        installer = Installer(
            software=Software.PVS_TARGET,
            name="PVS-target",
            version=PVS_VERSION,
            sha256=sha256_of(program),
            path=f"citrix/{program.name}",
            arguments=("/s", "/v/qn"),
        )
        return replace(choices, engine=replace(choices.engine, installers=(installer,)))


@contextmanager
def open_master_laboratory(
    root: Path, make_image: Callable[[Path], object], cloud: str = "aws"
) -> Iterator[MasterLaboratory]:
    require_vcsim()
    vcenter = VcenterService(root / "vcenter", [MASTER])
    flat = MASTER.flat_file(vcenter.datastore, DISK)
    flat.parent.mkdir(parents=True)

    def put_on_datastore(_vdisk: Path) -> None:
        vhdx = root / "master.vhdx"
        make_image(vhdx)
        run("qemu-img", "convert", "-O", "raw", vhdx, flat)
        vhdx.unlink()

    vcenter_started = False
    try:
        with open_laboratory(root, put_on_datastore, cloud) as lab:
            vcenter.start()
            vcenter_started = True
            yield MasterLaboratory(
                lab.root, lab.smb_port, lab.cloud, service=lab.service, vcenter=vcenter
            )
    finally:
        if vcenter_started:
            vcenter.stop()
