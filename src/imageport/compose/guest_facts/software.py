"""What Windows lists as installed."""

from __future__ import annotations

from imageport.compose.hives.registry import Registry

UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
_MAX_PRODUCTS = 500


def installed_products(registry: Registry) -> list[tuple[str, str]]:
    """Return (name, version) of what Windows lists as installed, sorted."""
    found = []
    for root in (UNINSTALL, f"WOW6432Node\\{UNINSTALL}"):
        key = registry.key("SOFTWARE", root)
        for child in (key.children() if key else [])[:_MAX_PRODUCTS]:
            name = child.value("DisplayName")
            version = child.value("DisplayVersion")
            if name and name.as_text():
                found.append((name.as_text(), version.as_text() if version else ""))
    return sorted(set(found))
