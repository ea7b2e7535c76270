package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// QueryChangedDiskAreas is what the simulator lacks: which areas differ between two moments.
//
// As vCenter: the answer is a slice that begins at startOffset and ends before the areas that did not
// fit, so one asks again where it ended; a disk that was not tracked when the snapshot was taken is a
// FileFault; a changeId that this disk never gave, or a later one, an InvalidArgument; "*" are the
// areas that are allocated. Areas are multiples of 64 KiB, cut at the end of the disk.
func (m *methodsAdded) QueryChangedDiskAreas(ctx *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	refuse := func(fault types.BaseMethodFault) soap.HasFault {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	if req.Snapshot == nil {
		return refuse(&types.InvalidArgument{InvalidProperty: "snapshot"})
	}
	content, last := m.site.snapshots().layerOf(*req.Snapshot, req.DeviceKey)
	if content == nil || m.site.machineOf(req.This) == nil ||
		m.site.machineOf(req.This).disks[req.DeviceKey] != content {
		return refuse(&types.InvalidArgument{InvalidProperty: "deviceKey"})
	}
	if req.StartOffset < 0 || req.StartOffset >= content.size {
		return refuse(&types.InvalidArgument{InvalidProperty: "startOffset"})
	}
	snapshot := m.site.registry.Get(*req.Snapshot).(*simulator.VirtualMachineSnapshot)
	backing := backingOf(snapshot.Config.Hardware.Device, req.DeviceKey)
	if backing.ChangeId == "" {
		return refuse(&types.FileFault{File: backing.FileName})
	}
	blocks, known, err := content.changed(req.ChangeId, backing.ChangeId, last)
	if err != nil {
		return refuse(&types.FileFault{File: backing.FileName})
	}
	if !known {
		return refuse(&types.InvalidArgument{InvalidProperty: "changeId"})
	}
	body.Res = &types.QueryChangedDiskAreasResponse{
		Returnval: slice(blocks, req.StartOffset, content.size, m.site.knobs.get().AreasPerAnswer),
	}
	return body
}

// changed returns the blocks written from the moment of one changeId to that of another.
func (d *disk) changed(since, until string, last *layer) ([]int64, bool, error) {
	if since == "*" {
		blocks, err := d.allocated(last)
		return blocks, true, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	from, known := d.issued[since]
	to := d.issued[until]
	if !known || from > to {
		return nil, false, nil
	}
	var found []int64
	for _, epoch := range d.written[from:to] {
		for block := range epoch {
			found = append(found, block)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), true, nil
}

// slice returns the areas from an offset on, at most so many, and how far they speak for the disk.
func slice(blocks []int64, start, size int64, most int) types.DiskChangeInfo {
	answer := types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, block := range blocks {
		from, to := max(block*blockBytes, start), min((block+1)*blockBytes, size)
		if to <= start {
			continue
		}
		if n := len(answer.ChangedArea); n > 0 {
			area := &answer.ChangedArea[n-1]
			if area.Start+area.Length == from {
				area.Length = to - area.Start
				continue
			}
			if n == most {
				answer.Length = from - start
				break
			}
		}
		answer.ChangedArea = append(answer.ChangedArea, types.DiskChangeExtent{Start: from, Length: to - from})
	}
	return answer
}
