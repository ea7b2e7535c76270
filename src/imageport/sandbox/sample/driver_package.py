"""Driver packages as an operator supplies them: what the target clouds' machines need.

Each INF (``drivers/NAME.inf``) is complete and in real syntax, in the structure that the vendors'
have; the drivers do nothing and are signed by nobody, so they are good for emulated machines only.
"""

from __future__ import annotations

from pathlib import Path

from imageport.sandbox.sample.portable_executable import minimal_pe

VERSION = "2.9.0.4"
"""Of the ENA package."""
HARDWARE_IDS = (r"PCI\VEN_1D0F&DEV_EC20", r"PCI\VEN_1D0F&DEV_EC21")
_COMPANY = "Imageport Sample Drivers"
_INFS = Path(__file__).parent / "drivers"
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ena": (VERSION, ("ena.sys",)),
    "nvme": ("1.5.2.0", ("samplenvme.sys",)),
    "vioscsi": ("100.95.104.26200", ("vioscsi.sys",)),
    "netkvm": ("100.95.104.26200", ("netkvm.sys",)),
    "gvnic": ("2.1.0.3", ("gvnic.sys", "x64/lib.dll")),
}
"""Package → its version and its files beside INF and catalogue."""
CLOUD_PACKAGES = {"aws": ("ena", "nvme"), "gcp": ("vioscsi", "netkvm", "gvnic")}


def write_package(name: str, folder: Path, *, version: str = "") -> Path:
    """Write one of `PACKAGES` into the folder, made if missing.

    Args:
        name: which package.
        folder: where to.
        version: instead of its own.

    Returns the INF's path. The same bytes at every call: the package is pinned by its digest.
    """
    own, files = PACKAGES[name]
    chosen = version or own
    folder.mkdir(parents=True, exist_ok=True)
    inf = folder / f"{name}.inf"
    text = (_INFS / f"{name}.inf").read_text(encoding="ascii").replace("@VERSION@", chosen)
    inf.write_bytes(text.replace("\n", "\r\n").encode("ascii"))
    for file in files:
        place = folder / file
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(minimal_pe(place.name, chosen, company=_COMPANY))
    (folder / f"{name}.cat").write_bytes(_empty_catalog())
    return inf


def write_cloud_packages(cloud: str, folder: Path) -> None:
    """Write every package of a cloud, each into its own folder."""
    for name in CLOUD_PACKAGES.get(cloud, ()):
        write_package(name, folder / name)


def write_ena_package(folder: Path) -> Path:
    """Write ``ena.inf``, ``ena.sys`` and ``ena.cat`` into the folder; returns the INF's path."""
    return write_package("ena", folder)


def _empty_catalog() -> bytes:
    """Return a PKCS #7 SignedData that signs nothing: right in form, worth nothing."""
    digests = _der(0x31, b"")
    content = _der(0x30, _der(0x06, bytes.fromhex("2b060104018237 0a01")))  # szOID_CTL
    signed = _der(0x30, _der(0x02, b"\x01") + digests + content + _der(0x31, b""))
    kind = _der(0x06, bytes.fromhex("2a864886f70d010702"))  # pkcs7-signedData
    return _der(0x30, kind + _der(0xA0, signed))


def _der(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content  # every part here is shorter than 128 bytes
