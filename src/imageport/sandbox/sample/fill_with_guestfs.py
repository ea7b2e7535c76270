"""Fill an NTFS volume inside libguestfs' machine; run by /usr/bin/python3, which has the binding.

``fill_with_guestfs.py VOLUME CONTENTS.tar DESCRIPTORS.json``: unpacks the tar at the volume's root,
then gives every path named in the JSON object (hexadecimal by path) its security descriptor.
"""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from typing import Any


def main(volume: str, contents: str, descriptors: str) -> None:
    """Do it; libguestfs raises RuntimeError with the cause."""
    guestfs: Any = importlib.import_module("guestfs")  # not in a virtual environment
    with open(descriptors, encoding="utf-8") as file:  # noqa: PTH123 - as short as it gets
        wanted: dict[str, str] = json.load(file)
    guest = guestfs.GuestFS(python_return_dict=True)
    guest.add_drive_opts(volume, format="raw", readonly=False, cachemode="unsafe")
    guest.launch()
    guest.mount_options("permissions", "/dev/sda", "/")
    guest.tar_in(contents, "/")
    # Not lsetxattr: the binding takes text and sends it as UTF-8, which no descriptor survives.
    for path, text in wanted.items():
        target = shlex.quote(f"/sysroot/{path}")
        guest.debug("sh", [f"setfattr -n system.ntfs_acl -v 0x{text} {target}"])
    guest.umount_all()
    guest.shutdown()
    guest.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
