"""Where a vCenter is, as whom it is asked, and by what its certificate is trusted."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.hypervisors.server_settings import ServerSettings


@dataclass(frozen=True, slots=True)
class VsphereSettings(ServerSettings):
    """One vCenter Server, or one ESXi host by itself; users are named ``name@vsphere.local``."""
