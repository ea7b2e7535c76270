"""The engine's report as a page for people: Markdown, nothing secret, nothing that renders.

Host side only; it does not travel in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from imageport.compose.contract import Change, EngineReport, Inspection, StepNote, Tier

_MAX_CELL = 160
"""Longer values are cut in the page; the JSON report has them whole."""
_MAX_ROWS = 200
"""Of one table; a guest that lists thousands of programs must not fill Prefect's database."""
_MAX_NAME = 80
_TITLES = {
    "inspect": "What the image is",
    "plan": "What preparing would change",
    "compose": "What was changed in the image",
    "verify": "What the first boot made of it",
}
_NONE = "none"


def report_markdown(report: EngineReport) -> str:
    """Return the page; guest texts are shown as text, whatever they hold."""
    return f"# {_TITLES[report.action]}\n\n{report_sections(report)}"


def report_sections(report: EngineReport) -> str:
    """Return the page without its title, to be put under another."""
    parts = [_outcome(report), inspection_sections(report.inspection)]
    if report.refusals:
        rows = [(item.code, item.reason, item.hint) for item in report.refusals]
        parts.append(_table("Reasons to refuse", ("Code", "Reason", "What to do"), rows))
    if report.verdict:
        rows = [("✓" if item.passed else "✗", item.name, item.evidence) for item in report.verdict]
        parts.append(_table("Readiness verdict", ("", "Item", "Evidence"), rows))
    parts.append(_steps(report.steps))
    parts += _changes(report.changes)
    if report.first_boot:
        facts = [(name, text) for name, text in report.first_boot.items() if name != "log"]
        parts.append(_table("First boot", ("Fact", "Value"), facts))
    return "\n\n".join(part for part in parts if part) + "\n"


def inspection_sections(inspection: Inspection) -> str:
    """Return what the guest is: one table of facts, and lists of what is in it."""
    if not inspection.product_name:
        return ""
    parts = [_table("The guest", ("Fact", "Value"), inspection_facts(inspection))]
    lists = (
        ("Partitions", inspection.partitions),
        ("Drivers of others than Microsoft", inspection.drivers),
        ("Software", inspection.software),
        ("The old network", inspection.network),
        ("Policies that the first boot meets", inspection.policies),
    )
    parts += [
        _table(title, ("Found",), [(one,) for one in found]) for title, found in lists if found
    ]
    return "\n\n".join(parts)


def inspection_facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Return the facts that have one value each, named for people."""
    product, edition = inspection.product_name, inspection.edition
    windows = (product, "" if edition in product.split() else edition, inspection.build)
    sets = [
        f"{name} (current)" if name == inspection.current_control_set else name
        for name in inspection.control_sets
    ]
    return [
        ("Windows", " ".join(word for word in (*windows, inspection.architecture) if word)),
        ("Firmware", inspection.firmware),
        ("Disk", inspection.disk_guid),
        ("Came from", inspection.source_platform),
        ("Guest tools installed", ", ".join(inspection.source_tools) or _NONE),
        ("Made or streamed by", inspection.provisioned_by or "neither PVS nor MCS"),
        ("Virtual Delivery Agent", inspection.vda_version or _NONE),
        ("Provisioning target device", inspection.pvs_target_version or _NONE),
        ("Machine identity agent", inspection.machine_identity_version or _NONE),
        ("MCS storage optimization", inspection.mcs_io_version or _NONE),
        ("Domain", inspection.domain or _NONE),
        ("Control sets", ", ".join(sets)),
        ("Free space", f"{inspection.free_bytes / 2**30:.1f} GiB"),
    ]


def _outcome(report: EngineReport) -> str:
    if report.error:
        return f"**Failed:** {page_text(report.error)}"
    failed = sum(not item.passed for item in report.verdict)
    if report.refusals:
        words = f"**Refused**, for {len(report.refusals)} reason(s)."
    elif failed:
        words = f"**Not ready:** {failed} of {len(report.verdict)} verdict items failed."
    elif report.verdict:
        words = f"**Ready:** all {len(report.verdict)} verdict items passed."
    else:
        words = "**Nothing stands against it.**"
    return f"{words} Engine `{report.engine_id[:12]}`, {report.seconds:.0f} s."


def _steps(steps: Sequence[StepNote]) -> str:
    """Return the plan: what runs and why, then what does not."""
    ordered = [*(s for s in steps if s.chosen), *(s for s in steps if not s.chosen)]
    rows = [
        (
            step.name,
            step.tier,
            "yes" if step.chosen else "no",
            step.reason,
            str(step.made),
            step.summary,
        )
        for step in ordered
    ]
    head = ("Step", "Tier", "Runs", "Why", "Changes", "What it does")
    return _table("Steps", head, rows) if rows else ""


def _changes(changes: Iterable[Change]) -> list[str]:
    """Return one table per step, required ones first as they ran."""
    steps: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        steps.setdefault((change.step, change.tier), []).append(change)
    pages = []
    for (step, tier), made in steps.items():
        title = f"{step} ({len(made)}{', chosen' if tier == Tier.RECOMMENDED else ''})"
        rows = (
            (
                item.kind,
                f"{item.path} {item.name}".strip(),
                item.before or "absent",
                item.after or "removed",
            )
            for item in made
        )
        pages.append(_table(title, ("Kind", "Where", "Before", "After"), rows))
    return pages


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## {page_text(title[:_MAX_NAME])}", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    waiting = iter(rows)
    for row in islice(waiting, _MAX_ROWS):
        lines.append(f"| {' | '.join(page_text(cell) for cell in row)} |")
    more = sum(1 for _ in waiting)
    if more:
        lines += ["", f"and {more} more; the JSON report has them all."]
    return "\n".join(lines)


def one_line(value: str) -> str:
    """Return a text in one line, without what a terminal acts on or UTF-8 cannot hold."""
    flat = " ".join(value.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)


def page_text(value: str) -> str:
    """Return one line that cannot leave its table or become a link, an image or HTML."""
    flat = one_line(value)
    cut = flat if len(flat) <= _MAX_CELL else flat[:_MAX_CELL] + "…"
    for character in "\\`*_[]<>|!#~&":
        cut = cut.replace(character, "\\" + character)
    # Bare addresses become links too where GitHub's kind of Markdown is shown.
    return cut.replace("://", "\\://").replace("www.", "www\\.").replace("@", "\\@")
