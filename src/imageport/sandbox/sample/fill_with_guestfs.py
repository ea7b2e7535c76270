"""Fill an NTFS volume inside libguestfs' machine; run by /usr/bin/python3, which has the binding.

``fill_with_guestfs.py VOLUME CONTENTS.tar DESCRIPTOR``: unpacks the tar at the volume's root, then
gives every file and folder the descriptor.
"""

from __future__ import annotations

import importlib
import sys
import tarfile
from typing import Any


def main(volume: str, contents: str, descriptor_file: str) -> None:
    """Do it; libguestfs raises RuntimeError with the cause."""
    guestfs: Any = importlib.import_module("guestfs")  # not in a virtual environment
    with open(descriptor_file, "rb") as file:  # noqa: PTH123 - as short as it gets
        descriptor = file.read()
    guest = guestfs.GuestFS(python_return_dict=True)
    guest.add_drive_opts(volume, format="raw", readonly=False, cachemode="unsafe")
    guest.launch()
    guest.mount_options("permissions", "/dev/sda", "/")
    guest.tar_in(contents, "/")
    with tarfile.open(contents) as archive:
        for name in ["", *archive.getnames()]:
            guest.lsetxattr(
                "system.ntfs_acl", descriptor.decode("latin-1"), len(descriptor), "/" + name
            )
    guest.umount_all()
    guest.shutdown()
    guest.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
