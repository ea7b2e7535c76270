# References: Microsoft "INF Manufacturer section", "INF Models section", "Combining platform
# extensions with operating system versions".
"""The devices that an INF names, and which of its lists is for which Windows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imageport.compose.drivers.inf_text import InfText
from imageport.errors import InputError

AMD64 = "ntamd64"
MAX_IDS = 10_000
_ID = re.compile(r"[^\\\s/,][^\\/,]*(\\[^\\\s/,][^\\/,]*){0,2}")
_MAX_ID = 200
"""Characters; MAX_DEVICE_ID_LEN of Windows."""
_CLIENT = 1
_NUMBER = re.compile(r"[0-9]{1,9}")
"""The guest says what its build is: any text."""


@dataclass(frozen=True, slots=True)
class WindowsVersion:
    """The system that drivers are chosen for."""

    major: int
    minor: int
    build: int
    is_server: bool

    @classmethod
    def of(cls, build: str, product_name: str) -> WindowsVersion:
        """Return it from an inspection's ``10.0.22631.3007`` and product name."""
        numbers = [int(part) if _NUMBER.fullmatch(part) else 0 for part in build.split(".")]
        major, minor, number = [*numbers, 0, 0, 0][:3]
        return cls(major, minor, number, "server" in product_name.lower())


@dataclass(frozen=True, slots=True)
class Decoration:
    """``NTamd64.major.minor.type.suite.build`` of a list of models; None = not named."""

    major: int | None = None
    minor: int | None = None
    product_type: int | None = None
    suite: int | None = None
    build: int | None = None

    @classmethod
    def read(cls, text: str) -> Decoration | None:
        """Return a decoration, None when it is for other processors or cannot be read."""
        architecture, *rest = text.strip().split(".")
        parts = [part.strip() for part in rest]
        if architecture.lower() != AMD64 or len(parts) > 5:
            return None
        numbers: list[int | None] = []
        for part in parts:
            try:
                numbers.append(int(part, 0) if part else None)
            except ValueError:
                return None
        return cls(*numbers)

    def fits(self, system: WindowsVersion) -> bool:
        """Say whether the list applies; one for a certain suite never does."""
        is_for_servers = self.product_type is not None and self.product_type != _CLIENT
        if self.suite or (self.product_type is not None and is_for_servers != system.is_server):
            return False
        needed = (self.major or 0, self.minor or 0, self.build or 0)
        return needed <= (system.major, system.minor, system.build)

    @property
    def order(self) -> tuple[int, ...]:
        """Return what decides among lists that apply: the newest system, then the narrowest."""
        return (self.major or 0, self.minor or 0, self.product_type or 0, self.build or 0)


@dataclass(frozen=True, slots=True)
class InfModel:
    """One id that a device may have, and what is installed for it.

    ``description`` and ``manufacturer`` are as written, ``%token%`` or text. ``position`` is 1 for
    the line's hardware id, 2 and more for the compatible ids after it.
    """

    hardware_id: str
    position: int
    description: str
    manufacturer: str
    install: str
    decoration: Decoration


@dataclass(frozen=True, slots=True)
class ModelList:
    """One list of a maker's models; an empty one says that its systems get no driver."""

    manufacturer: str
    decoration: Decoration
    models: tuple[InfModel, ...]


def read_models(document: InfText) -> tuple[ModelList, ...]:
    """Return all lists for 64-bit x86.

    Raises:
        InputError: there is no model in them, or too many.
    """
    found: list[ModelList] = []
    count = 0
    for maker in document.section("manufacturer"):
        base, *decorations = [document.expand(value) for value in maker.values]
        base = base or maker.key
        named = [text for text in decorations if text.strip()]
        lists = [(f"{base}.{text.strip()}", Decoration.read(text)) for text in named]
        for section, decoration in lists if named else [(base, Decoration())]:
            if decoration is not None:
                name = maker.key or base
                models = _list(document, section, name, decoration)
                found.append(ModelList(name, decoration, tuple(models)))
                count += len(models)
            if count > MAX_IDS:
                raise InputError(f"Bad driver INF: found more than {MAX_IDS} hardware ids.")
    if not count:
        raise InputError("Bad driver INF: found no device for 64-bit Windows, needed one.")
    return tuple(found)


def models_for(lists: Sequence[ModelList], system: WindowsVersion) -> tuple[InfModel, ...]:
    """Return the models of each maker's best list for a system, in the INF's order.

    A list without models is chosen as any other: so a maker leaves systems out.
    """
    best: dict[str, Decoration] = {}
    for item in lists:
        known = best.get(item.manufacturer)
        if item.decoration.fits(system) and (known is None or item.decoration.order > known.order):
            best[item.manufacturer] = item.decoration
    chosen = [item for item in lists if best.get(item.manufacturer) == item.decoration]
    return tuple(model for item in chosen for model in item.models)


def _list(document: InfText, section: str, maker: str, decoration: Decoration) -> list[InfModel]:
    found = []
    for line in document.section(section):
        install, *ids = [document.expand(value) for value in line.values]
        if not install:
            continue
        for name in filter(None, ids):
            if len(name) > _MAX_ID or not _ID.fullmatch(name):
                raise InputError(f"Bad driver INF: found device id '{name[:80]}'.")
        found += [
            InfModel(name.upper(), position, line.key, maker, install, decoration)
            for position, name in enumerate(ids, start=1)
            if name
        ]
    return found
