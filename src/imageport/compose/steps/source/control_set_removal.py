"""Takes services out of one control set, with everything in it that leads to them.

The order leaves a registry that boots after each change: what names a service goes first, the
service itself last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.recorder import Recorder
from imageport.compose.steps.source.platform_packages import device_instances
from imageport.compose.steps.source.platform_services import (
    FILTER_LISTS,
    PROVIDER_ORDERS,
    filter_places,
    network_providers,
)
from imageport.compose.steps.source.source_platform import SourcePlatform

_LOGS = ("Application", "System")


@dataclass(frozen=True, slots=True)
class ControlSetRemoval:
    """What goes from one control set.

    ``services`` exist and are deleted; ``gone`` are these and names that lead nowhere, in lower
    case; ``infs`` are names of the removed driver packages, as `OldPackage.owner_names`.
    """

    registry: Registry
    recorder: Recorder
    platform: SourcePlatform
    control_set: str
    services: tuple[str, ...]
    gone: frozenset[str]
    infs: frozenset[str]

    def strip_filters(self) -> None:
        """Take the services out of the filters of every class and every device."""
        for path in list(filter_places(self.registry, self.control_set)):
            for name in FILTER_LISTS:
                self._strip_list(path, name, self.gone)

    def strip_network_providers(self) -> None:
        """Take the services out of the orders in which Windows asks network providers."""
        root = f"{self.control_set}\\Control\\NetworkProvider"
        for order in PROVIDER_ORDERS:
            names = network_providers(self.registry, self.control_set, order)
            kept = [name for name in names if name.lower() not in self.gone]
            if len(kept) < len(names):
                text = Value.text(",".join(kept))
                self.recorder.set_value("SYSTEM", f"{root}\\{order}", "ProviderOrder", text)
        weights = self.registry.key("SYSTEM", f"{root}\\ProviderOrder")
        for name in weights.values() if weights else {}:
            if name.lower() in self.gone:
                self.recorder.delete_value("SYSTEM", f"{root}\\ProviderOrder", name)

    def mend_dependencies(self) -> None:
        """Take the services out of what others depend on, and groups that nobody is left in."""
        services = self.registry.key("SYSTEM", f"{self.control_set}\\Services")
        keys = services.children() if services else []
        left = {key.text("Group").lower() for key in keys if key.name.lower() not in self.gone}
        had = {key.text("Group").lower() for key in keys if key.name.lower() in self.gone}
        for key in keys:
            if key.name.lower() not in self.gone:
                path = service_path(self.control_set, key.name)
                self._strip_list(path, "DependOnService", self.gone)
                self._strip_list(path, "DependOnGroup", frozenset(had - left))

    def disown(self) -> None:
        """Take the packages out of the owners of Windows' own services that they had set up."""
        for key in self._children(f"{self.control_set}\\Services"):
            if key.name.lower() not in self.gone:
                path = service_path(self.control_set, key.name)
                self._strip_list(path, "Owners", self.infs, entry=_owner)

    def strip_co_installers(self, libraries: frozenset[str]) -> None:
        """Take libraries (in lower case) out of what installs along with devices of a class."""
        path = f"{self.control_set}\\Control\\CoDeviceInstallers"
        key = self.registry.key("SYSTEM", path)
        for name in key.values() if key else {}:
            self._strip_list(path, name, libraries, entry=lambda text: text.partition(",")[0])

    def delete_snapshot_providers(self, classes: frozenset[str]) -> None:
        """Delete providers of volume snapshots whose class goes: every backup asks them all."""
        root = f"{service_path(self.control_set, 'VSS')}\\Providers"
        self._delete_children(
            root,
            lambda key: (
                self.platform.is_maker(key.text(""))
                or any(
                    child.text("").lower() in classes
                    for child in key.children()
                    if child.name.lower() == "clsid"
                )
            ),
        )

    def forget_traces(self) -> None:
        """Delete event sources, time providers and safe-mode entries of what goes."""
        for log in _LOGS:
            self._delete_children(
                f"{service_path(self.control_set, 'EventLog')}\\{log}",
                lambda key: (
                    key.name.lower() in self.gone
                    or self.platform.mentions_folder(key.text("EventMessageFile"))
                ),
            )
        self._delete_children(
            f"{service_path(self.control_set, 'W32Time')}\\TimeProviders",
            lambda key: self.platform.owns(key.text("DllName")),
        )
        for mode in ("Minimal", "Network"):
            self._delete_children(
                f"{self.control_set}\\Control\\SafeBoot\\{mode}",
                lambda key: key.name.lower().removesuffix(".sys") in self.gone,
            )

    def forget_devices(self) -> None:
        """Delete devices that the services or packages drove, with their class' instances.

        Windows sets a device up anew when it sees it again.
        """
        classes = f"{self.control_set}\\Control\\Class"
        drivers = {
            f"{device_class.name}\\{instance.name}".lower()
            for device_class in self._children(classes)
            for instance in device_class.children()
            if instance.text("InfPath").lower() in self.infs
        }
        for path in list(device_instances(self.registry, self.control_set)):
            service = self.registry.text("SYSTEM", path, "Service").lower()
            driver = self.registry.text("SYSTEM", path, "Driver").lower()
            if service in self.gone or driver in drivers:
                self._delete_device(path)
        for driver in sorted(drivers):
            self.recorder.delete_key("SYSTEM", f"{classes}\\{driver}")
        self._delete_children(
            f"{self.control_set}\\Control\\Video",
            lambda key: any(child.text("Service").lower() in self.gone for child in key.children()),
        )
        self._delete_children(
            f"{self.control_set}\\Control\\CriticalDeviceDatabase",
            lambda key: key.text("Service").lower() in self.gone,
        )

    def _delete_device(self, path: str) -> None:
        """Delete an instance, and its device and bus where it was the last one of them."""
        self.recorder.delete_key("SYSTEM", path)
        for _ in ("device", "bus"):
            path = path.rpartition("\\")[0]
            if self._children(path):
                return
            self.recorder.delete_key("SYSTEM", path)

    def delete_services(self) -> None:
        """Delete the services; nothing names them any more."""
        for name in self.services:
            self.recorder.delete_key("SYSTEM", service_path(self.control_set, name))

    def _strip_list(
        self,
        path: str,
        name: str,
        gone: frozenset[str],
        entry: Callable[[str], str] = lambda text: text,
    ) -> None:
        """Take out of a list of texts those whose ``entry`` is gone; an empty list goes too."""
        value = self.registry.value("SYSTEM", path, name)
        texts = value.as_texts() if value else []
        kept = [text for text in texts if entry(text).strip().lower() not in gone]
        if len(kept) == len(texts):
            return
        if kept:
            self.recorder.set_value("SYSTEM", path, name, Value.texts(kept))
        else:
            self.recorder.delete_value("SYSTEM", path, name)

    def _delete_children(self, path: str, is_doomed: Callable[[Key], bool]) -> None:
        doomed = [key.name for key in self._children(path) if is_doomed(key)]
        for name in doomed:
            self.recorder.delete_key("SYSTEM", f"{path}\\{name}")

    def _children(self, path: str) -> list[Key]:
        key = self.registry.key("SYSTEM", path)
        return key.children() if key else []


def _owner(text: str) -> str:
    """Return an owner without version: ``!vmmouse.inf`` of ``!vmmouse.inf_amd64_31990a…``."""
    name, ending, _ = text.partition(".inf_")
    return f"{name}.inf" if ending else text
