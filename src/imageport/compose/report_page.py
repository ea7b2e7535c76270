"""The engine's report as a page for people: Markdown, nothing secret, nothing that renders.

Host side only; it does not travel in the engine.
"""

from __future__ import annotations

from collections.abc import Iterable

from imageport.compose.contract import Change, EngineReport, Inspection, Tier

_MAX_CELL = 160
"""Longer values are cut in the page; the JSON report has them whole."""
_TITLES = {
    "inspect": "What the image is",
    "plan": "What preparing would change",
    "compose": "What was changed in the image",
    "verify": "What the first boot made of it",
}


def report_markdown(report: EngineReport) -> str:
    """Return the page; guest texts are shown as text, whatever they hold."""
    parts = [f"# {_TITLES[report.action]}", _outcome(report), _guest(report.inspection)]
    if report.refusals:
        rows = [(item.code, item.reason, item.hint) for item in report.refusals]
        parts.append(_table("Reasons to refuse", ("Code", "Reason", "What to do"), rows))
    if report.verdict:
        rows = [("✓" if item.passed else "✗", item.name, item.evidence) for item in report.verdict]
        parts.append(_table("Readiness verdict", ("", "Item", "Evidence"), rows))
    parts += _changes(report.changes)
    if report.first_boot:
        facts = [(name, text) for name, text in report.first_boot.items() if name != "log"]
        parts.append(_table("First boot", ("Fact", "Value"), facts))
    return "\n\n".join(part for part in parts if part) + "\n"


def _outcome(report: EngineReport) -> str:
    if report.error:
        return f"**Failed:** {_text(report.error)}"
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


def _guest(inspection: Inspection) -> str:
    facts = [
        ("Windows", f"{inspection.product_name} {inspection.build} {inspection.architecture}"),
        ("Firmware", inspection.firmware),
        ("Came from", inspection.source_platform),
        ("Virtual Delivery Agent", inspection.vda_version or "none"),
        ("Provisioning target device", inspection.pvs_target_version or "none"),
        ("Domain", inspection.domain or "none"),
        ("Control sets", ", ".join(inspection.control_sets)),
        ("Free space", f"{inspection.free_bytes / 2**30:.1f} GiB"),
    ]
    return _table("The guest", ("Fact", "Value"), facts) if inspection.product_name else ""


def _changes(changes: Iterable[Change]) -> list[str]:
    """Return one table per step, required ones first as they ran."""
    steps: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        steps.setdefault((change.step, change.tier), []).append(change)
    pages = []
    for (step, tier), made in steps.items():
        title = f"{step} ({len(made)}{', chosen' if tier == Tier.RECOMMENDED else ''})"
        rows = [
            (f"{item.path} {item.name}".strip(), item.before or "absent", item.after or "removed")
            for item in made
        ]
        pages.append(_table(title, ("Where", "Before", "After"), rows))
    return pages


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _text(value: str) -> str:
    """Return a cell that cannot leave its table or become a link, an image or HTML."""
    flat = " ".join(value.split())
    cut = flat if len(flat) <= _MAX_CELL else flat[:_MAX_CELL] + "…"
    for character in "\\`*_[]<>|!#":
        cut = cut.replace(character, "\\" + character)
    return cut
