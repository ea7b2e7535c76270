package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// lease is an export lease as vCenter has them. Beyond the simulator's: it takes a moment to be ready;
// without HttpNfcLeaseProgress it goes to “error“ after its timeout, and its URLs are gone (downloading
// renews nothing); it ends with its session and with its snapshot; its manifest knows what was sent.
type lease struct {
	mo.HttpNfcLease
	site     *site
	session  string
	snapshot types.ManagedObjectReference
	files    map[string]*leaseFile // by the last part of the URL

	mu      sync.Mutex
	open    bool
	expires time.Time
	sum     string // checksum type of the manifest
}

// leaseFile is what one URL of a lease sends.
type leaseFile struct {
	key     string
	content *disk // nil when it is no disk
	last    *layer
	plain   []byte
	sent    *sentFile // of the last download that came to its end
}

type sentFile struct {
	size, populated int64
	sha1, sha256    []byte
}

type leaseTable struct {
	mu   sync.Mutex
	open map[string]*lease
}

func newLeaseTable() *leaseTable { return &leaseTable{open: map[string]*lease{}} }

func (t *leaseTable) all() []*lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*lease
	for _, one := range t.open {
		found = append(found, one)
	}
	return found
}

// find returns the file behind the two last parts of an URL, while the lease is open.
func (t *leaseTable) find(id, name string) (*lease, *leaseFile) {
	t.mu.Lock()
	one := t.open[id]
	t.mu.Unlock()
	if one == nil || !one.isOpen() {
		return nil, nil
	}
	return one, one.files[name]
}

func (t *leaseTable) failThose(s *site, chosen func(*lease) bool, reason string) int {
	count := 0
	for _, one := range t.all() {
		if chosen(one) && one.isOpen() {
			one.fail(&types.SystemError{Reason: reason}, reason)
			count++
		}
	}
	return count
}

// ExportSnapshot makes a lease for all disks of the snapshot, and the file that is none.
func (m *methodsAdded) ExportSnapshot(ctx *simulator.Context, req *types.ExportSnapshot) soap.HasFault {
	body := &methods.ExportSnapshotBody{}
	snapshot, ok := m.site.registry.Get(req.This).(*simulator.VirtualMachineSnapshot)
	if !ok || !m.watched.holds(req.This) {
		body.Fault_ = simulator.Fault("", &types.ManagedObjectNotFound{Obj: req.This})
		return body
	}
	id := uuid.NewString()
	made := &lease{
		site: m.site, session: ctx.Session.Key, snapshot: req.This, files: map[string]*leaseFile{},
		open: true, sum: "sha1",
	}
	made.Self = types.ManagedObjectReference{Type: "HttpNfcLease", Value: "session[" + made.session + "]" + id}
	made.State = types.HttpNfcLeaseStateInitializing
	made.Mode = string(types.HttpNfcLeaseModePushOrGet)
	made.renew()
	info := made.describe(id, snapshot)
	m.site.leases.mu.Lock()
	m.site.leases.open[id] = made
	m.site.leases.mu.Unlock()
	m.site.registry.Put(made)
	go made.live(id, info)
	body.Res = &types.ExportSnapshotResponse{Returnval: made.Self}
	return body
}

// describe fills the files and returns what the lease says of them.
func (l *lease) describe(id string, snapshot *simulator.VirtualMachineSnapshot) *types.HttpNfcLeaseInfo {
	knobs := l.site.knobs.get()
	info := &types.HttpNfcLeaseInfo{
		Lease: l.Self, Entity: snapshot.Vm, LeaseTimeout: int32(math.Ceil(knobs.LeaseTimeoutSeconds)),
	}
	host := l.site.address
	if knobs.StarHost {
		host = "*" + host[strings.LastIndex(host, ":"):]
	}
	add := func(key, name string, file *leaseFile) {
		file.key = key
		l.files[name] = file
		info.DeviceUrl = append(info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: key, ImportKey: key, TargetId: name, SslThumbprint: l.site.identity.thumbprint(),
			Url:  fmt.Sprintf("https://%s/nfc/%s/%s", host, id, name),
			Disk: types.NewBool(file.content != nil), FileSize: int64(len(file.plain)),
		})
	}
	add("/"+snapshot.Vm.Value+"/nvram", "nvram", &leaseFile{plain: make([]byte, 8684)})
	devices := object.VirtualDeviceList(snapshot.Config.Hardware.Device)
	for i, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		one := device.(*types.VirtualDisk)
		content, last := l.site.snapshots().layerOf(l.snapshot, one.Key)
		if content == nil {
			continue
		}
		info.TotalDiskCapacityInKB += content.size / 1024
		add(deviceName(snapshot.Vm, devices, one), fmt.Sprintf("disk-%d.vmdk", i),
			&leaseFile{content: content, last: last})
	}
	return info
}

// live makes the lease ready after a moment, and ends it when nobody renews it.
func (l *lease) live(id string, info *types.HttpNfcLeaseInfo) {
	time.Sleep(l.site.knobs.get().readyAfter())
	l.update(types.HttpNfcLeaseStateReady, types.PropertyChange{Name: "info", Val: info})
	for l.isOpen() {
		l.mu.Lock()
		left := time.Until(l.expires)
		l.mu.Unlock()
		if left <= 0 {
			l.fail(&types.Timedout{}, "the lease timed out")
			break
		}
		time.Sleep(min(left, 100*time.Millisecond))
	}
	l.site.leases.mu.Lock()
	delete(l.site.leases.open, id)
	l.site.leases.mu.Unlock()
}

func (l *lease) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func (l *lease) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expires = time.Now().Add(time.Duration(l.site.knobs.get().LeaseTimeoutSeconds * float64(time.Second)))
}

// close tells whether it was open until now.
func (l *lease) close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.open
	l.open = false
	return was
}

func (l *lease) fail(fault types.BaseMethodFault, message string) {
	if l.close() {
		l.update(types.HttpNfcLeaseStateError, types.PropertyChange{
			Name: "error", Val: &types.LocalizedMethodFault{Fault: fault, LocalizedMessage: message},
		})
	}
}

// update changes what clients see, but nothing of a lease that ended.
func (l *lease) update(state types.HttpNfcLeaseState, more types.PropertyChange) {
	if state == types.HttpNfcLeaseStateReady && !l.isOpen() {
		return
	}
	ctx := &simulator.Context{Context: l.site.service.Context, Map: l.site.registry}
	l.site.registry.AtomicUpdate(ctx, l, []types.PropertyChange{{Name: "state", Val: state}, more})
}

// state returns the fault of a call that needs a ready lease.
func (l *lease) refused() *soap.Fault {
	if l.isOpen() && l.State == types.HttpNfcLeaseStateReady {
		return nil
	}
	return simulator.Fault("the lease is "+string(l.State), &types.InvalidState{})
}

// HttpNfcLeaseProgress keeps the lease alive.
func (l *lease) HttpNfcLeaseProgress(ctx *simulator.Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	body := &methods.HttpNfcLeaseProgressBody{Fault_: l.refused()}
	if body.Fault_ == nil && (req.Percent < 0 || req.Percent > 100) {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "percent"})
	}
	if body.Fault_ == nil {
		l.TransferProgress = req.Percent
		l.renew()
		body.Res = &types.HttpNfcLeaseProgressResponse{}
	}
	return body
}

// HttpNfcLeaseComplete ends a lease that was used to its end.
func (l *lease) HttpNfcLeaseComplete(ctx *simulator.Context, req *types.HttpNfcLeaseComplete) soap.HasFault {
	body := &methods.HttpNfcLeaseCompleteBody{Fault_: l.refused()}
	if body.Fault_ == nil {
		l.end(ctx)
		body.Res = &types.HttpNfcLeaseCompleteResponse{}
	}
	return body
}

// HttpNfcLeaseAbort ends a lease that is not wanted any more.
func (l *lease) HttpNfcLeaseAbort(ctx *simulator.Context, req *types.HttpNfcLeaseAbort) soap.HasFault {
	body := &methods.HttpNfcLeaseAbortBody{}
	if !l.isOpen() {
		body.Fault_ = l.refused()
		return body
	}
	l.end(ctx)
	body.Res = &types.HttpNfcLeaseAbortResponse{}
	return body
}

func (l *lease) end(ctx *simulator.Context) {
	l.close()
	ctx.Update(l, []types.PropertyChange{{Name: "state", Val: types.HttpNfcLeaseStateDone}})
	l.site.registry.Remove(ctx, l.Self)
}

// HttpNfcLeaseSetManifestChecksumType chooses the manifest's checksum, the same for all files here.
func (l *lease) HttpNfcLeaseSetManifestChecksumType(
	ctx *simulator.Context, req *types.HttpNfcLeaseSetManifestChecksumType,
) soap.HasFault {
	body := &methods.HttpNfcLeaseSetManifestChecksumTypeBody{Fault_: l.refused()}
	for _, one := range req.DeviceUrlsToChecksumTypes {
		if one.Value != "sha1" && one.Value != "sha256" {
			body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "deviceUrlsToChecksumTypes"})
		} else {
			l.sum = one.Value
		}
	}
	if body.Fault_ == nil {
		body.Res = &types.HttpNfcLeaseSetManifestChecksumTypeResponse{}
	}
	return body
}

// HttpNfcLeaseGetManifest says what was sent to the end; the simulator knows it of uploads only.
func (l *lease) HttpNfcLeaseGetManifest(ctx *simulator.Context, req *types.HttpNfcLeaseGetManifest) soap.HasFault {
	body := &methods.HttpNfcLeaseGetManifestBody{Fault_: l.refused()}
	if body.Fault_ != nil {
		return body
	}
	body.Res = &types.HttpNfcLeaseGetManifestResponse{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, file := range l.files {
		if file.sent == nil {
			continue
		}
		entry := types.HttpNfcLeaseManifestEntry{
			Key: file.key, Sha1: hex.EncodeToString(file.sent.sha1), Size: file.sent.size,
			Disk: file.content != nil, ChecksumType: l.sum, Checksum: hex.EncodeToString(file.sent.sha1),
		}
		if l.sum == "sha256" {
			entry.Checksum = hex.EncodeToString(file.sent.sha256)
		}
		if file.content != nil {
			entry.Capacity, entry.PopulatedSize = file.content.size, file.sent.populated
		}
		if spoilt := l.site.knobs.get().spoil(entry); spoilt != nil {
			body.Res.Returnval = append(body.Res.Returnval, *spoilt)
		}
	}
	return body
}
