package bootenvtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

// BootRAUC does what a boot script of RAUC's kind does when the device starts,
// and returns the slot that it starts. The slots are called "A" and "B"
// (source: RAUC, contrib/uboot.sh and contrib/grub.conf).
func BootRAUC(ctx context.Context, store bootenv.Store, dialect bootenv.RAUCDialect) (bootenv.Slot, error) {
	for range 2 { // a script that finds nothing gives new attempts and starts again
		vars, err := store.Get(ctx)
		if err != nil {
			return bootenv.A, err
		}
		name, change, err := tryUBoot(vars)
		if dialect == bootenv.RAUCGRUB {
			name, change, err = tryGRUB(vars)
		}
		if err != nil {
			return bootenv.A, err
		}
		if err := store.Update(ctx, change...); err != nil {
			return bootenv.A, err
		}
		switch name {
		case "A":
			return bootenv.A, nil
		case "B":
			return bootenv.B, nil
		}
	}
	return bootenv.A, errors.New("boot: no slot")
}

func tryUBoot(vars map[string]string) (string, []bootenv.Var, error) {
	for slot := range strings.FieldsSeq(vars["BOOT_ORDER"]) {
		left := "BOOT_" + slot + "_LEFT"
		n, err := strconv.ParseInt(vars[left], 16, 32)
		if err != nil {
			return "", nil, fmt.Errorf("boot: %s: %w", left, err)
		}
		if n > 0 {
			return slot, []bootenv.Var{{Name: left, Value: strconv.FormatInt(n-1, 16)}}, nil
		}
	}
	return "", []bootenv.Var{{Name: "BOOT_A_LEFT", Value: "3"}, {Name: "BOOT_B_LEFT", Value: "3"}}, nil
}

func tryGRUB(vars map[string]string) (string, []bootenv.Var, error) {
	var change []bootenv.Var
	for slot := range strings.FieldsSeq(vars["ORDER"]) {
		fresh := vars[slot+"_TRY"] == "0"
		change = append(change, bootenv.Var{Name: slot + "_TRY", Value: "1"})
		if vars[slot+"_OK"] == "1" && fresh {
			return slot, change, nil
		}
	}
	for _, slot := range []string{"A", "B"} {
		if vars[slot+"_OK"] == "1" {
			change = append(change, bootenv.Var{Name: slot + "_TRY", Value: "0"})
		}
	}
	return "", change, nil
}
