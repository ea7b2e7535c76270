"""The one machine of an embedded site's vCenter: the master of an MCS catalog."""

from __future__ import annotations

import json
from pathlib import Path

from imageport.progress import EventSink, Stage
from imageport.sandbox.sample.build import cached_sample
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import Variant, recipe_id
from imageport.sandbox.vcenter.machines import MasterDisk, MasterMachine
from imageport.sandbox.vcenter.service import DATASTORE_FOLDER, VcenterService

MASTER = MasterMachine("win11-master", (MasterDisk("win11-master", boot=True),))
_FOLDER = "vcenter"


def master_vcenter(root: Path) -> VcenterService:
    """Return the vCenter of the site at ``root``, not started."""
    return VcenterService(root / _FOLDER, [MASTER])


def master_file(root: Path) -> Path:
    """Return the file that is the master's disk."""
    return MASTER.flat_file(root / _FOLDER / DATASTORE_FOLDER, MASTER.disks[0])


def put_sample_master(root: Path, events: EventSink) -> None:
    """Make the sample the master's disk, unless it is and no guest has written to it."""
    stage = Stage("image", events, unit="steps")
    identity = f"sample {recipe_id(Variant.MCS_MASTER)}"
    if _is_there(root, identity):
        stage.finish(f"the disk of {MASTER.name} is the sample, unchanged")
        return
    _put(root, cached_sample(Variant.MCS_MASTER), identity)
    stage.finish(
        f"disk of {MASTER.name} made: the sample, a Windows 11 look-alike of an MCS catalog"
    )


def put_own_master(root: Path, vhdx: Path, events: EventSink) -> None:
    """Make the contents of a user's VHDX the master's disk; the file is only read."""
    stage = Stage("image", events, unit="steps")
    facts = vhdx.stat()
    identity = f"{vhdx} {facts.st_size} {facts.st_mtime_ns}"
    if _is_there(root, identity):
        stage.finish(f"the disk of {MASTER.name} is {vhdx.name}, unchanged")
        return
    _put(root, vhdx, identity)
    stage.finish(f"disk of {MASTER.name} made of {vhdx.name}; yours is not touched")


def _is_there(root: Path, identity: str) -> bool:
    file, note = master_file(root), _note(root)
    return file.exists() and note.exists() and json.loads(note.read_text()) == [
        identity, file.stat().st_size, file.stat().st_mtime_ns
    ]  # fmt: skip


def _put(root: Path, vhdx: Path, identity: str) -> None:
    file = master_file(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    run(["qemu-img", "convert", "-f", "vhdx", "-O", "raw", vhdx, part], timeout_seconds=4 * 3600)
    part.replace(file)
    facts = file.stat()
    _note(root).write_text(json.dumps([identity, facts.st_size, facts.st_mtime_ns]))


def _note(root: Path) -> Path:
    return root / _FOLDER / "master.json"
