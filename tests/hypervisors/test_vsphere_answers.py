"""What a vCenter may answer, well or badly: decided without one."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from imageport.errors import (
    HypervisorError,
    HypervisorLoginRefused,
    HypervisorRefused,
    HypervisorUnreachable,
    InputError,
    VmMissing,
)
from imageport.hypervisors.vsphere.changed_areas import allocated_areas, changed_areas
from imageport.hypervisors.vsphere.datastore_disk import (
    FlatFile,
    frozen_backing,
    holes_read_as_zeros,
)
from imageport.hypervisors.vsphere.faults import error_of
from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
from imageport.hypervisors.vsphere.inventory import Inventory, disks_of
from imageport.hypervisors.vsphere.privileges import PRIVILEGES
from imageport.hypervisors.vsphere.session import VsphereSession
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.hypervisors.vsphere.snapshots import frozen_device, remove_snapshot, snapshots_of
from imageport.model import MIB
from imageport.storage.memory import MemoryFolder
from tests.hypervisors.tls_server import Authority, TlsServer
from tests.hypervisors.vsphere_answers import FROZEN, SCSI, SETTINGS, Session, device, disk

SECOND = device(vim.vm.device.VirtualLsiLogicController, 1001, bus=1)
SATA = device(vim.vm.device.VirtualAHCIController, 15000, bus=0)


def boot_order(*entries: Any) -> Any:
    return vim.vm.BootOptions(bootOrder=list(entries))


BOOT_ORDERS = {
    "by bus and unit without an order": (None, "2001"),
    "an empty order": (boot_order(), "2001"),
    "the first disk of the order": (
        boot_order(
            vim.vm.BootOptions.BootableEthernetDevice(deviceKey=4000),
            vim.vm.BootOptions.BootableDiskDevice(deviceKey=2003),
            vim.vm.BootOptions.BootableDiskDevice(deviceKey=2000),
        ),
        "2003",
    ),
    "an order that names a disk that is gone": (
        boot_order(vim.vm.BootOptions.BootableDiskDevice(deviceKey=9)),
        "2001",
    ),
}


@pytest.mark.parametrize(("options", "boot"), BOOT_ORDERS.values(), ids=BOOT_ORDERS.keys())
def test_the_boot_disk_is_chosen_and_all_are_listed(options: Any, boot: str):
    devices = [disk(2000, 1001, 0), disk(2003, 15000, 0), disk(2002, 1000, 3), disk(2001, 1000, 1)]
    found = disks_of([*devices, SECOND, SATA, SCSI], options)
    assert [one.key for one in found] == ["2001", "2002", "2003", "2000"]
    assert [one.key for one in found if one.is_boot] == [boot]
    assert found[0].size_bytes == 2 * MIB


def test_a_machine_without_disks_has_no_boot_disk():
    assert disks_of([SCSI], None) == ()
    assert snapshots_of(None) == ()


def test_a_disk_that_no_snapshot_freezes_is_refused():
    session: Any = Session(
        {"config.hardware.device": [SCSI, disk(2000, 1000, 0, "independent_persistent")]}
    )
    with pytest.raises(HypervisorRefused, match="no snapshot freezes it"):
        frozen_device(session, FROZEN.vm, FROZEN.snapshot, FROZEN.disk)


def removing(*answers: int) -> tuple[Any, list[str]]:
    """Return a session that shows so many snapshots at each look, and whose tasks vanish."""
    waiting = list(answers)
    asked: list[str] = []
    node = SimpleNamespace(
        snapshot=SimpleNamespace(_moId=FROZEN.snapshot.id), name=FROZEN.snapshot.name,
        createTime=datetime.now(UTC), childSnapshotList=[],
    )  # fmt: skip

    class Forgetful(Session):
        def read_one(self, _doing: str, _one: Any, paths: list[str]) -> dict[str, Any]:
            _ = paths
            return {"snapshot": SimpleNamespace(rootSnapshotList=[node] * waiting.pop(0))}

        def wait_for_task(self, doing: str, _task: Any, *, deadline_seconds: float) -> Any:
            _ = deadline_seconds
            asked.append(doing)
            raise VmMissing(f"Cannot {doing}: ManagedObjectNotFound.")

    return Forgetful(made=SimpleNamespace(Remove=lambda **_: None)), asked


def test_a_removal_whose_task_is_forgotten_is_believed_when_the_snapshot_is_gone():
    session, asked = removing(1, 0)
    remove_snapshot(session, None, FROZEN.vm, FROZEN.snapshot)
    assert len(asked) == 1
    session, asked = removing(1, 1)
    with pytest.raises(HypervisorUnreachable, match="its task is gone, and it is still there"):
        remove_snapshot(session, None, FROZEN.vm, FROZEN.snapshot)


def test_a_machine_in_a_vapp_has_the_path_of_its_folders():
    root, center, folder = vim.Folder("root"), vim.Datacenter("dc"), vim.Folder("vm")
    outer, inner = vim.VirtualApp("outer"), vim.VirtualApp("inner")
    machine, pool = vim.VirtualMachine("gold"), vim.ResourcePool("pool")
    tree: dict[Any, dict[str, Any]] = {
        machine: {"name": "gold", "parentVApp": inner},
        inner: {"name": "inner", "parent": outer, "parentVApp": outer},
        outer: {"name": "outer", "parent": pool, "parentFolder": folder},
        folder: {"name": "vm", "parent": center},
        center: {"name": "DC", "parent": root},
        pool: {"name": "Resources", "parent": None},
    }

    class Tree(Session):
        content = SimpleNamespace(rootFolder=root)

        def read_one(self, _doing: str, one: Any, paths: list[str]) -> dict[str, Any]:
            return {path: tree[one][path] for path in paths if path in tree[one]}

    session: Any = Tree()
    assert Inventory(session).path(machine) == "/DC/vm/outer/inner/gold"
    assert Inventory(session).datacenter(machine) == (center, "DC")


BASE = {"fileName": "[store] gold/gold.vmdk"}
DELTA = {"fileName": "[store] gold/gold-000001.vmdk"}
_PARENT = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(**BASE)
BACKINGS = {
    "an older snapshot": (disk(2000, 1000, 0, parent=_PARENT, **DELTA), disk(2000, 1000, 0)),
    "it is encrypted": (
        disk(2000, 1000, 0, keyId=vim.encryption.CryptoKeyId(keyId="k"), **BASE),
        disk(2000, 1000, 0, **DELTA),
    ),
    "itself writes the file": (disk(2000, 1000, 0, **BASE), disk(2000, 1000, 0, **BASE)),
    "the machine itself writes": (disk(2000, 1000, 0, **BASE), None),
    "is no file of a datastore": (
        disk(2000, 1000, 0, fileName="ds:///vmfs/x"),
        disk(2000, 1000, 0, **DELTA),
    ),
    "no flat file": (
        device(
            vim.vm.device.VirtualDisk,
            2000,
            backing=vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo(**BASE),
        ),
        disk(2000, 1000, 0, **DELTA),
    ),
}


@pytest.mark.parametrize("cause", BACKINGS)
def test_ranges_are_refused_where_no_one_file_is_frozen(cause: str):
    with pytest.raises(HypervisorRefused, match=cause):
        frozen_backing(*BACKINGS[cause], FROZEN)


def test_a_frozen_flat_file_is_named_so_that_no_character_means_something():
    assert frozen_backing(disk(2000, 1000, 0, **BASE), disk(2000, 1000, 0, **DELTA), FROZEN)
    session: Any = Session()
    place = FlatFile(session, "Fol der/DC&1", "[store #1] gold %2f?/gold.vmdk")
    assert place.location == "[store #1] gold %2f?/gold-flat.vmdk"
    assert place.target == (
        "/folder/gold%20%252f%3F/gold-flat.vmdk?dcPath=Fol%20der%2FDC%261&dsName=store%20%231"
    )


def slices(*answers: tuple[int, int, list[tuple[int, int]]]) -> tuple[Any, list[int]]:
    """Return a machine whose answers come one after the other, and where it was asked from."""
    asked: list[int] = []
    waiting = list(answers)

    def query(_snapshot: Any, _key: int, start: int, _since: str) -> Any:
        asked.append(start)
        offset, length, areas = waiting.pop(0)
        info = vim.VirtualMachine.DiskChangeInfo
        return info(
            startOffset=offset,
            length=length,
            changedArea=[info.DiskChangeExtent(start=at, length=count) for at, count in areas],
        )

    return SimpleNamespace(QueryChangedDiskAreas=query), asked


def test_areas_of_all_slices_are_joined():
    machine, asked = slices(
        (0, 4 * MIB, [(0, 65536), (65536, 65536), (3 * MIB, MIB)]),
        (4 * MIB, MIB, [(4 * MIB, MIB)]),
        (5 * MIB, 5 * MIB, []),
    )
    session: Any = Session()
    assert changed_areas(session, machine, FROZEN, "52 a1 b2/3") == [
        (0, 131072),
        (3 * MIB, 2 * MIB),
    ]
    assert asked == [0, 4 * MIB, 5 * MIB]


BAD_SLICES = {
    "no progress": [(0, 0, [])],
    "backwards": [(0, -5, [])],
    "another beginning": [(4096, MIB, [])],
    "beyond the disk": [(0, 11 * MIB, [])],
    "an area of nothing": [(0, 10 * MIB, [(0, 0)])],
    "an area that overlaps": [(0, 10 * MIB, [(0, 8192), (4096, 4096)])],
    "areas that descend": [(0, 10 * MIB, [(8192, 4096), (0, 4096)])],
    "an area outside of its slice": [(0, MIB, [(MIB - 512, 1024)])],
    "an area of the slice before": [(0, MIB, []), (MIB, MIB, [(0, 512)])],
    "an area that begins within a sector": [(0, 10 * MIB, [(256, 512)])],
    "an area that ends within a sector": [(0, 10 * MIB, [(512, 700)])],
}


@pytest.mark.parametrize("answers", BAD_SLICES.values(), ids=BAD_SLICES.keys())
def test_answers_that_make_no_sense_are_no_answer(answers: list[Any]):
    machine, asked = slices(*answers)
    session: Any = Session()
    assert changed_areas(session, machine, FROZEN, "52 a1 b2/3") is None
    assert len(asked) == len(answers)


@pytest.mark.parametrize("since", ["", "*", "nonsense", "52 a1/x", "52 a1/1; drop"])
def test_a_change_id_that_is_none_is_not_asked_about(since: str):
    machine, asked = slices()
    session: Any = Session()
    assert changed_areas(session, machine, FROZEN, since) is None
    assert asked == []


@pytest.mark.parametrize("since", ["52 a1 b2/8", "52 a1 b3/3"], ids=["younger", "of another disk"])
def test_a_change_id_that_is_not_earlier_is_not_asked_about(since: str):
    machine, asked = slices((0, 10 * MIB, []))
    session: Any = Session()
    assert changed_areas(session, machine, FROZEN, since) is None
    assert asked == []


@pytest.mark.parametrize(
    "fault",
    [
        vmodl.fault.InvalidArgument(invalidProperty="changeId"),
        vim.fault.FileFault(file="x"),
        vmodl.fault.NotSupported(),
        vmodl.fault.SystemError(reason="cannot open the change tracking file"),
        vim.fault.NoPermission(privilegeId="VirtualMachine.Provisioning.DiskRandomRead"),
    ],
)
def test_a_refusal_to_tell_means_that_all_may_have_changed(fault: Exception):
    def refuse(*_arguments: Any) -> None:
        raise fault

    session: Any = Session()
    machine = SimpleNamespace(QueryChangedDiskAreas=refuse)
    assert changed_areas(session, machine, FROZEN, "52 a1 b2/3") is None
    assert allocated_areas(session, machine, FROZEN) is None


def test_a_host_that_cannot_be_reached_is_asked_again_by_another_try():
    def fail(*_arguments: Any) -> None:
        raise vmodl.fault.HostNotConnected

    session: Any = Session()
    with pytest.raises(HypervisorUnreachable):
        changed_areas(session, SimpleNamespace(QueryChangedDiskAreas=fail), FROZEN, "52 a1 b2/3")


def test_what_is_said_to_be_unallocated_is_looked_at():
    folder = MemoryFolder()
    with folder.create("flat") as file:
        file.write_at(0, bytes(MIB) + b"\x01" * (3 * MIB))
    with folder.open_read("flat") as file:
        assert holes_read_as_zeros(file, [(MIB, 3 * MIB)], 4 * MIB)
        assert holes_read_as_zeros(file, [(0, 4 * MIB)], 4 * MIB)
        assert not holes_read_as_zeros(file, [(0, 4096)], 4 * MIB)  # all 16 miss 3 of 4: never


FAULTS: list[tuple[Any, type[HypervisorError], str]] = [
    (vim.fault.InvalidLogin(msg="Cannot complete login."), HypervisorLoginRefused, "login"),
    (vim.fault.NoPermission(privilegeId="VApp.Export"), HypervisorRefused, "'VApp.Export'"),
    (vmodl.fault.ManagedObjectNotFound(), VmMissing, "ManagedObjectNotFound"),
    (vim.fault.TaskInProgress(), HypervisorUnreachable, "TaskInProgress"),
    (vmodl.fault.SystemError(reason="x"), HypervisorUnreachable, "SystemError"),
    (vim.fault.SnapshotFault(msg="m" * 1000), HypervisorRefused, "SnapshotFault"),
    (None, HypervisorRefused, "the server does not say why"),
]


@pytest.mark.parametrize(("fault", "kind", "said"), FAULTS, ids=[item[2] for item in FAULTS])
def test_a_fault_becomes_the_error_a_caller_can_react_to(
    fault: Any, kind: type[HypervisorError], said: str
):
    error = error_of(fault, "do it")
    assert type(error) is kind
    assert said in error.message
    assert len(error.message) < 400


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def versions(*spoken: str) -> bytes:
    inner = "".join(f"<version>{version}</version>" for version in spoken)
    return f"<namespaces><namespace><name>urn:vim25</name>{inner}</namespace></namespaces>".encode()


def answering(authority: Authority, *bodies: tuple[int, bytes]) -> Iterator[VsphereHypervisor]:
    waiting = list(bodies)

    def answer(_head: bytes, connection: ssl.SSLSocket) -> None:
        status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    with TlsServer(authority.certificate(), answer) as server:
        settings = VsphereSettings(
            "127.0.0.1", server.port, "u", "very-secret", ca_file=str(authority.file)
        )
        with VsphereHypervisor(settings) as link:
            yield link


@pytest.mark.parametrize(
    ("bodies", "kind", "said"),
    [
        ([(404, b"no")], HypervisorUnreachable, "is no vCenter and no ESXi host"),
        ([(200, b"<html>a web shop</html>")], HypervisorUnreachable, "is no vCenter"),
        ([(200, versions("4.1", "4.0"))], HypervisorRefused, "up to 4.1 .* needed 5.5"),
        ([(200, versions("1.0"))], HypervisorRefused, "needed 5.5 or newer"),
        ([(200, versions("8.0.2.0")), (200, b"<html>")], HypervisorUnreachable, "no sense"),
        ([(200, versions("8.0.2.0")), (503, b"busy")], HypervisorUnreachable, "503"),
        ([(200, versions("8.0.2.0")), (200, b"\xff\xfe" * 100)], HypervisorUnreachable, "no sense"),
    ],
)
def test_what_is_no_vcenter_is_told_apart(
    authority: Authority, bodies: list[tuple[int, bytes]], kind: type[HypervisorError], said: str
):
    for link in answering(authority, *bodies):
        with pytest.raises(kind, match=said) as caught:
            link.product()
        assert "very-secret" not in str(caught.value)


class TwoThreads(VsphereSession):
    """Stays logged in, and counts its own logins."""

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.own = 0

    def _ensure(self) -> None:
        """Be connected."""

    def _login(self) -> None:
        self.own += 1
        self._logins += 1


def test_a_login_that_another_thread_spoilt_is_made_again():
    session = TwoThreads()
    answers = [True, True, False]

    def ask() -> str:
        if len(answers) == 3:
            session._logins += 1  # the other thread's, whose cookie then was overwritten
        if answers.pop(0):
            raise vim.fault.NotAuthenticated
        return "an answer"

    assert session.call("ask", ask) == "an answer"
    assert session.own == 1


def test_a_session_that_never_holds_is_refused():
    session = TwoThreads()

    def ask() -> None:
        raise vim.fault.NotAuthenticated

    with pytest.raises(HypervisorLoginRefused, match="Cannot ask"):
        session.call("ask", ask)
    assert session.own == 2


def test_the_page_of_vsphere_names_the_privileges_that_are_asked_for():
    page = (Path(__file__).parents[2] / "docs" / "vsphere.md").read_text()
    table = page.split("| privilege | on | for |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+(?:\.\w+)+)`", table)) == {one.id for one in PRIVILEGES}
    for row in table.splitlines()[2:]:
        named = [one for one in PRIVILEGES if f"`{one.id}`" in row]
        assert {one.optional for one in named} == {"(optional)" in row}
        assert {one.on_files for one in named} == {"datastores" in row}


def test_everything_wrong_with_settings_is_said_at_once():
    with pytest.raises(InputError) as caught:
        VsphereSettings("a b/c", 0, "", "secret", "xyz", proxy="ftp://p")
    assert len(caught.value.fields["problems"]) == 4
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(VsphereSettings("vc", username="u", password="secret"))
