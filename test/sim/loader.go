package sim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

// Boot loaders that a device can have beside Mender's U-Boot, by the names that
// usb-updater.conf uses.
const (
	GRUBMender = "grub-mender"
	RAUCUBoot  = "rauc-uboot"
	RAUCGRUB   = "rauc-grub"
)

// SetLoader replaces the boot loader: slot A is permanent, no trial is open.
func (d *Device) SetLoader(kind string) error {
	d.loader = kind
	switch kind {
	case GRUBMender:
		return grubtest.WriteDir(d.grubDir(), "mender_boot_part=2", "upgrade_available=0", "bootcount=0")
	case RAUCUBoot:
		vars := map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"}
		return writeEnv(d.disk(), vars, 7, envOffset1)
	case RAUCGRUB:
		if err := os.MkdirAll(filepath.Dir(d.grubEnv()), 0o755); err != nil {
			return err
		}
		return os.WriteFile(d.grubEnv(), grubtest.Block(grubtest.BlockSize, "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0"), 0o600)
	default:
		return fmt.Errorf("no boot loader %q", kind)
	}
}

func (d *Device) grubDir() string { return filepath.Join(d.Dir, "boot/efi/grub-mender-grubenv") }
func (d *Device) grubEnv() string { return filepath.Join(d.Dir, "boot/grub/grubenv") }

// loaderEnv returns the variables of a boot loader other than Mender's U-Boot.
func (d *Device) loaderEnv() (map[string]string, error) {
	if d.loader == GRUBMender {
		return grubtest.Vars(grubtest.Dir(d.grubDir()).Read(grubtest.Env1)), nil
	}
	store, _, err := d.raucStore()
	if err != nil {
		return nil, err
	}
	return store.Get(context.Background())
}

// loaderBoot is what such a boot loader does when the device starts.
func (d *Device) loaderBoot() (int, error) {
	if d.loader == GRUBMender {
		return grubtest.Boot(grubtest.Dir(d.grubDir()), Slots[0], Slots[1])
	}
	store, dialect, err := d.raucStore()
	if err != nil {
		return 0, err
	}
	slot, err := bootenvtest.BootRAUC(context.Background(), store, dialect)
	return Slots[slot], err
}

func (d *Device) raucStore() (bootenv.Store, bootenv.RAUCDialect, error) {
	locks := []string{filepath.Join(d.Dir, "run/sim.lock")}
	if d.loader == RAUCGRUB {
		return bootenv.OpenGRUBPlain(bootenv.GRUBPlainConfig{Path: d.grubEnv(), Locks: locks}), bootenv.RAUCGRUB, nil
	}
	store, err := bootenv.OpenUBoot(bootenv.UBootConfig{
		Copies: []bootenv.Copy{{Path: d.disk(), Offset: envOffset1, Size: envSize}, {Path: d.disk(), Offset: envOffset2, Size: envSize}},
		Locks:  locks,
	})
	return store, bootenv.RAUCUBoot, err
}
