package bootenvtest

import (
	"context"
	"fmt"
	"strconv"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// Boot does what Mender's script does in U-Boot when the device starts, and
// returns the slot that it starts: an open trial is counted, and the second
// boot of one goes back (source: meta-mender, U-Boot patch "Generic boot code
// for Mender"; U-Boot, include/bootcount.h; bootlimit is 1).
func Boot(ctx context.Context, store bootenv.Store, parts bootenv.Parts) (bootenv.Slot, error) {
	const bootlimit = 1
	vars, err := store.Get(ctx)
	if err != nil {
		return bootenv.A, err
	}
	slot := bootenv.A
	switch vars["mender_boot_part"] {
	case strconv.Itoa(parts.A):
	case strconv.Itoa(parts.B):
		slot = bootenv.B
	default:
		return slot, fmt.Errorf("boot: mender_boot_part is %q", vars["mender_boot_part"])
	}
	if vars["upgrade_available"] != "1" {
		return slot, nil
	}
	count, err := strconv.Atoi(vars["bootcount"])
	if err != nil {
		return slot, fmt.Errorf("boot: bootcount: %w", err)
	}
	change := []bootenv.Var{{Name: "bootcount", Value: strconv.Itoa(count + 1)}}
	if count+1 > bootlimit { // altbootcmd
		slot = slot.Other()
		number := parts.A
		if slot == bootenv.B {
			number = parts.B
		}
		change = append(change,
			bootenv.Var{Name: "mender_boot_part", Value: strconv.Itoa(number)},
			bootenv.Var{Name: "mender_boot_part_hex", Value: strconv.FormatInt(int64(number), 16)},
			bootenv.Var{Name: "upgrade_available", Value: "0"})
	}
	return slot, store.Update(ctx, change...)
}
