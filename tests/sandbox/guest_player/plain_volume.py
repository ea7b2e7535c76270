"""A volume of the player's in a folder of the test machine."""

from __future__ import annotations

from pathlib import Path

from imageport.sandbox.guest_player.volume import WindowsVolume


class PlainVolume(WindowsVolume):
    """A volume on a file system that knows no descriptors."""

    @staticmethod
    def _inherit(folder: Path, child: Path) -> None:
        """Hand nothing down."""
