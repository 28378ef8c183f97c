package bootenv_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

func lines(vars map[string]string) []string {
	var l []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		l = append(l, name+"="+vars[name])
	}
	return l
}

// newGRUBDir returns the store of a new environment in files, and its directory.
func newGRUBDir(t *testing.T, vars map[string]string) (*bootenv.GRUBMender, string) {
	t.Helper()
	dir := t.TempDir()
	if err := grubtest.WriteDir(dir, lines(vars)...); err != nil {
		t.Fatal(err)
	}
	return bootenv.OpenGRUBMender(bootenv.GRUBMenderConfig{Dir: dir, Locks: []string{filepath.Join(t.TempDir(), "lock")}}), dir
}

func newGRUBFile(t *testing.T, lines ...string) (*bootenv.GRUBPlain, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grubenv")
	if err := os.WriteFile(path, grubtest.Block(grubtest.BlockSize, lines...), 0o644); err != nil {
		t.Fatal(err)
	}
	return bootenv.OpenGRUBPlain(bootenv.GRUBPlainConfig{Path: path, Locks: []string{path + ".lock"}}), path
}

// snapshot returns all bytes of the files.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestMenderOnGRUB(t *testing.T) {
	bootenvtest.Run(t, func(t *testing.T) bootenvtest.Device {
		t.Helper()
		store, dir := newGRUBDir(t, shipped())
		return bootenvtest.Device{
			Loader: func(booted bootenv.Slot) bootenv.Loader { return bootenv.NewMender(store, parts, booted) },
			Boot: func(t *testing.T) bootenv.Slot {
				t.Helper()
				part, err := grubtest.Boot(grubtest.Dir(dir), parts.A, parts.B)
				if err != nil {
					t.Fatal(err)
				}
				return map[int]bootenv.Slot{parts.A: bootenv.A, parts.B: bootenv.B}[part]
			},
			Snapshot: func(t *testing.T) string { t.Helper(); return snapshot(t, dir) },
		}
	})
}

func TestRAUC(t *testing.T) {
	devices := map[string]struct {
		dialect  bootenv.RAUCDialect
		attempts uint32
		open     func(t *testing.T) (bootenv.Store, []string)
	}{
		"U-Boot": {bootenv.RAUCUBoot, 0, func(t *testing.T) (bootenv.Store, []string) {
			t.Helper()
			u, paths := openFiles(t, map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3", "bootcmd": "x"}, true)
			return u, paths
		}},
		"U-Boot, three attempts": {bootenv.RAUCUBoot, 3, func(t *testing.T) (bootenv.Store, []string) {
			t.Helper()
			u, paths := openFiles(t, map[string]string{"BOOT_ORDER": "A B R", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "0", "BOOT_R_LEFT": "a"}, true)
			return u, paths
		}},
		"GRUB": {bootenv.RAUCGRUB, 0, func(t *testing.T) (bootenv.Store, []string) {
			t.Helper()
			g, path := newGRUBFile(t, "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0")
			return g, []string{path}
		}},
	}
	for name, dev := range devices {
		t.Run(name, func(t *testing.T) {
			bootenvtest.Run(t, func(t *testing.T) bootenvtest.Device {
				t.Helper()
				store, paths := dev.open(t)
				cfg := bootenv.RAUCConfig{Dialect: dev.dialect, Attempts: dev.attempts}
				return bootenvtest.Device{
					Loader: func(booted bootenv.Slot) bootenv.Loader { return bootenv.NewRAUC(store, cfg, booted) },
					Boot: func(t *testing.T) bootenv.Slot {
						t.Helper()
						s, err := bootenvtest.BootRAUC(t.Context(), store, dev.dialect)
						if err != nil {
							t.Fatal(err)
						}
						return s
					},
					Snapshot: func(t *testing.T) string {
						t.Helper()
						var all string
						for _, p := range paths {
							all += string(readFile(t, p))
						}
						return all
					},
				}
			})
		})
	}
}

// TestRAUCStaysWithoutReports: with U-Boot a permanent slot stays permanent
// although nobody reports its starts.
func TestRAUCStaysWithoutReports(t *testing.T) {
	store, _ := openFiles(t, map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"}, true)
	boot := func() bootenv.Slot {
		t.Helper()
		s, err := bootenvtest.BootRAUC(t.Context(), store, bootenv.RAUCUBoot)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ctx := t.Context()
	if err := bootenv.NewRAUC(store, bootenv.RAUCConfig{}, boot()).Arm(ctx, bootenv.B); err != nil {
		t.Fatal(err)
	}
	if err := bootenv.NewRAUC(store, bootenv.RAUCConfig{}, boot()).Confirm(ctx); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if s := boot(); s != bootenv.B {
			t.Fatalf("boots %s, want B", s)
		}
	}
}

func TestRAUCState(t *testing.T) {
	const (
		a, b                               = bootenv.A, bootenv.B
		steady, armed, trial, inconsistent = bootenv.Steady, bootenv.Armed, bootenv.Trial, bootenv.Inconsistent
	)
	uboot := func(order, left, right, on string) []string {
		return []string{"BOOT_ORDER=" + order, "BOOT_A_LEFT=" + left, "BOOT_B_LEFT=" + right, "usb_updater_trial=" + on}
	}
	grub := func(order, okA, tryA, okB, tryB, on string) []string {
		return []string{"ORDER=" + order, "A_OK=" + okA, "A_TRY=" + tryA, "B_OK=" + okB, "B_TRY=" + tryB, "usb_updater_trial=" + on}
	}
	tests := []struct {
		name      string
		dialect   bootenv.RAUCDialect
		vars      []string
		booted    bootenv.Slot
		phase     bootenv.Phase
		permanent bootenv.Slot
		next      bootenv.Slot
		degraded  bool
		err       error
	}{
		{"steady", bootenv.RAUCUBoot, uboot("A B", "3", "3", "-"), a, steady, a, a, false, nil},
		{"steady, no trial variable", bootenv.RAUCUBoot, uboot("A B", "3", "3", ""), a, steady, a, a, false, nil},
		{"hexadecimal", bootenv.RAUCUBoot, uboot("A B", "7ffffffe", "0", "-"), a, steady, a, a, false, nil},
		{"armed", bootenv.RAUCUBoot, uboot("B A", "3", "1", "B"), a, armed, a, b, false, nil},
		{"trial", bootenv.RAUCUBoot, uboot("B A", "3", "0", "B"), b, trial, a, a, false, nil},
		{"trial without a way back", bootenv.RAUCUBoot, uboot("B A", "0", "0", "B"), b, trial, a, b, true, nil},
		{"confirmed by another program", bootenv.RAUCUBoot, uboot("B A", "3", "3", "B"), b, steady, b, b, false, nil},
		{"fell back", bootenv.RAUCUBoot, uboot("B A", "2", "0", "B"), a, steady, a, a, false, nil},
		{"reverted in the trial", bootenv.RAUCUBoot, uboot("A", "3", "0", "-"), b, inconsistent, a, a, false, nil},
		{"armed by another program", bootenv.RAUCUBoot, uboot("B A", "3", "3", "-"), a, inconsistent, b, b, false, nil},
		{"reverted by another program", bootenv.RAUCUBoot, uboot("A B", "3", "3", "B"), b, inconsistent, a, a, false, nil},
		{"nothing reported", bootenv.RAUCUBoot, uboot("A B", "0", "3", "-"), a, steady, a, b, true, nil},
		{"nothing left", bootenv.RAUCUBoot, uboot("A B", "0", "0", "-"), a, steady, a, a, true, nil},
		{"nothing left, other first", bootenv.RAUCUBoot, uboot("B A", "0", "0", "-"), a, inconsistent, b, b, true, nil},
		{"no order", bootenv.RAUCUBoot, uboot("", "3", "3", "-"), a, 0, 0, 0, false, bootenv.ErrCorrupt},
		{"rescue last", bootenv.RAUCUBoot, uboot("A B R", "3", "3", "-"), a, steady, a, a, false, nil},
		{"rescue first", bootenv.RAUCUBoot, uboot("R A B", "3", "3", "-"), a, 0, 0, 0, false, bootenv.ErrMismatch},
		{"no attempts", bootenv.RAUCUBoot, uboot("A B", "", "3", "-"), a, 0, 0, 0, false, bootenv.ErrCorrupt},
		{"too many attempts", bootenv.RAUCUBoot, uboot("A B", "ffffffff", "3", "-"), a, 0, 0, 0, false, bootenv.ErrCorrupt},
		{"attempts are no number", bootenv.RAUCUBoot, uboot("A B", "3", "x", "-"), a, 0, 0, 0, false, bootenv.ErrCorrupt},
		{"GRUB steady", bootenv.RAUCGRUB, grub("A B", "1", "0", "0", "0", "-"), a, steady, a, a, false, nil},
		{"GRUB not reported", bootenv.RAUCGRUB, grub("A B", "1", "1", "1", "0", "-"), a, steady, a, b, true, nil},
		{"GRUB armed", bootenv.RAUCGRUB, grub("B A", "1", "0", "1", "0", "B"), a, armed, a, b, false, nil},
		{"GRUB trial", bootenv.RAUCGRUB, grub("B A", "1", "0", "1", "1", "B"), b, trial, a, a, false, nil},
		{"GRUB fell back", bootenv.RAUCGRUB, grub("B A", "1", "1", "1", "1", "B"), a, steady, a, a, true, nil},
		{"GRUB bad flag", bootenv.RAUCGRUB, grub("A B", "2", "0", "0", "0", "-"), a, 0, 0, 0, false, bootenv.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store, path := newGRUBFile(t, tt.vars...)
			r := bootenv.NewRAUC(store, bootenv.RAUCConfig{Dialect: tt.dialect}, tt.booted)
			got, err := r.State(t.Context())
			if !errors.Is(err, tt.err) {
				t.Fatalf("State: %v, want %v", err, tt.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), path) {
					t.Errorf("State: %q does not name the place", err)
				}
				return
			}
			if (got.Degraded != nil) != tt.degraded {
				t.Errorf("State: degraded %q, want some: %v", got.Degraded, tt.degraded)
			}
			got.Degraded = nil
			want := bootenv.State{Booted: tt.booted, Phase: tt.phase, Default: tt.permanent, Next: tt.next}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("State (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRAUCNames(t *testing.T) {
	store, path := newGRUBFile(t, "ORDER=system0 rescue system1", "system0_OK=1", "system0_TRY=0", "system1_OK=0", "system1_TRY=0", "usb_updater_trial=-")
	cfg := bootenv.RAUCConfig{Dialect: bootenv.RAUCGRUB, Names: [2]string{"system0", "system1"}}
	r := bootenv.NewRAUC(store, cfg, bootenv.A)
	if err := r.Arm(t.Context(), bootenv.B); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"ORDER": "system1 system0 rescue", "system0_OK": "1", "system0_TRY": "0",
		"system1_OK": "1", "system1_TRY": "0", "usb_updater_trial": "system1",
	}
	if diff := cmp.Diff(want, grubtest.Vars(readFile(t, path))); diff != "" {
		t.Errorf("Arm (-want +got):\n%s", diff)
	}
	if got := r.Caps(); got != (bootenv.Caps{Name: "rauc-grub", AutoRevert: true}) {
		t.Errorf("Caps = %+v", got)
	}
}

// TestGRUBPlainSectors: a change that a power cut could split is refused before
// the write, and told by Check.
func TestGRUBPlainSectors(t *testing.T) {
	tests := []struct {
		name   string
		pad    int
		pair   bootenv.Var
		atomic bool // in general
		want   error
	}{
		{"all in one sector", 10, bootenv.Var{Name: "a", Value: "longer"}, true, nil},
		{"just fits", 512 - 25 - len("pad=\na=0\nb=0\n"), bootenv.Var{Name: "a", Value: "1"}, true, nil},
		{"grows out of it", 512 - 25 - len("pad=\na=0\nb=0\n"), bootenv.Var{Name: "a", Value: "10"}, true, bootenv.ErrNotAtomic},
		{"same length", 512 - 25 - len("pad=\na=0\n"), bootenv.Var{Name: "a", Value: "1"}, false, nil},
		{"second sector", 512 - 25 - len("pad=\na=0\n"), bootenv.Var{Name: "b", Value: "10"}, false, nil},
		{"no space", 900, bootenv.Var{Name: "c", Value: strings.Repeat("x", 200)}, false, bootenv.ErrNoSpace},
		{"unchanged", 900, bootenv.Var{Name: "a", Value: "0"}, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store, path := newGRUBFile(t, "pad="+strings.Repeat("x", tt.pad), "a=0", "b=0")
			before := readFile(t, path)
			h, err := store.Check(t.Context())
			if err != nil || h.Atomic != tt.atomic {
				t.Errorf("Check: atomic %v, %v, want %v", h.Atomic, err, tt.atomic)
			}
			if h, err := store.Check(t.Context(), tt.pair); !errors.Is(err, tt.want) || h.Atomic != (tt.want == nil) {
				t.Errorf("Check with the pair: atomic %v, %v, want %v", h.Atomic, err, tt.want)
			}
			if err := store.Update(t.Context(), tt.pair); !errors.Is(err, tt.want) {
				t.Fatalf("Update = %v, want %v", err, tt.want)
			}
			after := readFile(t, path)
			if tt.want != nil && !bytes.Equal(before, after) {
				t.Error("a refused update wrote")
			}
			if tt.want == nil && grubtest.Vars(after)[tt.pair.Name] != tt.pair.Value {
				t.Errorf("after Update, GRUB reads %q", grubtest.Vars(after)[tt.pair.Name])
			}
		})
	}
}

func TestGRUBStoreErrors(t *testing.T) {
	dir := t.TempDir()
	locks := []string{filepath.Join(dir, "lock")}
	stores := map[string]bootenv.Store{
		"mender": bootenv.OpenGRUBMender(bootenv.GRUBMenderConfig{Dir: filepath.Join(dir, "none"), Locks: locks}),
		"plain":  bootenv.OpenGRUBPlain(bootenv.GRUBPlainConfig{Path: filepath.Join(dir, "none"), Locks: locks}),
	}
	for name, s := range stores {
		if _, err := s.Get(t.Context()); !errors.Is(err, bootenv.ErrNotFound) {
			t.Errorf("%s: Get = %v, want ErrNotFound", name, err)
		}
		if _, err := s.Check(t.Context()); !errors.Is(err, bootenv.ErrNotFound) {
			t.Errorf("%s: Check = %v, want ErrNotFound", name, err)
		}
		if err := s.Update(t.Context(), bootenv.Var{Name: "a", Value: "1"}); !errors.Is(err, bootenv.ErrNotFound) {
			t.Errorf("%s: Update = %v, want ErrNotFound", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Update(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Update = %v, want Canceled", name, err)
		}
	}
	store, _ := newGRUBDir(t, shipped())
	for _, v := range []bootenv.Var{{Name: "a=b", Value: "1"}, {Name: "a", Value: "\x00"}, {Name: "a", Value: "x\ny"}, {Name: "", Value: "1"}} {
		if err := store.Update(t.Context(), v); err == nil {
			t.Errorf("Update(%q) = nil, want an error", v)
		}
	}
	if err := store.Update(t.Context(), bootenv.Var{Name: "a", Value: strings.Repeat("x", 1000)}); !errors.Is(err, bootenv.ErrNoSpace) {
		t.Errorf("Update = %v, want ErrNoSpace", err)
	}
}

// TestGRUBSumCreated: a missing lock.sha256sum is made.
func TestGRUBSumCreated(t *testing.T) {
	store, dir := newGRUBDir(t, shipped())
	want := readFile(t, filepath.Join(dir, grubtest.Sum1))
	for _, name := range []string{grubtest.Sum1, grubtest.Sum2} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Update(t.Context(), bootenv.Var{Name: "a", Value: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{grubtest.Sum1, grubtest.Sum2} {
		if got := readFile(t, filepath.Join(dir, name)); !bytes.Equal(got, want) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if h, err := store.Check(t.Context()); err != nil || h.Degraded != nil {
		t.Errorf("Check = %q, %v", h.Degraded, err)
	}
}

// TestGRUBHexIsStale: GRUB goes back in one of the two numbers only.
func TestGRUBHexIsStale(t *testing.T) {
	vars := shipped()
	vars["mender_boot_part"], vars["mender_boot_part_hex"] = "2", "1B"
	store, _ := newGRUBDir(t, vars)
	got, err := store.Get(t.Context(), "mender_boot_part", "mender_boot_part_hex")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"mender_boot_part": "2"}, got); diff != "" {
		t.Errorf("Get (-want +got):\n%s", diff)
	}
	vars["mender_boot_part_hex"] = "0x2"
	store, _ = newGRUBDir(t, vars)
	if got, err := store.Get(t.Context(), "mender_boot_part_hex"); err != nil || got["mender_boot_part_hex"] != "0x2" {
		t.Errorf("Get = %q, %v", got, err)
	}
}
