"""Block targets that are VHD files in a folder, dynamic or fixed."""

from __future__ import annotations

from imageport.errors import InputError
from imageport.formats import _vhd_layout as layout
from imageport.formats._vhd_new import is_own
from imageport.formats.file_target import DiskWriter, WriterTarget, opened_as
from imageport.formats.vhd import VhdDisk
from imageport.formats.vhd_fixed_writer import FixedVhdWriter
from imageport.formats.vhd_writer import VhdWriter
from imageport.model import MIB
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import Folder
from imageport.transfer.block_target import TargetTraits


class VhdFileTarget(WriterTarget):
    """A dynamic VHD in a folder, with the block size that PVS makes by default.

    Raises `InputError` for a disk of other sectors than the 512 bytes that VHD knows, and on
    `begin` for one above 2040 GiB.
    """

    _traits_name = "vhd-file"

    def __init__(
        self,
        folder: Folder,
        part_name: str,
        *,
        block_bytes: int = 2 * MIB,
        sector_bytes: int = layout.SECTOR_BYTES,
    ) -> None:
        traits = TargetTraits(self._traits_name, unwritten_reads_zero=True, max_in_flight=8)
        super().__init__(folder, part_name, traits)
        if sector_bytes != layout.SECTOR_BYTES:
            raise InputError(
                f"Cannot create VHD '{self._location}': found a disk of sectors of "
                f"{sector_bytes} bytes, needed 512: VHD knows no others.",
                hint="Write a VHDX.",
            )
        self._block_bytes = block_bytes

    def open_written(self) -> VhdDisk:
        """Open the finished file for reading."""
        return opened_as(VhdDisk, self._folder.open_read(self.part_name))

    def _begun_writer(self, file: WritableFile) -> DiskWriter:
        return VhdWriter(file, self._size_bytes, block_bytes=self._block_bytes)

    def _reopened_writer(self, file: WritableFile) -> DiskWriter:
        return VhdWriter.reopen(file)

    def _is_leftover(self, file: ByteFile) -> bool:
        # A finished one counts: it was sealed by a run that died before it was renamed. So does
        # one whose first sector a power cut left empty.
        head = file.read_at(0, min(layout.FOOTER_BYTES, file.size_bytes))
        return is_own(head) or not any(head)


class FixedVhdFileTarget(VhdFileTarget):
    """A fixed VHD in a folder; where the file system keeps holes by itself, they stay holes.

    No sparse mark is set: Windows does not attach a VHD that carries it. NTFS gives such a file
    all its room at once.
    """

    _traits_name = "fixed-vhd-file"

    @property
    def flat_file(self) -> WritableFile | None:
        """Return the part file while it is open: the footer lies behind the disk."""
        return self._file

    def _begun_writer(self, file: WritableFile) -> DiskWriter:
        return FixedVhdWriter(file, self._size_bytes)

    def _reopened_writer(self, file: WritableFile) -> DiskWriter:
        return FixedVhdWriter.reopen(file)

    def _is_leftover(self, file: ByteFile) -> bool:
        # Killed between its two first writes it has no mark yet, and nothing in it either.
        if not file.allocated_ranges():
            return True
        at = max(0, file.size_bytes - layout.FOOTER_BYTES)
        return is_own(file.read_at(at, file.size_bytes - at))
