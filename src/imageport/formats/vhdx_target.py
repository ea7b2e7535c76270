"""A block target that is a dynamic VHDX in a folder."""

from __future__ import annotations

import uuid

from imageport.formats._vhdx_new import is_own_file
from imageport.formats.file_target import WriterTarget, opened_as
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import Folder
from imageport.transfer.block_target import TargetTraits


class VhdxFileTarget(WriterTarget):
    """A dynamic VHDX in a folder, with the block size that PVS uses.

    ``sparse`` asks the server to keep holes inside payload blocks. It is off by default: Windows
    refuses to attach a VHDX that carries the sparse attribute, and what is not allocated takes no
    room in a dynamic VHDX anyway.
    """

    def __init__(
        self,
        folder: Folder,
        part_name: str,
        *,
        block_bytes: int = 32 * MIB,
        sector_bytes: int = 512,
        disk_id: uuid.UUID | None = None,
        sparse: bool = False,
    ) -> None:
        traits = TargetTraits("vhdx-file", unwritten_reads_zero=True, max_in_flight=8)
        super().__init__(folder, part_name, traits)
        self._block_bytes = block_bytes
        self._sector_bytes = sector_bytes
        self._disk_id = disk_id
        self._sparse = sparse

    def open_written(self) -> VhdxDisk:
        """Open the finished file for reading."""
        return opened_as(VhdxDisk, self._folder.open_read(self.part_name))

    def _begun_writer(self, file: WritableFile) -> VhdxWriter:
        if self._sparse:
            file.set_sparse()
        return VhdxWriter(
            file,
            self._size_bytes,
            block_bytes=self._block_bytes,
            sector_bytes=self._sector_bytes,
            disk_id=self._disk_id,
        )

    def _reopened_writer(self, file: WritableFile) -> VhdxWriter:
        return VhdxWriter.reopen(file)

    def _is_leftover(self, file: ByteFile) -> bool:
        # A finished one counts: it was sealed by a run that died before it was renamed. So does
        # one whose first sector a power cut left empty.
        head = file.read_at(0, min(512, file.size_bytes))
        return is_own_file(head) or not any(head)
