"""The service: its certificate, its end, its privileges, and what it needs to be built."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import pytest
from pyVmomi import vim

from imageport.errors import EngineFailed, MissingTool
from imageport.sandbox.processes import SERVICE_MARK, marked_processes
from imageport.sandbox.vcenter import program
from imageport.sandbox.vcenter.certificate import ServerCertificate
from tests.sandbox.vcenter.vcenter_lab import GOLD, VcenterLab

EXPORT = "VApp.Export"


def shown(lab: VcenterLab) -> str:
    text = ssl.get_server_certificate((lab.service.host, lab.service.port))
    return text.replace("\n", "")


def test_the_certificate_is_good_for_its_authority_only(lab: VcenterLab, tmp_path: Path):
    assert lab.get("/about")[0] == 200
    stranger = ServerCertificate(tmp_path)
    stranger.make_missing()
    known, lab.trust = lab.trust, ssl.create_default_context(cafile=str(stranger.ca_file))
    with pytest.raises(ssl.SSLCertVerificationError):
        lab.get("/about")
    lab.trust = known


def test_another_certificate_is_shown_at_once(own_lab: VcenterLab):
    first, thumbprint = shown(own_lab), own_lab.service.thumbprint
    own_lab.service.change_certificate()
    assert shown(own_lab) != first
    assert own_lab.service.thumbprint != thumbprint
    assert own_lab.get("/about")[0] == 200


def test_nothing_is_left_after_a_stop_even_of_a_killed_one(own_lab: VcenterLab):
    root, port = own_lab.service.datastore.parent, own_lab.service.port
    assert len(marked_processes(root, SERVICE_MARK)) == 1
    child = own_lab.service._child
    assert child is not None
    child.kill(signal.SIGKILL)
    own_lab.service.stop()
    own_lab.service.stop()
    assert marked_processes(root, SERVICE_MARK) == []
    assert not (root / "tmp").exists()
    own_lab.service.start()
    assert own_lab.service.port == port


def test_a_killed_one_ends_with_the_next_start(own_lab: VcenterLab):
    child = own_lab.service._child
    assert child is not None
    child.kill(signal.SIGKILL)
    own_lab.service.start()
    own_lab.log_in_again()
    assert own_lab.vm().snapshot.rootSnapshotList[0].name == "golden"
    assert own_lab.vm().config.firmware == GOLD.firmware


def test_a_wrong_password_is_refused(lab: VcenterLab):
    known, lab.service.password = lab.service.password, "wrong"
    with pytest.raises(vim.fault.InvalidLogin):
        lab.log_in()
    lab.service.password = known


def test_a_machine_is_found_by_its_uuid_and_no_other(lab: VcenterLab):
    index = lab.content.searchIndex
    # What is looked through first is another each time.
    for _ in range(10):
        found = index.FindByUuid(
            None, lab.vm().config.instanceUuid, vmSearch=True, instanceUuid=True
        )
        assert found == lab.vm()
        assert index.FindByUuid(None, "no such id", vmSearch=True, instanceUuid=True) is None


def test_dropped_connections_answer_nothing(own_lab: VcenterLab):
    own_lab.service.turn(drop=True)
    with pytest.raises(OSError, match="Remote end closed connection"):
        own_lab.get("/about")
    own_lab.service.turn(drop=False)
    assert own_lab.get("/about")[0] == 200


def test_a_privilege_that_is_missing_is_named_and_kept_back(lab: VcenterLab):
    lab.service.turn(denied=[EXPORT])
    manager, session = lab.content.authorizationManager, lab.content.sessionManager.currentSession
    wanted = [EXPORT, "VirtualMachine.State.CreateSnapshot"]
    (found,) = manager.HasPrivilegeOnEntities([lab.vm()], session.key, wanted)
    assert [item.isGranted for item in found.privAvailability] == [False, True]
    listed = manager.FetchUserPrivilegeOnEntities([lab.vm()], lab.service.username)[0].privileges
    assert EXPORT not in listed
    assert "System.View" in listed
    with pytest.raises(vim.fault.NoPermission) as caught:
        lab.golden().ExportSnapshot()
    assert caught.value.privilegeId == EXPORT


def test_a_build_leaves_nothing_but_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("IMAGEPORT_CACHE", str(tmp_path))
    go = tmp_path / "go"
    # Plays a Go that leaves what it works with; then one that fails at it.
    go.write_text(
        '#!/bin/sh\n[ "$1" = env ] && { echo go1.26.0; exit; }\n'
        'echo half >"$GOTMPDIR/left"; for last; do before=$target target=$last; done\n'
        '[ -e "$FAIL" ] && exit 1; echo program >"$before"\n'
    )
    go.chmod(0o755)
    monkeypatch.setattr(program, "find_go", lambda: go)
    monkeypatch.setenv("FAIL", str(go))
    with pytest.raises(EngineFailed, match="go build ended with 1"):
        program.vcsim_program()
    assert {path.name for path in (tmp_path / "vcsim").iterdir()} == {"lock"}
    monkeypatch.setenv("FAIL", "")
    built = program.vcsim_program()
    assert built.read_text() == "program\n"
    assert {path.name for path in (tmp_path / "vcsim").iterdir()} == {"lock", built.name}


def test_without_go_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("IMAGEPORT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(program, "_GO_PLACES", ())
    assert not program.is_available()
    with pytest.raises(MissingTool, match=r"found no Go, needed Go 1\.25 or newer"):
        program.vcsim_program()
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)
    with pytest.raises(MissingTool, match=rf"found {old} is 1\.19, needed"):
        program.vcsim_program()
