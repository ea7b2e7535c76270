package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// inventory is the JSON file that says what the vCenter has.
type inventory struct {
	InstanceUUID string        `json:"instance_uuid"` // what the vCenter calls itself for good
	Datastore    string        `json:"datastore"`     // its name
	Machines     []machineSpec `json:"machines"`
}

type machineSpec struct {
	Name           string     `json:"name"`
	Folder         string     `json:"folder"` // below the datacenter's "vm"; made when missing
	Firmware       string     `json:"firmware"`
	PoweredOn      bool       `json:"powered_on"`
	ChangeTracking bool       `json:"change_tracking"`
	Disks          []diskSpec `json:"disks"`
	Snapshots      []string   `json:"snapshots"` // taken at the start, oldest first
}

type diskSpec struct {
	Flat       string `json:"flat"`       // NAME-flat.vmdk in the datastore; its length is the capacity
	Controller string `json:"controller"` // pvscsi (default), lsilogic, lsilogic-sas, nvme or sata
	Bus        int32  `json:"bus"`
	Unit       int32  `json:"unit"`
	Boot       bool   `json:"boot"` // named by the machine's boot order
}

// machine is a virtual machine with the contents of its disks.
type machine struct {
	ref   types.ManagedObjectReference
	disks map[int32]*disk // by device key
}

func readInventory(file string) (inventory, error) {
	var found inventory
	text, err := os.ReadFile(file)
	if err != nil {
		return found, err
	}
	if err := strictly(text, &found); err != nil {
		return found, fmt.Errorf("bad inventory %s: %w", file, err)
	}
	return found, nil
}

// build makes datacenter DC0 with one cluster of one host, the datastore and the machines.
func (s *site) build() error {
	s.model = simulator.VPX()
	s.model.Host, s.model.Machine, s.model.Datastore, s.model.Portgroup = 0, 0, 0, 0
	s.model.ClusterHost = 1
	about := &s.model.ServiceContent.About
	about.InstanceUuid = s.inventory.InstanceUUID
	// The simulator says 6.5, to which clients would not send what came later.
	about.ApiVersion, about.Version, about.Build = "8.0.2.0", "8.0.2", "22617221"
	about.FullName = "VMware vCenter Server 8.0.2 build-22617221 (simulated)"
	if err := s.model.Create(); err != nil {
		return err
	}
	s.service = s.model.Service
	s.registry = s.service.Context.Map
	s.addMethods()
	client, err := vim25.NewClient(context.Background(), s.service)
	if err != nil {
		return err
	}
	if err := s.mountDatastore(client); err != nil {
		return err
	}
	for _, spec := range s.inventory.Machines {
		if err := s.addMachine(client, spec); err != nil {
			return fmt.Errorf("machine %s: %w", spec.Name, err)
		}
	}
	return s.takeSnapshots(client)
}

func (s *site) mountDatastore(client *vim25.Client) error {
	ref := s.registry.Any("HostSystem").Reference()
	system, err := object.NewHostSystem(client, ref).ConfigManager().DatastoreSystem(context.Background())
	if err != nil {
		return err
	}
	_, err = system.CreateLocalDatastore(context.Background(), s.inventory.Datastore, s.folder)
	return err
}

func (s *site) addMachine(client *vim25.Client, spec machineSpec) error {
	ctx := context.Background()
	if err := s.clearHome(spec); err != nil {
		return err
	}
	devices, contents, err := s.diskDevices(spec)
	if err != nil {
		return err
	}
	config := types.VirtualMachineConfigSpec{
		Name: spec.Name, GuestId: "windows11_64Guest", NumCPUs: 2, MemoryMB: 4096,
		Firmware: spec.Firmware, ChangeTrackingEnabled: &spec.ChangeTracking,
		Files: &types.VirtualMachineFileInfo{
			VmPathName: fmt.Sprintf("[%s] %s/%s.vmx", s.inventory.Datastore, spec.Name, spec.Name),
		},
	}
	config.DeviceChange, err = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		return err
	}
	for _, change := range config.DeviceChange {
		change.GetVirtualDeviceConfigSpec().FileOperation = "" // the disks are there
	}
	vm, err := s.create(client, spec, config)
	if err != nil {
		return err
	}
	if err := s.adopt(ctx, vm, spec, contents); err != nil {
		return err
	}
	if spec.PoweredOn {
		if err := await(vm.PowerOn(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// takeSnapshots takes those of the inventory. vCenter never gives an id twice, and a client may take
// the same id for the same bytes: so these bear ids that come from what the disks hold, and later ones
// go on from the time of the start.
func (s *site) takeSnapshots(client *vim25.Client) error {
	ctx := context.Background()
	sum := crc32.NewIEEE()
	for _, spec := range s.inventory.Machines {
		for _, device := range object.VirtualDeviceList(s.vm(s.machines[spec.Name].ref).Config.Hardware.Device) {
			if content := s.machines[spec.Name].disks[device.GetVirtualDevice().Key]; content != nil {
				_, _ = sum.Write([]byte(content.track))
			}
		}
	}
	if err := s.countFrom(int64(sum.Sum32())); err != nil {
		return err
	}
	for _, spec := range s.inventory.Machines {
		vm := object.NewVirtualMachine(client, s.machines[spec.Name].ref)
		for _, name := range spec.Snapshots {
			if err := await(vm.CreateSnapshot(ctx, name, "", false, false)); err != nil {
				return err
			}
		}
	}
	return s.countFrom(time.Now().UnixMilli())
}

// countFrom lets the ids of objects go on from a number; a smaller one changes nothing.
func (s *site) countFrom(number int64) error {
	ref := types.ManagedObjectReference{Type: "Added", Value: fmt.Sprintf("added-%d", number)}
	place := &methodsAdded{}
	place.Self = ref
	s.registry.Put(place)
	return s.registry.AlignCounter()
}

// clearHome removes what an earlier run of this program left beside the disks: snapshots end with it.
func (s *site) clearHome(spec machineSpec) error {
	home := filepath.Join(s.folder, spec.Name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, flatSuffix) || strings.HasSuffix(name, trackSuffix) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(home, name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) create(
	client *vim25.Client, spec machineSpec, config types.VirtualMachineConfigSpec,
) (*object.VirtualMachine, error) {
	ctx := context.Background()
	folders, err := object.NewDatacenter(client, s.registry.Any("Datacenter").Reference()).Folders(ctx)
	if err != nil {
		return nil, err
	}
	folder := folders.VmFolder
	for _, name := range strings.FieldsFunc(spec.Folder, func(r rune) bool { return r == '/' }) {
		if folder, err = subfolder(ctx, client, s.registry, folder, name); err != nil {
			return nil, err
		}
	}
	cluster := object.NewClusterComputeResource(client, s.registry.Any("ClusterComputeResource").Reference())
	pool, err := cluster.ResourcePool(ctx)
	if err != nil {
		return nil, err
	}
	task, err := folder.CreateVM(ctx, config, pool, nil)
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	return object.NewVirtualMachine(client, info.Result.(types.ManagedObjectReference)), nil
}

func subfolder(
	ctx context.Context, client *vim25.Client, registry *simulator.Registry,
	parent *object.Folder, name string,
) (*object.Folder, error) {
	children := registry.Get(parent.Reference()).(*simulator.Folder).ChildEntity
	if found := registry.FindByName(name, children); found != nil {
		return object.NewFolder(client, found.Reference()), nil
	}
	return parent.CreateFolder(ctx, name)
}

// adopt ties the contents to the devices under the keys that they were given, and sets the boot order.
func (s *site) adopt(
	ctx context.Context, vm *object.VirtualMachine, spec machineSpec, contents []*disk,
) error {
	made := &machine{ref: vm.Reference(), disks: map[int32]*disk{}}
	var order []types.BaseVirtualMachineBootOptionsBootableDevice
	devices := object.VirtualDeviceList(s.vm(made.ref).Config.Hardware.Device)
	for i, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		key := device.GetVirtualDevice().Key
		made.disks[key] = contents[i]
		if spec.Disks[i].Boot {
			order = append(order, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: key})
		}
	}
	s.machines[spec.Name] = made
	if len(order) == 0 {
		return nil
	}
	return await(vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{
		BootOptions: &types.VirtualMachineBootOptions{BootOrder: order},
	}))
}

func await(task *object.Task, err error) error {
	if err != nil {
		return err
	}
	return task.Wait(context.Background())
}

func (s *site) vm(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	return s.registry.Get(ref).(*simulator.VirtualMachine)
}

// machineOf returns the machine of a reference, or nil: clients may make machines of their own.
func (s *site) machineOf(ref types.ManagedObjectReference) *machine {
	for _, one := range s.machines {
		if one.ref == ref {
			return one
		}
	}
	return nil
}

// strictly reads a JSON document that may name known fields only.
func strictly(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
