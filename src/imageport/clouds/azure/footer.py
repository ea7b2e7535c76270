# References: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format"; Azure,
# "Upload a VHD" (fixed VHD of whole MiB).
"""The last 512 bytes of an uploaded disk, without which Azure takes it for no disk at all."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from imageport.formats import _vhd_layout as layout

FOOTER_BYTES: Final = layout.FOOTER_BYTES


def vhd_footer(size_bytes: int, identity: str) -> bytes:
    """Return the footer of a fixed VHD.

    Its time is the format's zero: another would change the footer of an upload that goes on later.

    Args:
        size_bytes: Of the disk without the footer.
        identity: Makes the unique id: the same upload always writes the same footer, so one that
            is taken up again changes nothing.
    """
    unique_id = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)
    geometry = layout.chs_geometry(size_bytes)
    return layout.Footer(layout.DiskType.FIXED, size_bytes, geometry, unique_id).pack()
