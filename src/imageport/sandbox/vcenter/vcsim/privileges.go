package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// needed are the privileges that calls are refused without, as the API reference names them. The
// simulator grants all of them; here the knob “denied“ takes some away, for questions and for calls.
var needed = map[string]string{
	"ExportSnapshot":        "VApp.Export",
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"CreateSnapshotEx_Task": "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
}

func (s *site) granted(privilege string) bool {
	return !slices.Contains(s.knobs.get().Denied, privilege)
}

func (s *site) refusal(method *simulator.Method) types.BaseMethodFault {
	privilege, some := needed[method.Name]
	if !some || s.granted(privilege) {
		return nil
	}
	return &types.NoPermission{Object: &method.This, PrivilegeId: privilege}
}

func (m *methodsAdded) available(ids []string) []types.PrivilegeAvailability {
	found := make([]types.PrivilegeAvailability, len(ids))
	for i, id := range ids {
		found[i] = types.PrivilegeAvailability{PrivId: id, IsGranted: m.site.granted(id)}
	}
	return found
}

func (m *methodsAdded) privileges(entities []types.ManagedObjectReference, ids []string) []types.EntityPrivilege {
	found := make([]types.EntityPrivilege, len(entities))
	for i, entity := range entities {
		found[i] = types.EntityPrivilege{Entity: entity, PrivAvailability: m.available(ids)}
	}
	return found
}

// HasPrivilegeOnEntities tells what a session may do.
func (m *methodsAdded) HasPrivilegeOnEntities(ctx *simulator.Context, req *types.HasPrivilegeOnEntities) soap.HasFault {
	return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{
		Returnval: m.privileges(req.Entity, req.PrivId),
	}}
}

// HasUserPrivilegeOnEntities tells what a user may do.
func (m *methodsAdded) HasUserPrivilegeOnEntities(ctx *simulator.Context, req *types.HasUserPrivilegeOnEntities) soap.HasFault {
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{
		Returnval: m.privileges(req.Entities, req.PrivId),
	}}
}

// HasPrivilegeOnEntity is the older question about one entity.
func (m *methodsAdded) HasPrivilegeOnEntity(ctx *simulator.Context, req *types.HasPrivilegeOnEntity) soap.HasFault {
	found := make([]bool, len(req.PrivId))
	for i, id := range req.PrivId {
		found[i] = m.site.granted(id)
	}
	return &methods.HasPrivilegeOnEntityBody{Res: &types.HasPrivilegeOnEntityResponse{Returnval: found}}
}

// FetchUserPrivilegeOnEntities lists all that a user may do.
func (m *methodsAdded) FetchUserPrivilegeOnEntities(ctx *simulator.Context, req *types.FetchUserPrivilegeOnEntities) soap.HasFault {
	manager := m.site.registry.Get(req.This).(*simulator.AuthorizationManager)
	all := allPrivileges(&manager.AuthorizationManager)
	have := slices.DeleteFunc(all, func(id string) bool { return !m.site.granted(id) })
	var found []types.UserPrivilegeResult
	for _, entity := range req.Entities {
		found = append(found, types.UserPrivilegeResult{Entity: entity, Privileges: have})
	}
	return &methods.FetchUserPrivilegeOnEntitiesBody{Res: &types.FetchUserPrivilegeOnEntitiesResponse{
		Returnval: found,
	}}
}

func allPrivileges(manager *mo.AuthorizationManager) []string {
	for _, role := range manager.RoleList {
		if role.Name == "Admin" {
			return slices.Clone(role.Privilege)
		}
	}
	return nil
}
