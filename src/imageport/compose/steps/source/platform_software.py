r"""What a platform's tools have in SOFTWARE: autostart, Windows Installer's records, COM classes.

Windows Installer writes a product's GUID packed: the first three groups backwards, then each pair
of digits turned. What it keeps of a product lies under that name in many places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry
from imageport.compose.recorder import Recorder
from imageport.compose.steps.source.source_platform import SourcePlatform, matches, volume_path

_CURRENT = "Microsoft\\Windows\\CurrentVersion"
_VIEWS = ("", "WOW6432Node\\")
"""64-bit programs', and what 32-bit programs see."""
_USER_DATA = f"{_CURRENT}\\Installer\\UserData\\S-1-5-18"
_UPGRADES = ("Classes\\Installer\\UpgradeCodes", f"{_CURRENT}\\Installer\\UpgradeCodes")
_SERVERS = ("InprocServer32", "LocalServer32")
_MENUS = ("*", "Directory", "Folder", "AllFilesystemObjects", "Drive")
_GUID = re.compile(
    r"\{([0-9A-F]{8})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{4})-([0-9A-F]{12})\}", re.IGNORECASE
)


def packed_guid(guid: str) -> str:
    """Return a GUID as Windows Installer writes it, "" for what is none."""
    match = _GUID.fullmatch(guid)
    if match is None:
        return ""
    first, second, third, *rest = match.groups()
    digits = "".join(rest)
    turned = "".join(digits[at + 1] + digits[at] for at in range(0, len(digits), 2))
    return (first[::-1] + second[::-1] + third[::-1] + turned).upper()


@dataclass(frozen=True, slots=True)
class OldSoftware:
    """What SOFTWARE has of a platform; keys are paths below the hive."""

    listed: tuple[str, ...]
    """Keys of Uninstall."""
    products: frozenset[str]
    """Packed GUIDs, in lower case."""
    titles: tuple[str, ...]
    """Names and versions of the products, for people."""
    packages: tuple[str, ...]
    """Installer's copies of the products' packages, from the volume's root."""


def old_software(registry: Registry, platform: SourcePlatform) -> OldSoftware:
    """Return what SOFTWARE has of a platform's tools."""
    listed, titles, products = [], [], set[str]()
    for path, key in _listed(registry):
        name, version = key.text("DisplayName"), key.text("DisplayVersion")
        if _is_product(platform, key, name):
            listed.append(path)
            titles.append(f"{name} {version}".strip())
            products.add(packed_guid(key.name).lower())
    packages = []
    for key in _children(registry, f"{_USER_DATA}\\Products"):
        facts = key.child("InstallProperties")
        if facts and _is_product(platform, facts, facts.text("DisplayName")):
            products.add(key.name.lower())
            packages.append(volume_path(facts.text("LocalPackage")))
    in_cache = tuple(path for path in packages if path.startswith("windows/installer/"))
    ids = frozenset(products - {""})
    return OldSoftware(tuple(listed), ids, tuple(dict.fromkeys(titles)), in_cache)


@dataclass(frozen=True, slots=True)
class SoftwareRemoval:
    """Takes a platform's tools out of SOFTWARE."""

    registry: Registry
    recorder: Recorder
    platform: SourcePlatform
    found: OldSoftware
    classes: frozenset[str]
    """As `old_classes`."""

    def stop_autostart(self) -> None:
        """Delete what starts at logon, and what starts by name."""
        for view in _VIEWS:
            run = f"{view}{_CURRENT}\\Run"
            for name, text in self._texts(run):
                if matches(name, self.platform.run_values) or self.platform.owns(text):
                    self.recorder.delete_value("SOFTWARE", run, name)
            paths = f"{view}{_CURRENT}\\App Paths"
            for key in _children(self.registry, paths):
                if self.platform.owns(key.text("")):
                    self.recorder.delete_key("SOFTWARE", f"{paths}\\{key.name}")
        for name, _ in self._texts("RegisteredApplications"):
            if matches(name, self.platform.applications):
                self.recorder.delete_value("SOFTWARE", "RegisteredApplications", name)

    def forget_classes(self) -> None:
        """Delete COM classes whose library is the platform's, and what leads to them."""
        for view in _VIEWS:
            root = f"Classes\\{view}"
            for menu in _MENUS:
                handlers = f"{root}{menu}\\shellex\\ContextMenuHandlers"
                for key in _children(self.registry, handlers):
                    if key.text("").lower() in self.classes:
                        self.recorder.delete_key("SOFTWARE", f"{handlers}\\{key.name}")
            for kind in ("AppID", "TypeLib"):
                for name in self._companions(root, kind):
                    self.recorder.delete_key("SOFTWARE", f"{root}{kind}\\{name}")
            for guid in sorted(self.classes):
                self.recorder.delete_key("SOFTWARE", f"{root}CLSID\\{guid}")
        for name in self.platform.class_keys:
            self.recorder.delete_key("SOFTWARE", f"Classes\\{name}")

    def forget_products(self) -> None:
        """Delete Windows' and Windows Installer's records of the products."""
        for path in self.found.listed:
            self.recorder.delete_key("SOFTWARE", path)
        for product in sorted(self.found.products):
            for place in ("Products", "Features"):
                self.recorder.delete_key("SOFTWARE", f"Classes\\Installer\\{place}\\{product}")
        for root in (*_UPGRADES, f"{_USER_DATA}\\Components"):
            for key in _children(self.registry, root):
                self._forget_values(f"{root}\\{key.name}", key)
        for product in sorted(self.found.products):
            self.recorder.delete_key("SOFTWARE", f"{_USER_DATA}\\Products\\{product}")

    def forget_folders(self) -> None:
        """Delete records of folders and shared files, and the tools' own keys."""
        for path in (f"{_CURRENT}\\Installer\\Folders", f"{_CURRENT}\\SharedDLLs"):
            key = self.registry.key("SOFTWARE", path)
            for name in key.values() if key else {}:
                if self.platform.owns(name):
                    self.recorder.delete_value("SOFTWARE", path, name)
        for view in _VIEWS:
            for name in self.platform.software_keys:
                path = f"{view}{name}"
                self.recorder.delete_key("SOFTWARE", path)
                parent = path.rpartition("\\")[0]
                key = self.registry.key("SOFTWARE", parent) if parent != view[:-1] else None
                if key is not None and not key.children() and not key.values():
                    self.recorder.delete_key("SOFTWARE", parent)

    def _forget_values(self, path: str, key: Key) -> None:
        """Delete what a key notes for the products; the key too when nothing else is in it."""
        names = list(key.values())
        doomed = [name for name in names if name.lower() in self.found.products]
        if doomed and len(doomed) == len(names) and not key.children():
            self.recorder.delete_key("SOFTWARE", path)
        else:
            for name in doomed:
                self.recorder.delete_value("SOFTWARE", path, name)

    def _companions(self, root: str, kind: str) -> list[str]:
        """Return AppIDs or type libraries that only the removed classes name."""
        removed, others = set[str](), set[str]()
        for key in _children(self.registry, f"{root}CLSID"):
            child = key.child(kind)
            named = (key.text(kind) or (child.text("") if child else "")).lower()
            if named:
                (removed if key.name.lower() in self.classes else others).add(named)
        return sorted(removed - others)

    def _texts(self, path: str) -> list[tuple[str, str]]:
        key = self.registry.key("SOFTWARE", path)
        return [(name, value.as_text()) for name, value in key.values().items()] if key else []


def _listed(registry: Registry) -> Iterator[tuple[str, Key]]:
    for view in _VIEWS:
        root = f"{view}{_CURRENT}\\Uninstall"
        for key in _children(registry, root):
            yield f"{root}\\{key.name}", key


def _is_product(platform: SourcePlatform, facts: Key, name: str) -> bool:
    return matches(name, platform.products) and platform.is_maker(facts.text("Publisher"))


def old_classes(registry: Registry, platform: SourcePlatform) -> frozenset[str]:
    """Return the GUIDs, in lower case, of COM classes whose program lies in the folders.

    There are twenty thousand classes and more, so this is asked once and only for a removal.
    """
    return frozenset(
        key.name.lower()
        for view in _VIEWS
        for key in _children(registry, f"Classes\\{view}CLSID")
        for server in (key.child(name) for name in _SERVERS)
        if server is not None and platform.owns(server.text(""))
    )


def _children(registry: Registry, path: str) -> list[Key]:
    key = registry.key("SOFTWARE", path)
    return key.children() if key else []
