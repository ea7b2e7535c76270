"""What Plug and Play does before anybody acts: devices get the drivers that Windows has already."""

from __future__ import annotations

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.boot_rules import image_path
from imageport.sandbox.guest_player.driver_database import offers
from imageport.sandbox.guest_player.registry import Hive, number, string
from imageport.sandbox.guest_player.volume import WindowsVolume

_NETWORK_CLASS = "{4d36e972-e325-11ce-bfc1-08002be10318}"
_INSTANCE = "{5c0f2a91-7d34-4be8-9a16-03d7e8b1c642}"
_ON_DEMAND, _DISABLED = 3, 4


class PlugAndPlay:
    """The network devices of one machine and the drivers in its database."""

    def __init__(
        self, volume: WindowsVolume, system: Hive, drivers: Hive, control_set: str
    ) -> None:
        self._volume = volume
        self._system = system
        self._databases = (drivers, system)
        self._set = control_set

    def bind(self, device: str) -> str:
        """Start a device with the driver that the database has; what was bound, "" if nothing."""
        for service, inf in offers(self._databases, device):
            key = self._system.key(f"{self._set}\\Services\\{service}")
            if key is None or registry.dword(key, "start", _DISABLED) >= _DISABLED:
                continue
            if not self._volume.exists(image_path(key, service)):
                continue
            self._system.set(
                f"{self._set}\\Enum\\{device}\\{_INSTANCE}",
                {
                    "Service": string(service),
                    "ClassGUID": string(_NETWORK_CLASS),
                    "ConfigFlags": number(0),
                },
            )
            return f"{service} ({inf})"
        return ""

    def note_idle(self, drivers: list[str]) -> None:
        """Do what Windows does to boot drivers without a device: the next start passes them over.

        Seen in real hives, and on Azure's machines with SCSI disks under ``vpci``.
        """
        for name in drivers:
            service = f"{self._set}\\Services\\{name}"
            if self._system.key(service) is not None:
                self._system.set(f"{service}\\StartOverride", {"0": number(_ON_DEMAND)})

    def is_bound(self, device: str) -> bool:
        """Tell whether the device has a driver by now."""
        below = self._system.subtree(f"{self._set}\\Enum\\{device}")
        return any(registry.text(key, "service") for key in below.values())
