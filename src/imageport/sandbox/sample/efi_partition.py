"""The EFI system partition: FAT32 with a boot program compiled here and the boot store."""

from __future__ import annotations

import os
from pathlib import Path

from imageport.errors import MissingTool
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.windows_files import FILE_TIME_SECONDS

FALLBACK_LOADER = "::/EFI/Boot/bootx64.efi"
_SOURCE = Path(__file__).parent / "firmware" / "boot.c"
_INCLUDES = Path("/usr/include/efi")
# Debian and Ubuntu put the start-up object beside the libraries; Fedora into a folder of its own.
_LIBRARY_FOLDERS = (Path("/usr/lib"), Path("/usr/lib/gnuefi"), Path("/usr/lib64/gnuefi"))
_SECTIONS = (".text", ".sdata", ".data", ".rodata", ".dynamic", ".dynsym", ".rel", ".rela",
             ".rel.*", ".rela.*", ".reloc")  # fmt: skip


def make_efi_partition(partition: Path, boot_store: Path, program: Path) -> None:
    """Write the FAT32 file system with loader and boot store into the new file ``partition``."""
    with partition.open("wb") as file:
        file.truncate(recipe.ESP.size)
    hidden = str(recipe.ESP.first // 512)
    run(["mkfs.vfat", "--invariant", "-F", "32", "-i", recipe.FAT_SERIAL, "-n", "SYSTEM",
         "-h", hidden, partition])  # fmt: skip
    folders = ("EFI", "EFI/Boot", "EFI/Microsoft", "EFI/Microsoft/Boot")
    run(["mmd", "-i", partition, *(f"::/{folder}" for folder in folders)])
    for source, target in (
        (program, FALLBACK_LOADER),
        (program, "::/EFI/Microsoft/Boot/bootmgfw.efi"),
        (boot_store, "::/EFI/Microsoft/Boot/BCD"),
    ):
        os.utime(source, (FILE_TIME_SECONDS, FILE_TIME_SECONDS))
        run(["mcopy", "-m", "-i", partition, source, target])


def compile_loader(work: Path) -> Path:
    """Return the boot program, compiled into the folder ``work``."""
    library = next(
        (folder for folder in _LIBRARY_FOLDERS if (folder / "crt0-efi-x86_64.o").exists()), None
    )
    if library is None or not _INCLUDES.is_dir():
        raise MissingTool("Cannot build the sample's boot program: gnu-efi is not installed.")
    built, linked, program = (work / f"boot.{kind}" for kind in ("o", "so", "efi"))
    run(["gcc", "-c", _SOURCE, "-o", built, f"-I{_INCLUDES}", f"-I{_INCLUDES}/x86_64",
         "-DEFI_FUNCTION_WRAPPER", "-O2", "-fpic", "-ffreestanding", "-fshort-wchar",
         "-fno-stack-protector", "-mno-red-zone", "-maccumulate-outgoing-args"])  # fmt: skip
    run(["ld", "-nostdlib", "-znocombreloc", "-shared", "-Bsymbolic", f"-L{library}",
         "-T", library / "elf_x86_64_efi.lds", library / "crt0-efi-x86_64.o", built,
         "-o", linked, "-lefi", "-lgnuefi"])  # fmt: skip
    sections = [part for name in _SECTIONS for part in ("-j", name)]
    run(["objcopy", *sections, "--target=efi-app-x86_64", "--strip-all", linked, program])
    return program


def remove_fallback_loader(partition: Path) -> None:
    """Take away the only loader that firmware without variables starts."""
    run(["mdel", "-i", partition, FALLBACK_LOADER])
