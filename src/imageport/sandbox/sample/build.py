"""Build the sample vDisk, or take it from the cache when its recipe has not changed.

``python -m imageport.sandbox.sample.build PATH [VARIANT]`` does it from a shell.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from imageport.sandbox.sample import disk_image, faults
from imageport.sandbox.sample.azure_faults import break_for_azure
from imageport.sandbox.sample.efi_partition import (
    compile_loader,
    make_efi_partition,
    remove_fallback_loader,
)
from imageport.sandbox.sample.ntfs_volume import make_ntfs_volume
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import (
    ESP,
    SYSTEM_RESERVED,
    WINDOWS,
    Partition,
    Variant,
    bulk_data,
    guest_kind,
    recipe_id,
    windows_partition,
)
from imageport.sandbox.sample.windows_files import (
    GuestFile,
    bulk_files,
    guest_files,
    write_tar,
)
from imageport.sandbox.sample.windows_registry import make_boot_store, make_windows_hives

CACHE_VARIABLE = "IMAGEPORT_CACHE"
_KEEP_SECONDS = 7 * 24 * 3600


def build_sample(
    path: Path, variant: Variant = Variant.DEFAULT, *, cache: Path | None = None
) -> Path:
    """Write the sample as a dynamic VHDX to the new or replaced file ``path`` and return it.

    Args:
        path: the file to make; its folder must exist.
        variant: which image; see `Variant`.
        cache: folder of built images, else ``IMAGEPORT_CACHE``, else ``~/.cache/imageport``.

    Several processes may ask for the same image at once; one builds, the others wait.

    Raises:
        MissingTool: a program that the generator needs is not installed.
        EngineFailed: such a program failed.
    """
    return disk_image.clone_sparse(cached_sample(variant, cache=cache), path)


def build_raw_sample(
    path: Path, variant: Variant = Variant.SMALL, *, cache: Path | None = None
) -> Path:
    """Write the sample as a sparse raw disk, as a machine sees it; else as `build_sample`."""
    run(["qemu-img", "convert", "-O", "raw", cached_sample(variant, cache=cache), path])
    return path


def cached_sample(variant: Variant, *, cache: Path | None = None) -> Path:
    """Return the cached VHDX of a variant, built when it is not there; only to be read."""
    folder = (cache or cache_folder()) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{variant}-{recipe_id(variant)}.vhdx"
    if image.exists():
        return image
    with _locked(image.with_suffix(".lock")):
        if not image.exists():
            with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as work:
                finished = _build(variant, Path(work))
                finished.replace(image)
            _forget_old(folder)
    return image


def _forget_old(folder: Path) -> None:
    """Delete what earlier recipes and killed builds left, once nobody can still be at it."""
    oldest = time.time() - _KEEP_SECONDS
    for path in folder.iterdir():
        if path.suffix == ".vhdx" and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
        elif path.name.startswith("build-") and path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)


def cache_folder() -> Path:
    """Return where built images and programs are kept."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "imageport"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel drops the lock with its process, however that ends; the file stays.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(variant: Variant, work: Path) -> Path:
    kind, part = guest_kind(variant), windows_partition(variant)
    hives = work / "hives"
    hives.mkdir()
    make_windows_hives(hives, kind, part)
    break_for_azure(hives, variant)
    store = work / "BCD"
    make_boot_store(store, kind, part)
    if variant is Variant.DIRTY_HIVE:
        faults.leave_hive_dirty(hives / "SYSTEM")
    elif variant is Variant.HIVE_BEHIND:
        faults.leave_hive_behind(hives / "SYSTEM", '[\\Imageport]\n"Name"="from the log"')
    loader = compile_loader(work)
    volume = work / "windows.ntfs"
    _make_volume(volume, _windows_files(variant, hives, store, loader), part)
    if variant is Variant.DIRTY_NTFS:
        faults.set_dirty_flag(volume, dirty=True)
    elif variant is Variant.BITLOCKER:
        faults.encrypt_as_bitlocker(volume)
    disk = _assemble(variant, volume, store, loader)
    volume.unlink()
    vhdx = work / "sample.vhdx"
    disk_image.make_vhdx(disk, vhdx)
    return vhdx


def _make_volume(volume: Path, files: Iterator[GuestFile], part: Partition) -> None:
    contents = volume.with_suffix(".tar")
    write_tar(contents, files)
    make_ntfs_volume(volume, contents, part)
    contents.unlink()


def _windows_files(variant: Variant, hives: Path, store: Path, loader: Path) -> Iterator[GuestFile]:
    yield from bulk_files(bulk_data(variant))
    yield from guest_files(guest_kind(variant), loader.read_bytes())
    for hive in sorted(hives.iterdir()):
        yield GuestFile(f"Windows/System32/config/{hive.name}", hive.read_bytes())
    if variant is Variant.MBR_ALONE:
        yield from boot_files(store)
    if variant is Variant.HIBERNATED:
        yield GuestFile("hiberfil.sys", faults.hibernation_file())


def boot_files(store: Path) -> Iterator[GuestFile]:
    """Yield what BIOS starts Windows from, on the active partition."""
    manager = b"\xe9\xd5\x01\xebBOOTMGR image of the sample"
    yield GuestFile("bootmgr", manager.ljust(4096, b"\0"))
    yield GuestFile("BOOTNXT", b"\0")
    yield GuestFile("Boot/BCD", store.read_bytes())
    yield GuestFile("Boot/memtest.exe", b"MZ memory test")
    yield GuestFile("Boot/Fonts/segoe_slboot.ttf", b"font")


def _assemble(variant: Variant, volume: Path, store: Path, loader: Path) -> Path:
    work = volume.parent
    disk = work / "disk.raw"
    part = windows_partition(variant)
    if variant is Variant.MBR_ALONE:
        disk_image.assemble_mbr(disk, [(part, volume)])
        return disk
    if variant is Variant.MBR:
        reserved = work / "reserved.ntfs"
        _make_volume(reserved, boot_files(store), SYSTEM_RESERVED)
        disk_image.assemble_mbr(disk, [(SYSTEM_RESERVED, reserved), (part, volume)])
        return disk
    esp = work / "esp.fat"
    make_efi_partition(esp, store, loader)
    if variant is Variant.NO_ESP_LOADER:
        remove_fallback_loader(esp)
    disk_image.assemble_gpt(disk, {ESP.number: esp, WINDOWS.number: volume})
    return disk


def main() -> None:
    """Build one image by name."""
    parser = argparse.ArgumentParser(description="Build the sample vDisk.")
    parser.add_argument("path", type=Path, help="The VHDX file to write.")
    parser.add_argument("variant", type=Variant, nargs="?", default=Variant.DEFAULT,
                        choices=list(Variant), help="Which image.")  # fmt: skip
    arguments = parser.parse_args()
    build_sample(arguments.path, arguments.variant)


if __name__ == "__main__":
    main()
