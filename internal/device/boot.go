package device

import (
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/config"
	"github.com/usb-updater/usb-updater/internal/install"
	"github.com/usb-updater/usb-updater/internal/install/slot"
)

// Boot is how the device's boot loader is driven, and why.
type Boot struct {
	bootenv.Found
	Loader bootenv.Loader
	Store  bootenv.Store // what the loader keeps its variables in; nil if in none
}

// Boot finds the boot loader and opens it. On error Found is filled as far as
// it was found. Nothing is written.
func (d *Device) Boot(slots install.Slots) (Boot, error) {
	found, err := d.FindBoot()
	if err != nil {
		return Boot{Found: found}, err
	}
	b := Boot{Found: found}
	build, ok := builders()[found.Kind]
	if !ok {
		return b, fmt.Errorf("boot loader %s: %w", found.Kind, bootenv.ErrUnsupported)
	}
	b.Store, b.Loader, err = build(d, found, slots)
	if err != nil {
		return b, fmt.Errorf("boot loader %s: %w", found.Kind, err)
	}
	return b, nil
}

// builder opens a boot loader that was found.
type builder func(*Device, bootenv.Found, install.Slots) (bootenv.Store, bootenv.Loader, error)

// builders has one builder for each kind.
func builders() map[bootenv.Kind]builder {
	return map[bootenv.Kind]builder{
		bootenv.KindUBoot:      openUBoot,
		bootenv.KindGRUBMender: openGRUBMender,
		bootenv.KindRAUCUBoot:  openRAUCUBoot,
		bootenv.KindRAUCGRUB:   openRAUCGRUB,
		bootenv.KindTryboot:    openTryboot,
		bootenv.KindCommand:    openCommand,
		bootenv.KindCustom:     openCustom,
	}
}

func rootParts(slots install.Slots) bootenv.Parts {
	return bootenv.Parts{A: slots.A.Number, B: slots.B.Number}
}

func openUBoot(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	store, err := ubootStore(d, f)
	if err != nil {
		return nil, nil, err
	}
	return store, bootenv.NewMender(store, rootParts(slots), slots.Booted), nil
}

func ubootStore(d *Device, f bootenv.Found) (bootenv.Store, error) {
	locks := []string{d.Path("/run/fw_printenv.lock"), d.Path("/var/lock/fw_printenv.lock")}
	return bootenv.OpenUBoot(bootenv.UBootConfig{
		Copies:          f.Env.Copies,
		AllowSingleCopy: d.Agent.AllowSingleCopy,
		Locks:           append(locks, f.Env.Locks...),
		WriteList:       f.Env.WriteList,
	})
}

func openGRUBMender(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	store := bootenv.OpenGRUBMender(bootenv.GRUBMenderConfig{
		Dir: f.GRUBDir, Locks: []string{d.Path("/var/lock/grub-mender-grubenv-set.lock")},
	})
	return store, bootenv.NewMender(store, rootParts(slots), slots.Booted), nil
}

func openRAUCUBoot(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	store, err := ubootStore(d, f)
	if err != nil {
		return nil, nil, err
	}
	return store, raucLoader(d, store, bootenv.RAUCUBoot, slots), nil
}

func openRAUCGRUB(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	store := bootenv.OpenGRUBPlain(bootenv.GRUBPlainConfig{
		Path: f.GRUBEnv, Locks: []string{d.Path("/run/usb-updater-grubenv.lock")},
	})
	return store, raucLoader(d, store, bootenv.RAUCGRUB, slots), nil
}

func raucLoader(d *Device, store bootenv.Store, dialect bootenv.RAUCDialect, slots install.Slots) bootenv.Loader {
	return bootenv.NewRAUC(store, bootenv.RAUCConfig{
		Dialect: dialect, Names: [2]string(d.Agent.RAUCNames), Attempts: uint32(d.Agent.RAUCAttempts),
	}, slots.Booted)
}

func openCommand(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	store, err := bootenv.OpenCommand(bootenv.CommandConfig{
		Getter: f.Getter, Setter: f.Setter, Timeout: d.Agent.BootLoaderTimeout(), Dir: d.Path("/"),
	})
	if err != nil {
		return nil, nil, err
	}
	return store, bootenv.NewMender(store, rootParts(slots), slots.Booted), nil
}

func openTryboot(d *Device, f bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	if d.Agent.TrybootPartA == 0 {
		return nil, nil, fmt.Errorf("usb-updater.conf: TrybootPartA and TrybootPartB are not set: they name the boot partitions of the slots")
	}
	loader, err := bootenv.OpenTryboot(bootenv.TrybootConfig{
		File:   f.Autoboot,
		Parts:  bootenv.Parts{A: d.Agent.TrybootPartA, B: d.Agent.TrybootPartB},
		Booted: slots.Booted,
		Chosen: d.Path("/proc/device-tree/chosen/bootloader"),
	})
	if err != nil {
		return nil, nil, err
	}
	return nil, loader, nil
}

func openCustom(d *Device, _ bootenv.Found, slots install.Slots) (bootenv.Store, bootenv.Loader, error) {
	loader, err := bootenv.OpenCustom(bootenv.CustomConfig{
		Program: d.Path(d.Agent.BootLoaderProgram), Timeout: d.Agent.BootLoaderTimeout(), Dir: d.Path("/"), Booted: slots.Booted,
	})
	if err != nil {
		return nil, nil, err
	}
	return nil, loader, nil
}

// FindBoot says which boot loader the device has: the one that usb-updater.conf
// names, else the tools that mender.conf names, else what is found on the
// device.
func (d *Device) FindBoot() (bootenv.Found, error) {
	places := bootenv.UsualPlaces(d.Path)
	if d.Agent.TrybootFile != "" {
		places.Autoboot = []string{d.Path(d.Agent.TrybootFile)}
	}
	if d.Agent.GRUBEnvFile != "" {
		places.GRUBEnvs = []string{d.Path(d.Agent.GRUBEnvFile)}
	}
	kind := bootenv.Kind(d.Agent.BootLoader)
	named := d.Mender.BootUtilitiesGetNextActivePart != ""
	switch {
	case d.Agent.BootLoader == config.BootLoaderAuto && named:
		return d.namedTools(places)
	case d.Agent.BootLoader == config.BootLoaderAuto:
		return bootenv.Detect(places)
	}
	why := fmt.Sprintf("usb-updater.conf: BootLoader is %q", kind)
	var found bootenv.Found
	var err error
	if kind == bootenv.KindCommand && named {
		found, err = d.namedTools(places)
	} else {
		found, err = places.Find(kind)
	}
	found.Reasons = append([]string{why}, found.Reasons...)
	if err != nil {
		return found, fmt.Errorf("boot loader: %s: %w", why, err)
	}
	return found, nil
}

// namedTools looks the tools up that mender.conf names.
func (d *Device) namedTools(places bootenv.Places) (bootenv.Found, error) {
	f := bootenv.Found{Kind: bootenv.KindCommand}
	f.Reasons = []string{"mender.conf: BootUtilitiesGetNextActivePart and BootUtilitiesSetActivePart are set"}
	dirs := slices.Clone(places.ToolDirs)
	for _, dir := range d.opts.ToolDirs {
		if filepath.IsAbs(dir) { // another one would depend on where this program was started
			dirs = append(dirs, d.Path(dir))
		}
	}
	for _, tool := range []struct {
		key, name string
		to        *string
	}{
		{"BootUtilitiesGetNextActivePart", d.Mender.BootUtilitiesGetNextActivePart, &f.Getter},
		{"BootUtilitiesSetActivePart", d.Mender.BootUtilitiesSetActivePart, &f.Setter},
	} {
		name := tool.name
		if filepath.IsAbs(name) {
			name = d.Path(name)
		}
		path, err := bootenv.FindTool(dirs, name)
		if err != nil {
			return f, fmt.Errorf("mender.conf: %s: %w", tool.key, err)
		}
		*tool.to = path
	}
	return f, nil
}

// bootStorage returns the device numbers of what the boot loader's data is on.
func (d *Device) bootStorage() ([]uint64, error) {
	found, err := d.FindBoot()
	if err != nil {
		return nil, err
	}
	var devs []uint64
	for _, c := range found.Env.Copies {
		if id, err := slot.Identify(c.Path); err == nil && id.Block {
			devs = append(devs, id.Dev)
		}
	}
	for _, path := range []string{found.GRUBDir, found.GRUBEnv, found.Autoboot} {
		var st unix.Stat_t
		if path != "" && unix.Stat(path, &st) == nil && unix.Major(st.Dev) != 0 {
			devs = append(devs, st.Dev)
		}
	}
	return devs, nil
}
