"""Say which hives were brought up to date; see `hives.transaction_logs`."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.step import Context, Facts, Step


class ReplayHiveLogs(Step):
    """Hives that Windows did not write out to the end get the changes that lie in their logs.

    The copies that all steps work on have them already, for nothing may be read from a hive that is
    behind; this step makes them a change of the guest. Afterwards no log entry fits the hive any
    more, so Windows cannot apply one over what was changed since.
    """

    name: ClassVar[str] = "replay_hive_logs"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("whole-hives",)

    def reason(self, facts: Facts) -> str:
        """Name the hives."""
        names = [f"{n} {c.header.sequences}" for n, c in facts.registry.replayed.items()]
        return f"not written out: {', '.join(names)}" if names else ""

    def run(self, context: Context) -> None:
        """Note what was done when they were opened."""
        context.recorder.note_replays()
