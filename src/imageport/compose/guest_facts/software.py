"""What Windows lists as installed."""

from __future__ import annotations

from imageport.compose.hives.registry import Registry

UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
DOTNET = "Microsoft\\NET Framework Setup\\NDP\\v4\\Full"
_MAX_PRODUCTS = 500


def installed_products(registry: Registry) -> list[tuple[str, str]]:
    """Return (name, version) of what Windows lists as installed, sorted."""
    found: list[tuple[str, str]] = []
    for root in (UNINSTALL, f"WOW6432Node\\{UNINSTALL}"):
        key = registry.key("SOFTWARE", root)
        found += [
            (name, child.text("DisplayVersion"))
            for child in (key.children() if key else [])[:_MAX_PRODUCTS]
            if (name := child.text("DisplayName"))
        ]
    return sorted(set(found))
