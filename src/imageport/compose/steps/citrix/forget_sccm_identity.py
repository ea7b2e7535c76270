"""Configuration Manager: the identity that a copied client would share with its master image."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.step import Context, Facts, Step

_FILES = (
    "Windows/SMSCFG.INI",
    "ProgramData/Citrix/PvsAgent/LocallyPersistedData/CCMData/CCMCFG.BAK",
)
"""The client's own, and the copy that Citrix' agent keeps of it."""


class ForgetSccmIdentity(Step):
    """Let every copy of the image get a Configuration Manager identity of its own.

    Recommended, not required: an image whose clients keep theirs on a persistent disk wants it.
    """

    name: ClassVar[str] = "forget_sccm_identity"
    tier: ClassVar[Tier] = Tier.RECOMMENDED

    def reason(self, facts: Facts) -> str:
        """Say which file holds one."""
        found = [path.rpartition("/")[2] for path in _FILES if facts.files.exists(path)]
        return f"asked for; found {', '.join(found)}" if found else ""

    def run(self, context: Context) -> None:
        """Remove the files; the client makes new ones."""
        for path in _FILES:
            context.recorder.remove(path)
