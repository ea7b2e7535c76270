package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Source: VMware, "Virtual Disk Format 5.0", sections on stream-optimized extents. Sectors are 512
// bytes; grains 64 KiB; a grain table has 512 entries and so speaks for 32 MiB.
const (
	sectorBytes    = 512
	grainSectors   = 128
	tableEntries   = 512
	tableSectors   = tableEntries * 4 / sectorBytes
	overhead       = 128 // sectors before the first grain; the descriptor lies in them
	descriptorFrom = 1
	descriptorSize = 20
	atTheEnd       = ^uint64(0) // the directory's place is in the footer

	markerEnd, markerTable, markerDirectory, markerFooter = 0, 1, 2, 3

	flagsStream   = 1 | 1<<16 | 1<<17 // newline test, compressed grains, markers
	versionStream = 3
)

// streamWriter encodes a disk as a stream-optimized VMDK while it is read: nothing is kept but the
// directory and one table.
type streamWriter struct {
	to        io.Writer
	sectors   uint64 // written so far
	capacity  uint64
	directory []uint32
	table     []uint32
	number    uint64 // of the table
	populated int64
}

// writeStream sends the disk as the layer ended it; it returns how many bytes of it had contents.
func writeStream(to io.Writer, d *disk, last *layer) (int64, error) {
	blocks, err := d.allocated(last)
	if err != nil {
		return 0, err
	}
	w := &streamWriter{to: to, capacity: uint64(d.size) / sectorBytes}
	tables := (w.capacity + grainSectors*tableEntries - 1) / (grainSectors * tableEntries)
	w.directory = make([]uint32, tables)
	if err := w.begin(); err != nil {
		return 0, err
	}
	grain := make([]byte, blockBytes)
	for _, block := range blocks {
		clear(grain)
		length := min(blockBytes, d.size-block*blockBytes)
		if err := d.readAt(last, grain[:length], block*blockBytes); err != nil {
			return 0, err
		}
		if err := w.grain(uint64(block), grain); err != nil {
			return 0, err
		}
		w.populated += length
	}
	return w.populated, w.finish()
}

func (w *streamWriter) begin() error {
	if err := w.sector(w.header(atTheEnd)); err != nil {
		return err
	}
	text := streamDescriptor(int64(w.capacity) * sectorBytes)
	return w.write(append([]byte(text), make([]byte, (overhead-1)*sectorBytes-len(text))...))
}

func (w *streamWriter) header(directory uint64) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, value := range values {
			_ = binary.Write(&b, binary.LittleEndian, value)
		}
	}
	put([]byte("KDMV"), uint32(versionStream), uint32(flagsStream))
	put(w.capacity, uint64(grainSectors), uint64(descriptorFrom), uint64(descriptorSize))
	put(uint32(tableEntries), uint64(0), directory, uint64(overhead))
	put(uint8(0), []byte("\n \r\n"), uint16(1))
	return b.Bytes()
}

// grain sends one grain; a new table begins when it is of the next one.
func (w *streamWriter) grain(number uint64, data []byte) error {
	if table := number / tableEntries; w.table == nil || table != w.number {
		if err := w.flushTable(); err != nil {
			return err
		}
		w.table, w.number = make([]uint32, tableEntries), table
	}
	w.table[number%tableEntries] = uint32(w.sectors)
	var packed bytes.Buffer
	_ = binary.Write(&packed, binary.LittleEndian, number*grainSectors)
	_ = binary.Write(&packed, binary.LittleEndian, uint32(0))
	// The fastest level: what is tested is the format.
	deflate, err := zlib.NewWriterLevel(&packed, zlib.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := deflate.Write(data); err != nil {
		return err
	}
	if err := deflate.Close(); err != nil {
		return err
	}
	all := packed.Bytes()
	binary.LittleEndian.PutUint32(all[8:], uint32(len(all)-12))
	return w.sector(all)
}

func (w *streamWriter) flushTable() error {
	if w.table == nil {
		return nil
	}
	if err := w.marker(markerTable, tableSectors); err != nil {
		return err
	}
	w.directory[w.number] = uint32(w.sectors)
	return w.numbers(w.table)
}

func (w *streamWriter) finish() error {
	if err := w.flushTable(); err != nil {
		return err
	}
	length := (uint64(len(w.directory))*4 + sectorBytes - 1) / sectorBytes
	if err := w.marker(markerDirectory, length); err != nil {
		return err
	}
	place := w.sectors
	if err := w.numbers(w.directory); err != nil {
		return err
	}
	if err := w.marker(markerFooter, 1); err != nil {
		return err
	}
	if err := w.sector(w.header(place)); err != nil {
		return err
	}
	return w.marker(markerEnd, 0)
}

func (w *streamWriter) marker(kind uint32, sectors uint64) error {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, sectors)
	_ = binary.Write(&b, binary.LittleEndian, uint32(0))
	_ = binary.Write(&b, binary.LittleEndian, kind)
	return w.sector(b.Bytes())
}

func (w *streamWriter) numbers(values []uint32) error {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, values)
	return w.sector(b.Bytes())
}

// sector sends bytes, filled up with zeros to whole sectors.
func (w *streamWriter) sector(data []byte) error {
	if over := len(data) % sectorBytes; over != 0 {
		data = append(data, make([]byte, sectorBytes-over)...)
	}
	return w.write(data)
}

func (w *streamWriter) write(data []byte) error {
	w.sectors += uint64(len(data)) / sectorBytes
	_, err := w.to.Write(data)
	return err
}

func streamDescriptor(size int64) string {
	return descriptor("streamOptimized", "", fmt.Sprintf(`RW %d SPARSE "disk.vmdk"`, size/sectorBytes), size)
}

func flatDescriptor(size int64, extent string) string {
	return descriptor("vmfs", "", fmt.Sprintf(`RW %d VMFS "%s"`, size/sectorBytes, extent), size)
}

func deltaDescriptor(size int64, extent, parent string) string {
	return descriptor("vmfsSparse", parent, fmt.Sprintf(`RW %d VMFSSPARSE "%s"`, size/sectorBytes, extent), size)
}

func descriptor(kind, parent, extent string, size int64) string {
	lines := []string{
		"# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff",
		`createType="` + kind + `"`,
	}
	if parent != "" {
		lines[3] = "parentCID=fffffffe"
		lines = append(lines, `parentFileNameHint="`+parent+`"`)
	}
	lines = append(lines,
		"", "# Extent description", extent,
		"", "# The Disk Data Base", "#DDB", "",
		`ddb.adapterType = "lsilogic"`,
		fmt.Sprintf(`ddb.geometry.cylinders = "%d"`, min(size/sectorBytes/255/63, 65535)),
		`ddb.geometry.heads = "255"`, `ddb.geometry.sectors = "63"`, `ddb.virtualHWVersion = "19"`, "",
	)
	return strings.Join(lines, "\n")
}
