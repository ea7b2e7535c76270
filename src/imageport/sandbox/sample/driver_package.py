"""A driver package as an operator supplies it: the network driver that the target cloud needs.

Its INF is complete and in real syntax; the driver itself does nothing and is signed by nobody, so
it is good for an emulated first boot only.
"""

from __future__ import annotations

from pathlib import Path

from imageport.sandbox.sample.portable_executable import minimal_pe

VERSION = "2.9.0.4"
HARDWARE_IDS = (r"PCI\VEN_1D0F&DEV_EC20", r"PCI\VEN_1D0F&DEV_EC21")
_INF = r"""; Sample of a network driver package, with every section that installing one needs.

[Version]
Signature   = "$Windows NT$"
Class       = Net
ClassGuid   = {4d36e972-e325-11ce-bfc1-08002be10318}
Provider    = %Vendor%
CatalogFile = ena.cat
DriverVer   = 03/14/2025,@VERSION@
PnpLockdown = 1

[Manufacturer]
%Vendor% = ENA, NTamd64.10.0...16299, NTamd64

[ENA.NTamd64.10.0...16299]
%Adapter% = ENA_Install, PCI\VEN_1D0F&DEV_EC20
%Adapter% = ENA_Install, PCI\VEN_1D0F&DEV_EC21

[ENA.NTamd64]
%Adapter% = ENA_Install, PCI\VEN_1D0F&DEV_EC20   ; models of earlier systems
%Adapter% = ENA_Install, PCI\VEN_1D0F&DEV_EC21

[ENA_Install.NT]
Characteristics = 0x84
BusType         = 5
*IfType         = 6
*MediaType      = 0
*PhysicalMediaType = 14
AddReg          = ENA_Parameters
CopyFiles       = ENA_Files

[ENA_Install.NT.Services]
AddService = ena, 2, ENA_Service, ENA_EventLog

[ENA_Install.NT.HW]
AddReg = ENA_Interrupts

[ENA_Service]
DisplayName   = %ServiceName%
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\ena.sys
LoadOrderGroup = NDIS

[ENA_EventLog]
HKR, , EventMessageFile, 0x00020000, "%%SystemRoot%%\System32\drivers\ena.sys"
HKR, , TypesSupported,   0x00010001, 7

[ENA_Parameters]
HKR, Ndi,            Service,    0, "ena"
HKR, Ndi\Interfaces, UpperRange, 0, "ndis5"
HKR, Ndi\Interfaces, LowerRange, 0, "ethernet"

[ENA_Interrupts]
HKR, "Interrupt Management\MessageSignaledInterruptProperties", MSISupported, 0x10001, 1

[ENA_Files]
ena.sys,,,2

[DestinationDirs]
ENA_Files = 12

[SourceDisksNames]
1 = %DiskName%

[SourceDisksFiles]
ena.sys = 1

[Strings]
Vendor      = "Imageport Sample Drivers"
Adapter     = "Elastic Network Adapter (sample)"
ServiceName = "Elastic Network Adapter (sample)"
DiskName    = "Sample driver disk"
"""


def write_ena_package(folder: Path) -> Path:
    """Write ``ena.inf``, ``ena.sys`` and ``ena.cat`` into the folder, made if missing.

    Returns the INF's path. The same bytes at every call: the package is pinned by its digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inf = folder / "ena.inf"
    inf.write_bytes(_INF.replace("@VERSION@", VERSION).replace("\n", "\r\n").encode("ascii"))
    driver = minimal_pe("ena.sys", VERSION, company="Imageport Sample Drivers")
    (folder / "ena.sys").write_bytes(driver)
    (folder / "ena.cat").write_bytes(_empty_catalog())
    return inf


def _empty_catalog() -> bytes:
    """Return a PKCS #7 SignedData that signs nothing: right in form, worth nothing."""
    digests = _der(0x31, b"")
    content = _der(0x30, _der(0x06, bytes.fromhex("2b060104018237 0a01")))  # szOID_CTL
    signed = _der(0x30, _der(0x02, b"\x01") + digests + content + _der(0x31, b""))
    kind = _der(0x06, bytes.fromhex("2a864886f70d010702"))  # pkcs7-signedData
    return _der(0x30, kind + _der(0xA0, signed))


def _der(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content  # every part here is shorter than 128 bytes
