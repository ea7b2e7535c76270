"""Which image the demo moves: the built-in sample, a file of the user's, or one on a share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from imageport.errors import FileMissing, InputError, ShareFull
from imageport.model import MIB
from imageport.progress import EventSink, Stage
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant, recipe_id
from imageport.sandbox.site_facts import SourceStore
from imageport.sandbox.vcenter.master import MASTER, put_own_master, put_sample_master
from imageport.storage.locate import is_share, split_file
from imageport.storage.smb_location import SmbLocation

SAMPLE_NAME = "win11-gold"


@dataclass(frozen=True, slots=True)
class DemoImage:
    """An image by its name in the source store; ``store`` is set when that is the user's own."""

    name: str
    file: Path | None = None
    store: SourceStore | None = None

    def put_into(self, store: Path, events: EventSink) -> None:
        """Make sure that the source store's folder holds the image; an unchanged one stays."""
        if self.store is not None:
            return
        stage = Stage("image", events, unit="steps")
        target = store / f"{self.name}.vhdx"
        if self.file is None:
            stage.finish(_put_sample(target))
        else:
            stage.finish(_put_copy(self.file, target))

    def put_into_vcenter(self, root: Path, events: EventSink) -> None:
        """Make sure that it is the disk of the master machine of the site at ``root``."""
        if self.file is None:
            put_sample_master(root, events)
        else:
            put_own_master(root, self.file, events)


def chosen_image(argument: str) -> DemoImage:
    """Return what ``--image`` names; "" is the sample.

    Raises:
        InputError: not a VHDX file, or a share without a user in the environment.
        FileMissing: no such file.
    """
    if not argument:
        return DemoImage(SAMPLE_NAME)
    if is_share(argument):
        return _on_share(argument)
    path = Path(argument).expanduser().resolve()
    if not path.is_file():
        raise FileMissing(f"Cannot read '{argument}': there is no such file.")
    return DemoImage(_vdisk_name(path.name), file=path)


def chosen_master(argument: str) -> DemoImage:
    """Return what ``--image`` names as the disk of a master machine; "" is the sample.

    Raises:
        InputError: not a VHDX file on this machine.
        FileMissing: no such file.
    """
    if is_share(argument):
        raise InputError(
            f"Bad image: found '{argument}', needed a file on this machine.",
            hint="Its contents become the disk of a machine of the embedded vCenter.",
        )
    return chosen_image(argument) if argument else DemoImage(MASTER.name)


def _on_share(argument: str) -> DemoImage:
    folder, name = split_file(argument)
    user = os.environ.get("IMAGEPORT_SMB_USER", "")
    if not user:
        raise InputError(
            f"Cannot read '{argument}': no user and password are given.",
            hint="Set IMAGEPORT_SMB_USER and IMAGEPORT_SMB_PASSWORD (and IMAGEPORT_SMB_DOMAIN).",
        )
    store = SourceStore(
        location=SmbLocation.parse(folder),
        username=user,
        domain=os.environ.get("IMAGEPORT_SMB_DOMAIN", ""),
        password_variable="IMAGEPORT_SMB_PASSWORD",  # noqa: S106 - the name of a variable
    )
    return DemoImage(_vdisk_name(name), store=store)


def _vdisk_name(file_name: str) -> str:
    path = Path(file_name)
    if path.suffix.lower() != ".vhdx":
        raise InputError(
            f"Bad image: found '{file_name}', needed a .vhdx file, as PVS stores vDisks.",
            hint="`imageport convert` makes one of any disk that it can read.",
        )
    return path.stem


def _put_sample(target: Path) -> str:
    """Build the sample unless the store holds it as it was built."""
    note = target.parent.parent / f"{target.stem}.json"
    recipe = recipe_id(Variant.DEFAULT)
    if target.exists() and note.exists():
        facts = target.stat()
        if json.loads(note.read_text()) == [recipe, facts.st_size, facts.st_mtime_ns]:
            return f"{target.name} is the sample, unchanged"
    part = target.with_name(f"{target.name}.part")
    build_sample(part, Variant.DEFAULT)
    part.replace(target)
    facts = target.stat()
    note.write_text(json.dumps([recipe, facts.st_size, facts.st_mtime_ns]))
    return f"{target.name} built: the sample, a Windows 11 look-alike with a PVS target device"


def _put_copy(source: Path, target: Path) -> str:
    """Copy the user's file: a link would let the file server touch the only copy.

    On a file system that can, the copy shares its blocks; holes stay holes; times are kept, so a
    second run sees the same content.
    """
    facts = source.stat()
    if target.exists():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns):
            return f"{target.name} is there already, unchanged"
    free = shutil.disk_usage(target.parent).free
    needed = facts.st_blocks * 512
    if needed > free:
        raise ShareFull(
            f"Cannot copy '{source}' to '{target.parent}': needs {needed // MIB} MiB, "
            f"{free // MIB} MiB are free.",
            hint="Name a folder on a larger disk with --root.",
        )
    part = target.with_name(f"{target.name}.part")
    copy = ["cp", "--reflink=auto", "--sparse=always", "--preserve=timestamps"]
    done = subprocess.run(
        [*copy, str(source), str(part)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        part.unlink(missing_ok=True)
        raise InputError(f"Cannot copy '{source}': {done.stderr.strip()}")
    part.replace(target)
    return f"{target.name} copied into the source store ({needed // MIB} MiB); yours is not touched"
