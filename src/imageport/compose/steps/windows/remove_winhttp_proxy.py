"""The proxy that services use, which was the old site's."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.step import Context, Step

_PATH = "Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections"
_ROOTS = ("", "WOW6432Node\\")


class RemoveWinhttpProxy(Step):
    """Let services reach the network without the old site's proxy."""

    name: ClassVar[str] = "no_winhttp_proxy"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("azure",)

    def run(self, context: Context) -> None:
        """Delete WinHttpSettings, which is what ``netsh winhttp reset proxy`` comes to."""
        for root in _ROOTS:
            context.recorder.delete_value("SOFTWARE", f"{root}{_PATH}", "WinHttpSettings")
