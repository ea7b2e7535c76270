package main

import (
	"fmt"
	"path"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// diskDevices returns the controllers and disks of a machine, and each disk's contents.
func (s *site) diskDevices(spec machineSpec) (object.VirtualDeviceList, []*disk, error) {
	var devices object.VirtualDeviceList
	var contents []*disk
	controllers := map[string]types.BaseVirtualController{}
	for i, one := range spec.Disks {
		content, err := openDisk(s.folder, s.inventory.Datastore, one.Flat)
		if err != nil {
			return nil, nil, err
		}
		contents = append(contents, content)
		name := fmt.Sprintf("%s:%d", one.Controller, one.Bus)
		controller := controllers[name]
		if controller == nil {
			device, err := newController(devices, one)
			if err != nil {
				return nil, nil, err
			}
			devices = append(devices, device)
			controller = device.(types.BaseVirtualController)
			controllers[name] = controller
		}
		device := devices.CreateDisk(controller, types.ManagedObjectReference{}, content.top().name)
		device.CapacityInBytes = content.size
		device.CapacityInKB = content.size / 1024
		device.UnitNumber = &one.Unit
		// As vCenter numbers and names disks of the first controllers.
		device.Key = diskKeys[controllerKind(one)] + 16*one.Bus + one.Unit
		device.DeviceInfo = &types.Description{Label: fmt.Sprintf("Hard disk %d", i+1)}
		device.Backing.(*types.VirtualDiskFlatVer2BackingInfo).ThinProvisioned = types.NewBool(true)
		devices = append(devices, device)
	}
	return devices, contents, nil
}

func newController(devices object.VirtualDeviceList, spec diskSpec) (types.BaseVirtualDevice, error) {
	var device types.BaseVirtualDevice
	var err error
	switch spec.Controller {
	case "nvme":
		device, err = devices.CreateNVMEController()
	case "sata":
		device, err = devices.CreateSATAController()
	case "":
		device, err = devices.CreateSCSIController("pvscsi")
	default:
		device, err = devices.CreateSCSIController(spec.Controller)
	}
	if err == nil {
		controller := device.(types.BaseVirtualController).GetVirtualController()
		controller.BusNumber = spec.Bus
		controller.Key = controllerKeys[controllerKind(spec)] + spec.Bus
	}
	return device, err
}

// The first keys that vCenter gives, by kind of controller.
var (
	controllerKeys = map[string]int32{"scsi": 1000, "sata": 15000, "nvme": 31000}
	diskKeys       = map[string]int32{"scsi": 2000, "sata": 16000, "nvme": 32000}
)

func controllerKind(spec diskSpec) string {
	if _, known := controllerKeys[spec.Controller]; known {
		return spec.Controller
	}
	return "scsi"
}

// deviceName returns how leases name a disk: its machine, its controller's kind and bus, its unit.
func deviceName(vm types.ManagedObjectReference, devices object.VirtualDeviceList, device *types.VirtualDisk) string {
	controller := devices.FindByKey(device.ControllerKey)
	kind := strings.TrimPrefix(reflect.TypeOf(controller).Elem().Name(), "types.")
	bus := controller.(types.BaseVirtualController).GetVirtualController().BusNumber
	return path.Join("/", vm.Value, fmt.Sprintf("%s%d:%d", kind, bus, *device.UnitNumber))
}
