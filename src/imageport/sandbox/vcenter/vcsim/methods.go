package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// methodsAdded answers the calls that the simulator lacks or answers too kindly. Such a call is sent
// here whatever object it is for; its request still names that object.
type methodsAdded struct {
	// First: the simulator's searches look for it in every object there is, and panic without one.
	mo.ExtensibleManagedObject
	site    *site
	watched *snapshotWatch
}

// Lock and Unlock keep the simulator from letting one such call wait for another.
func (m *methodsAdded) Lock()   {}
func (m *methodsAdded) Unlock() {}

// added are the methods of methodsAdded; those of leases are in lease.go.
var added = map[string]bool{
	"QueryChangedDiskAreas":        true,
	"ExportSnapshot":               true,
	"HasPrivilegeOnEntities":       true,
	"HasPrivilegeOnEntity":         true,
	"HasUserPrivilegeOnEntities":   true,
	"FetchUserPrivilegeOnEntities": true,
	"AcquireGenericServiceTicket":  true,
}

func (s *site) addMethods() {
	ref := func(name string) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: "Added", Value: name}
	}
	watch := &snapshotWatch{
		Self: ref("snapshots"), site: s,
		held: map[types.ManagedObjectReference]map[int32]*layer{},
	}
	more := &methodsAdded{site: s, watched: watch}
	more.Self = ref("methods")
	s.registry.AddHandler(watch)
	s.registry.Put(more)
	s.registry.Handler = func(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		if method.Name == "RemoveSnapshot_Task" {
			s.keepFiles(ctx, method.This)
		}
		if ctx.Session == nil {
			return nil, nil
		}
		if fault := s.refusal(method); fault != nil {
			return nil, fault
		}
		if method.Name == "Logout" {
			key := ctx.Session.Key
			s.leases.failThose(s, func(l *lease) bool { return l.session == key }, "its session ended")
		}
		if added[method.Name] {
			method.This = more.Self
		}
		return nil, nil
	}
}

func (s *site) snapshots() *snapshotWatch {
	ref := types.ManagedObjectReference{Type: "Added", Value: "methods"}
	return s.registry.Get(ref).(*methodsAdded).watched
}
