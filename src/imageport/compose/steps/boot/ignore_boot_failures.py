# References: Microsoft BcdOSLoaderInteger_BootStatusPolicy, BcdLibraryBoolean_AutoRecoveryEnabled.
"""What the boot manager does after a start that failed: nobody is there to answer it."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose import boot_store
from imageport.compose.boot_store import BootEntry, Element
from imageport.compose.contract import Tier
from imageport.compose.hives.registry import BOOT_STORE_HIVE
from imageport.compose.step import Context, Facts, Step


class IgnoreBootFailures(Step):
    """Start Windows again after a start that failed, not its recovery, which waits for a person."""

    name: ClassVar[str] = "ignore_boot_failures"
    tier: ClassVar[Tier] = Tier.RECOMMENDED

    def reason(self, facts: Facts) -> str:
        """Run where there is a default entry; that there is none, the verdict says."""
        return "asked for" if _entry(facts) else ""

    def run(self, context: Context) -> None:
        """Switch recovery off and ignore all failures, in the default entry."""
        entry = _entry(context)
        for element, value in (
            (Element.RECOVERY_ENABLED, boot_store.flag(on=False)),
            (Element.BOOT_STATUS_POLICY, boot_store.number(boot_store.IGNORE_ALL_FAILURES)),
        ):
            boot_store.set_element(context.recorder, entry, element, value)


def _entry(facts: Facts) -> str:
    store = facts.registry.hives.get(BOOT_STORE_HIVE)
    found = boot_store.default_entry(store) if store else ""
    return found.identifier if isinstance(found, BootEntry) else ""
