package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

const (
	flatSuffix = "-flat.vmdk"
	// trackSuffix marks a file that changes when a guest wrote to a delta: see freshTrack.
	trackSuffix = "-flat.vmdk.track"
	// blockBytes is what change tracking counts in, and the least that a delta takes from its parent.
	blockBytes = 64 * 1024
	seekData   = 3 // lseek(2)
	seekHole   = 4
)

// layer is one file of a disk's chain: the flat base, or a delta that holds the blocks written to it.
//
// A delta's file is sparse and as long as the disk; its blocks are known in memory only, so deltas end
// with the program. On a real datastore it has a format of its own: its bytes mean nothing to clients.
type layer struct {
	name   string // datastore path of its descriptor
	path   string // of the extent in the file system
	file   *os.File
	blocks map[int64]bool // nil for the base, which has them all
}

// disk is the contents of a virtual disk: a chain of layers, the last of which the guest writes.
type disk struct {
	size   int64
	folder string // of the datastore, in the file system

	mu      sync.RWMutex
	layers  []*layer
	deltas  int              // how many were ever made
	track   string           // what changeIds of this disk begin with
	written []map[int64]bool // by epoch: the blocks that were written; a snapshot begins an epoch
	issued  map[string]int   // changeId → its epoch
}

// openDisk reads a flat file below the datastore's folder and writes its descriptor beside it.
func openDisk(folder, datastore, flat string) (*disk, error) {
	if !strings.HasSuffix(flat, flatSuffix) {
		return nil, fmt.Errorf("bad disk %s: needed a name that ends with %s", flat, flatSuffix)
	}
	where := filepath.Join(folder, flat)
	file, err := os.OpenFile(where, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	facts, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if facts.Size() == 0 || facts.Size()%sectorBytes != 0 {
		return nil, fmt.Errorf("bad disk %s: found %d bytes, needed whole sectors", flat, facts.Size())
	}
	descriptor := strings.TrimSuffix(flat, flatSuffix) + ".vmdk"
	text := flatDescriptor(facts.Size(), filepath.Base(flat))
	if err := os.WriteFile(filepath.Join(folder, descriptor), []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &disk{
		size: facts.Size(), folder: folder, issued: map[string]int{}, written: []map[int64]bool{{}},
		layers: []*layer{{
			name: fmt.Sprintf("[%s] %s", datastore, descriptor), path: where, file: file,
		}},
	}
	d.track, err = freshTrack(where, facts)
	return d, err
}

// freshTrack returns what this content's changeIds begin with. A program that was started again knows
// nothing of the deltas that it had: were the ids the same, a client would take other bytes for known.
func freshTrack(flat string, facts os.FileInfo) (string, error) {
	mark, err := os.ReadFile(strings.TrimSuffix(flat, flatSuffix) + trackSuffix)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	text := fmt.Sprintf("%s %d %d %x", flat, facts.Size(), facts.ModTime().UnixNano(), mark)
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("% x-% x", sum[:8], sum[8:16]), nil
}

func (d *disk) top() *layer { return d.layers[len(d.layers)-1] }

// write is what the guest does: it changes the last layer only.
func (d *disk) write(data []byte, offset int64) error {
	if offset < 0 || offset+int64(len(data)) > d.size {
		return fmt.Errorf("bad write: found %d bytes at %d, needed to end by %d", len(data), offset, d.size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.markWritten(); err != nil {
		return err
	}
	for at := offset; at < offset+int64(len(data)); {
		block := at / blockBytes
		end := min((block+1)*blockBytes, offset+int64(len(data)))
		if err := d.fillBlock(block); err != nil {
			return err
		}
		if _, err := d.top().file.WriteAt(data[at-offset:end-offset], at); err != nil {
			return err
		}
		d.written[len(d.written)-1][block] = true
		at = end
	}
	return nil
}

// markWritten makes the next start of the program give other changeIds.
func (d *disk) markWritten() error {
	if len(d.layers) == 1 {
		return nil // the flat file's time says it
	}
	mark := make([]byte, 16)
	if _, err := rand.Read(mark); err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(d.layers[0].path, flatSuffix)+trackSuffix, mark, 0o600)
}

// fillBlock gives the last layer a block of its own before a part of it is written.
func (d *disk) fillBlock(block int64) error {
	top := d.top()
	if top.blocks == nil || top.blocks[block] {
		return nil
	}
	whole := make([]byte, min(blockBytes, d.size-block*blockBytes))
	if err := d.readLayers(len(d.layers), whole, block*blockBytes); err != nil {
		return err
	}
	if _, err := top.file.WriteAt(whole, block*blockBytes); err != nil {
		return err
	}
	top.blocks[block] = true
	return nil
}

// readAt fills data as the disk was when the layer was the last one.
func (d *disk) readAt(last *layer, data []byte, offset int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for i, one := range d.layers {
		if one == last {
			return d.readLayers(i+1, data, offset)
		}
	}
	return errors.New("the snapshot's disk is gone")
}

func (d *disk) readLayers(count int, data []byte, offset int64) error {
	for done := 0; done < len(data); {
		at := offset + int64(done)
		piece := data[done:min(int64(len(data)), int64(done)+blockBytes-at%blockBytes)]
		if _, err := d.holder(count, at/blockBytes).file.ReadAt(piece, at); err != nil {
			return err
		}
		done += len(piece)
	}
	return nil
}

// holder returns the layer that has a block, of the first “count“.
func (d *disk) holder(count int, block int64) *layer {
	for i := count - 1; i > 0; i-- {
		if d.layers[i].blocks[block] {
			return d.layers[i]
		}
	}
	return d.layers[0]
}

// allocated returns the blocks that any layer up to “last“ has something in, ascending.
func (d *disk) allocated(last *layer) ([]int64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	count := (d.size + blockBytes - 1) / blockBytes
	has := make([]bool, count)
	if err := markData(d.layers[0].file, d.size, has); err != nil {
		return nil, err
	}
	for _, one := range d.layers {
		for block := range one.blocks {
			has[block] = true
		}
		if one == last {
			break
		}
	}
	var found []int64
	for block, yes := range has {
		if yes {
			found = append(found, int64(block))
		}
	}
	return found, nil
}

func markData(file *os.File, size int64, has []bool) error {
	for at := int64(0); at < size; {
		from, err := file.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) { // only a hole is left
			return nil
		}
		if err != nil {
			return err
		}
		to, err := file.Seek(from, seekHole)
		if err != nil {
			return err
		}
		for block := from / blockBytes; block <= (to-1)/blockBytes; block++ {
			has[block] = true
		}
		at = to
	}
	return nil
}
