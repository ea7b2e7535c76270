package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// snapshotWatch gives snapshots the disks that the simulator's have not: a snapshot freezes the last
// layer of each disk and puts a delta on it, so what an export reads is what was there at that time;
// removing one merges the delta above into it. Chains are lines: nothing is reverted.
type snapshotWatch struct {
	Self types.ManagedObjectReference
	site *site

	mu   sync.Mutex
	held map[types.ManagedObjectReference]map[int32]*layer // snapshot → device key → its last layer
}

func (w *snapshotWatch) Reference() types.ManagedObjectReference { return w.Self }

// PutObject is called while the machine is locked by the task that takes the snapshot.
func (w *snapshotWatch) PutObject(ctx *simulator.Context, item mo.Reference) {
	snapshot, ok := item.(*simulator.VirtualMachineSnapshot)
	if !ok {
		return
	}
	one := w.site.machineOf(snapshot.Vm)
	if one == nil {
		return
	}
	vm := w.site.vm(snapshot.Vm)
	tracked := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	frozen := map[int32]*layer{}
	for key, content := range one.disks {
		changeID, below, err := content.freeze()
		if err != nil {
			log.Printf("cannot freeze disk %d of %s: %s", key, vm.Name, err)
			continue
		}
		frozen[key] = below
		if tracked {
			content.issue(changeID)
			backingOf(snapshot.Config.Hardware.Device, key).ChangeId = changeID
		}
		backing := backingOf(vm.Config.Hardware.Device, key)
		parent := *backing
		backing.Parent = &parent
		backing.FileName = content.top().name
		backing.ChangeId = ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[snapshot.Self] = frozen
}

// UpdateObject belongs to the interface; nothing follows from other changes.
func (w *snapshotWatch) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}

// RemoveObject ends the exports of a snapshot and merges what is above it into its layer.
func (w *snapshotWatch) RemoveObject(ctx *simulator.Context, ref types.ManagedObjectReference) {
	w.mu.Lock()
	frozen, ok := w.held[ref]
	delete(w.held, ref)
	w.mu.Unlock()
	if !ok {
		return
	}
	w.site.leases.failThose(w.site, func(l *lease) bool { return l.snapshot == ref }, "its snapshot was removed")
	for _, one := range w.site.machines {
		for key, content := range one.disks {
			if below := frozen[key]; below != nil && content.has(below) {
				gone, err := content.merge(below)
				if err != nil {
					log.Printf("cannot merge disk %d: %s", key, err)
					continue
				}
				w.rename(one, key, gone, below)
			}
		}
	}
}

// keepFiles lets the simulator delete no file with a snapshot: it finds them by numbers that it has
// given out again by then, and so deletes a disk after some dozen snapshots.
func (s *site) keepFiles(ctx *simulator.Context, ref types.ManagedObjectReference) {
	if snapshot, ok := s.registry.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
		vm := s.vm(snapshot.Vm)
		ctx.WithLock(vm, func() { vm.LayoutEx.Snapshot = nil })
	}
}

// rename lets whoever had the layer that is gone have the one that it was merged into.
func (w *snapshotWatch) rename(one *machine, key int32, gone, into *layer) {
	shorten := func(devices []types.BaseVirtualDevice) {
		for at := backingOf(devices, key); at != nil; at = at.Parent {
			if at.FileName == gone.name {
				at.FileName = into.name
				if at.Parent != nil {
					at.Parent = at.Parent.Parent
				}
			}
		}
	}
	shorten(w.site.vm(one.ref).Config.Hardware.Device)
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref, frozen := range w.held {
		if frozen[key] == gone {
			frozen[key] = into
		}
		if snapshot, ok := w.site.registry.Get(ref).(*simulator.VirtualMachineSnapshot); ok && snapshot.Vm == one.ref {
			shorten(snapshot.Config.Hardware.Device)
		}
	}
}

// holds tells whether a snapshot has disks: one that is being removed has none any more.
func (w *snapshotWatch) holds(ref types.ManagedObjectReference) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[ref] != nil
}

// layerOf returns the disk's contents and the layer that a snapshot froze, or nils.
func (w *snapshotWatch) layerOf(ref types.ManagedObjectReference, key int32) (*disk, *layer) {
	w.mu.Lock()
	frozen := w.held[ref]
	w.mu.Unlock()
	snapshot, ok := w.site.registry.Get(ref).(*simulator.VirtualMachineSnapshot)
	if frozen == nil || !ok || frozen[key] == nil {
		return nil, nil
	}
	return w.site.machineOf(snapshot.Vm).disks[key], frozen[key]
}

func backingOf(devices []types.BaseVirtualDevice, key int32) *types.VirtualDiskFlatVer2BackingInfo {
	device, ok := object.VirtualDeviceList(devices).FindByKey(key).(*types.VirtualDisk)
	if !ok {
		return nil
	}
	return device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
}

// freeze puts a delta on the chain; it returns the changeId of this moment and the layer below.
func (d *disk) freeze() (string, *layer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	below := d.top()
	d.deltas++
	base := strings.TrimSuffix(d.layers[0].path, flatSuffix)
	number := fmt.Sprintf("-%06d", d.deltas)
	file, err := os.OpenFile(base+number+"-delta.vmdk", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := file.Truncate(d.size); err != nil {
		return "", nil, err
	}
	text := deltaDescriptor(d.size, filepath.Base(base)+number+"-delta.vmdk", filepath.Base(below.name))
	if err := os.WriteFile(base+number+".vmdk", []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	d.layers = append(d.layers, &layer{
		name: strings.TrimSuffix(d.layers[0].name, ".vmdk") + number + ".vmdk",
		path: file.Name(), file: file, blocks: map[int64]bool{},
	})
	changeID := fmt.Sprintf("%s/%d", d.track, len(d.written))
	d.written = append(d.written, map[int64]bool{})
	return changeID, below, nil
}

func (d *disk) issue(changeID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.issued[changeID] = len(d.written) - 1
}

func (d *disk) has(wanted *layer) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, one := range d.layers {
		if one == wanted {
			return true
		}
	}
	return false
}

// merge writes the delta above “into“ into it and returns the delta, which is gone.
func (d *disk) merge(into *layer) (*layer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := 0
	for d.layers[at] != into {
		at++
	}
	above := d.layers[at+1]
	piece := make([]byte, blockBytes)
	for block := range above.blocks {
		data := piece[:min(blockBytes, d.size-block*blockBytes)]
		if _, err := above.file.ReadAt(data, block*blockBytes); err != nil {
			return nil, err
		}
		if _, err := into.file.WriteAt(data, block*blockBytes); err != nil {
			return nil, err
		}
		if into.blocks != nil {
			into.blocks[block] = true
		}
	}
	d.layers = append(d.layers[:at+1], d.layers[at+2:]...)
	_ = above.file.Close()
	_ = os.Remove(above.path)
	_ = os.Remove(strings.TrimSuffix(above.path, "-delta.vmdk") + ".vmdk")
	return above, nil
}
