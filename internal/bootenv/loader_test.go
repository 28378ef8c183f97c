package bootenv_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// Two digits in hexadecimal with a letter, so that case and base matter.
var parts = bootenv.Parts{A: 2, B: 27}

func shipped() map[string]string {
	return map[string]string{
		"bootcmd": "run mender_setup; boot", "mender_boot_part": "2", "mender_boot_part_hex": "2",
		"upgrade_available": "0", "bootcount": "0", "mender_check_saveenv_canary": "1", "mender_saveenv_canary": "1",
	}
}

// openFiles returns the store of a new environment in files, and their paths.
func openFiles(t *testing.T, vars map[string]string, redundant bool) (*bootenv.UBoot, []string) {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(bootenvtest.NewUBootFile(t, dir, vars, redundant))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := bootenv.ParseFwEnvConfig(text, "")
	if err != nil {
		t.Fatal(err)
	}
	u, err := bootenv.OpenUBoot(bootenv.UBootConfig{Copies: cfg.Copies, Locks: []string{filepath.Join(dir, "lock")}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range cfg.Copies {
		paths = append(paths, c.Path)
	}
	return u, paths
}

func TestMenderOnUBoot(t *testing.T) {
	for name, redundant := range map[string]bool{"redundant": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			bootenvtest.Run(t, func(t *testing.T) bootenvtest.Device {
				t.Helper()
				store, paths := openFiles(t, shipped(), redundant)
				return bootenvtest.Device{
					Loader: func(booted bootenv.Slot) bootenv.Loader { return bootenv.NewMender(store, parts, booted) },
					Boot: func(t *testing.T) bootenv.Slot {
						t.Helper()
						s, err := bootenvtest.Boot(t.Context(), store, parts)
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
					Snapshot: func(t *testing.T) string {
						t.Helper()
						var all strings.Builder
						for _, p := range paths {
							b, err := os.ReadFile(p)
							if err != nil {
								t.Fatal(err)
							}
							all.Write(b)
						}
						return all.String()
					},
				}
			})
		})
	}
}

// TestMenderCanary: an environment that the boot loader may not use can be
// read and reverted, but not armed.
func TestMenderCanary(t *testing.T) {
	vars := shipped()
	vars["mender_saveenv_canary"] = ""
	store, _ := openFiles(t, vars, true)
	m := bootenv.NewMender(store, parts, bootenv.A)
	if s, err := m.State(t.Context()); err != nil || !s.CanaryMissing {
		t.Errorf("State: %+v, %v", s, err)
	}
	if err := m.Revert(t.Context()); err != nil {
		t.Errorf("Revert: %v", err)
	}
	for name, verb := range map[string]func(context.Context, bootenv.Slot) error{"CheckArm": m.CheckArm, "BeforeWrite": m.BeforeWrite, "Arm": m.Arm} {
		if err := verb(t.Context(), bootenv.B); !errors.Is(err, bootenv.ErrCanary) {
			t.Errorf("%s: %v, want ErrCanary", name, err)
		}
	}
}

func TestMenderValues(t *testing.T) {
	tests := []struct {
		name string
		vars map[string]string // laid over the shipped ones
		want error
		text string
	}{
		{"shipped", nil, nil, ""},
		{"no canary asked for", map[string]string{"mender_check_saveenv_canary": "", "mender_saveenv_canary": ""}, nil, ""},
		{"no part", map[string]string{"mender_boot_part": ""}, bootenv.ErrCorrupt, "mender_boot_part is not set"},
		{"part of nobody", map[string]string{"mender_boot_part": "5", "mender_boot_part_hex": "5"}, bootenv.ErrMismatch, "mender_boot_part is 5, but slot A is partition 2 and slot B is partition 27"},
		{"suffix of the part", map[string]string{"mender_boot_part": "7", "mender_boot_part_hex": "7"}, bootenv.ErrMismatch, ""},
		{"part is no number", map[string]string{"mender_boot_part": "0x2"}, bootenv.ErrCorrupt, `"0x2"`},
		{"hex disagrees", map[string]string{"mender_boot_part_hex": "1b"}, bootenv.ErrCorrupt, "mender_boot_part_hex"},
		{"hex is no number", map[string]string{"mender_boot_part_hex": "x"}, bootenv.ErrCorrupt, "mender_boot_part_hex"},
		{"no hex", map[string]string{"mender_boot_part_hex": ""}, nil, ""},
		{"hex with prefix", map[string]string{"mender_boot_part_hex": "0x2"}, nil, ""},
		{"lower-case hex", map[string]string{"mender_boot_part": "27", "mender_boot_part_hex": "1b"}, nil, ""},
		{"upgrade is no flag", map[string]string{"upgrade_available": "2"}, bootenv.ErrCorrupt, "upgrade_available"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vars := shipped()
			maps.Copy(vars, tt.vars)
			store, paths := openFiles(t, vars, true)
			m := bootenv.NewMender(store, parts, bootenv.A)
			_, err := m.State(t.Context())
			if !errors.Is(err, tt.want) {
				t.Fatalf("State: %v, want %v", err, tt.want)
			}
			if err == nil {
				return
			}
			for _, text := range []string{tt.text, paths[0] + " offset 0x0"} {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("State: %q does not name %q", err, text)
				}
			}
			for name, verb := range map[string]func(context.Context) error{
				"Confirm": m.Confirm, "Revert": m.Revert,
				"Arm":         func(ctx context.Context) error { return m.Arm(ctx, bootenv.B) },
				"BeforeWrite": func(ctx context.Context) error { return m.BeforeWrite(ctx, bootenv.B) },
				"CheckArm":    func(ctx context.Context) error { return m.CheckArm(ctx, bootenv.B) },
			} {
				if err := verb(t.Context()); !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
			}
		})
	}
}

func TestMenderDegraded(t *testing.T) {
	vars := shipped()
	delete(vars, "upgrade_available")
	store, paths := openFiles(t, vars, true)
	if err := os.Truncate(paths[1], 100); err != nil {
		t.Fatal(err)
	}
	got, err := bootenv.NewMender(store, parts, bootenv.A).State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := bootenv.State{Phase: bootenv.Steady, Degraded: []string{
		"upgrade_available is not set",
		"copy at " + paths[1] + " offset 0x0: too short: 0x64 of 0x4000 bytes",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("State (-want +got):\n%s", diff)
	}
}

func TestMenderWrites(t *testing.T) {
	store, _ := openFiles(t, shipped(), true)
	vars := func() map[string]string {
		v, err := store.Get(t.Context(), "mender_boot_part", "mender_boot_part_hex", "upgrade_available", "bootcount")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	check := func(what string, err error, part, hex, upgrade, count string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		want := map[string]string{"mender_boot_part": part, "mender_boot_part_hex": hex, "upgrade_available": upgrade, "bootcount": count}
		if diff := cmp.Diff(want, vars()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	ctx := t.Context()
	check("Arm", bootenv.NewMender(store, parts, bootenv.A).Arm(ctx, bootenv.B), "27", "1B", "1", "0")
	slot, err := bootenvtest.Boot(ctx, store, parts)
	check("boot", err, "27", "1B", "1", "1")
	trial := bootenv.NewMender(store, parts, slot)
	check("Confirm", trial.Confirm(ctx), "27", "1B", "0", "1")
	check("Arm", trial.Arm(ctx, bootenv.A), "2", "2", "1", "0")
	check("Revert", trial.Revert(ctx), "27", "1B", "0", "0")
}

// TestBeforeWriteFindsOut: what would refuse Arm must refuse BeforeWrite, when
// the slot is still whole.
func TestBeforeWriteFindsOut(t *testing.T) {
	t.Run("protected variable", func(t *testing.T) {
		vars := shipped()
		vars[".flags"] = "upgrade_available:dr"
		store, _ := openFiles(t, vars, true)
		m := bootenv.NewMender(store, parts, bootenv.A)
		if err := m.BeforeWrite(t.Context(), bootenv.B); !errors.Is(err, bootenv.ErrReadOnlyVar) {
			t.Errorf("BeforeWrite = %v, want ErrReadOnlyVar", err)
		}
	})
	t.Run("copy missing", func(t *testing.T) {
		store, paths := openFiles(t, shipped(), true)
		if err := os.Remove(paths[1]); err != nil {
			t.Fatal(err)
		}
		m := bootenv.NewMender(store, parts, bootenv.A)
		if _, err := m.State(t.Context()); err != nil {
			t.Errorf("State: %v; one good copy is enough to read", err)
		}
		if err := m.BeforeWrite(t.Context(), bootenv.B); !errors.Is(err, bootenv.ErrNotFound) {
			t.Errorf("BeforeWrite = %v, want ErrNotFound", err)
		}
	})
}

// TestPartitionZero: a slot that is no partition is numbered by its name, and
// the first loop device is number 0.
func TestPartitionZero(t *testing.T) {
	vars := shipped()
	vars["mender_boot_part"], vars["mender_boot_part_hex"] = "0", "0"
	store, _ := openFiles(t, vars, true)
	m := bootenv.NewMender(store, bootenv.Parts{A: 0, B: 1}, bootenv.A)
	if s, err := m.State(t.Context()); err != nil || s.Phase != bootenv.Steady {
		t.Errorf("State = %+v, %v, want steady", s, err)
	}
	same := bootenv.NewMender(store, bootenv.Parts{}, bootenv.A)
	if _, err := same.State(t.Context()); !errors.Is(err, bootenv.ErrMismatch) {
		t.Errorf("State with two slots of one number: %v, want ErrMismatch", err)
	}
}
