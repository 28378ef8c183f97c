package bootenv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
)

const shippedAutoboot = "# slots\r\n[all]\r\ntryboot_a_b=1\r\nboot_partition=2\r\n\r\n[tryboot]\r\nboot_partition=3\r\n"

// pi is a Raspberry Pi: the firmware's side of tryboot.
type pi struct {
	*testing.T
	dir    string
	booted bootenv.Slot
}

func newPi(t *testing.T, autoboot string) *pi {
	t.Helper()
	p := &pi{T: t, dir: t.TempDir()}
	put(t, p.path(), autoboot)
	p.boot("")
	return p
}

func (p *pi) path() string { return filepath.Join(p.dir, "autoboot.txt") }

// boot starts the device with a reboot argument, as the firmware does.
func (p *pi) boot(argument string) {
	p.Helper()
	in, partition := "[all]", ""
	for line := range strings.Lines(string(readFile(p.T, p.path()))) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in = line
		}
		if v, ok := strings.CutPrefix(line, "boot_partition="); ok && (in == "[all]" || argument == "0 tryboot") {
			partition = v
		}
	}
	n, err := strconv.ParseUint(partition, 10, 32)
	if err != nil {
		p.Fatal(err)
	}
	flag := uint32(0)
	if argument == "0 tryboot" {
		flag = 1
	}
	p.firmware(uint32(n), flag)
	p.booted = bootenv.A
	if n == 3 {
		p.booted = bootenv.B
	}
}

func (p *pi) firmware(partition, tryboot uint32) {
	p.Helper()
	put(p.T, filepath.Join(p.dir, "partition"), string(binary.BigEndian.AppendUint32(nil, partition)))
	put(p.T, filepath.Join(p.dir, "tryboot"), string(binary.BigEndian.AppendUint32(nil, tryboot)))
}

func (p *pi) loader() *bootenv.Tryboot {
	p.Helper()
	l, err := bootenv.OpenTryboot(bootenv.TrybootConfig{File: p.path(), Chosen: p.dir, Parts: bootenv.Parts{A: 2, B: 3}, Booted: p.booted})
	if err != nil {
		p.Fatal(err)
	}
	return l
}

// state fails the test unless the loader reports this.
func (p *pi) state(want bootenv.State) {
	p.Helper()
	got, err := p.loader().State(p.Context())
	if err != nil {
		p.Fatalf("State: %v", err)
	}
	if got.Phase != want.Phase || got.Booted != want.Booted || got.Default != want.Default || got.Next != want.Next {
		p.Fatalf("State = %+v, want %+v", got, want)
	}
}

func (p *pi) steady(s bootenv.Slot) {
	p.Helper()
	p.state(bootenv.State{Phase: bootenv.Steady, Booted: s, Default: s, Next: s})
}

func (p *pi) trial(s bootenv.Slot) {
	p.Helper()
	p.state(bootenv.State{Phase: bootenv.Trial, Booted: s, Default: s.Other(), Next: s.Other()})
}

func (p *pi) do(what string, err error) {
	p.Helper()
	if err != nil {
		p.Fatalf("%s: %v", what, err)
	}
}

// quiet fails the test unless f returns want and leaves the file alone.
func (p *pi) quiet(what string, want error, f func() error) {
	p.Helper()
	before := string(readFile(p.T, p.path()))
	if err := f(); !errors.Is(err, want) {
		p.Fatalf("%s = %v, want %v", what, err, want)
	}
	if after := string(readFile(p.T, p.path())); after != before {
		p.Fatalf("%s wrote %q", what, after)
	}
}

func TestTrybootConfirm(t *testing.T) {
	p := newPi(t, shippedAutoboot)
	for range 3 { // to B, to A, to B
		old, next := p.booted, p.booted.Other()
		p.steady(old)
		p.quiet("Confirm when steady", bootenv.ErrNoTrial, func() error { return p.loader().Confirm(t.Context()) })
		p.quiet("Revert when steady", nil, func() error { return p.loader().Revert(t.Context()) })
		p.quiet("BeforeWrite", nil, func() error { return p.loader().BeforeWrite(t.Context(), next) })
		p.quiet("Arm", nil, func() error { return p.loader().Arm(t.Context(), next) })
		p.quiet("Arm of the running slot", bootenv.ErrBooted, func() error { return p.loader().Arm(t.Context(), old) })
		p.steady(old) // it is volatile
		p.boot(p.loader().Caps().RebootArgument)
		p.trial(next)
		p.quiet("Arm in the trial", bootenv.ErrTrial, func() error { return p.loader().Arm(t.Context(), old) })
		p.do("Confirm", p.loader().Confirm(t.Context()))
		p.steady(next)
		p.quiet("second Confirm", bootenv.ErrNoTrial, func() error { return p.loader().Confirm(t.Context()) })
		p.boot("")
		p.steady(next)
	}
	want := strings.NewReplacer("partition=2", "partition=3", "partition=3", "partition=2").Replace(shippedAutoboot)
	if got := string(readFile(t, p.path())); got != want {
		t.Errorf("autoboot.txt = %q, want %q", got, want)
	}
}

func TestTrybootFallsBack(t *testing.T) {
	p := newPi(t, shippedAutoboot)
	p.do("Arm", p.loader().Arm(t.Context(), bootenv.B))
	p.boot("0 tryboot")
	p.trial(bootenv.B)
	p.boot("")
	p.steady(bootenv.A)
	p.do("Arm", p.loader().Arm(t.Context(), bootenv.B))
	p.boot("") // somebody else's reboot
	p.steady(bootenv.A)
}

// TestTrybootRevert: what was reverted cannot be confirmed in the same boot,
// and does not stand in the way of the next update.
func TestTrybootRevert(t *testing.T) {
	p := newPi(t, shippedAutoboot)
	p.do("Arm", p.loader().Arm(t.Context(), bootenv.B))
	p.boot("0 tryboot")
	p.do("Revert", p.loader().Revert(t.Context()))
	p.state(bootenv.State{Phase: bootenv.Inconsistent, Booted: bootenv.B, Default: bootenv.A, Next: bootenv.A})
	p.quiet("Confirm after Revert", bootenv.ErrMismatch, func() error { return p.loader().Confirm(t.Context()) })
	p.quiet("second Revert", nil, func() error { return p.loader().Revert(t.Context()) })
	p.quiet("Arm after Revert", bootenv.ErrMismatch, func() error { return p.loader().Arm(t.Context(), bootenv.A) })
	p.boot("0 tryboot") // even so
	p.steady(bootenv.A)
	p.boot("")
	p.do("Arm", p.loader().Arm(t.Context(), bootenv.B))
	if got := string(readFile(t, p.path())); got != shippedAutoboot {
		t.Errorf("autoboot.txt = %q, want %q", got, shippedAutoboot)
	}
	p.boot("0 tryboot")
	p.trial(bootenv.B)
}

func TestTrybootRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, autoboot string
		is             error
		text           string
	}{
		{"not for slots", "[all]\nboot_partition=2\n[tryboot]\nboot_partition=3\n", bootenv.ErrUnsupported, "tryboot_a_b"},
		{"switched off", "[all]\ntryboot_a_b=0\nboot_partition=2\n[tryboot]\nboot_partition=3\n", bootenv.ErrUnsupported, "tryboot_a_b=0"},
		{"nothing to try", "tryboot_a_b=1\nboot_partition=2\n", bootenv.ErrCorrupt, "missing"},
		{"twice", "tryboot_a_b=1\nboot_partition=2\nboot_partition=2\n[tryboot]\nboot_partition=3\n", bootenv.ErrCorrupt, "twice"},
		{"no number", "tryboot_a_b=1\nboot_partition=two\n[tryboot]\nboot_partition=3\n", bootenv.ErrCorrupt, `"two"`},
		{"overridden", "[tryboot]\nboot_partition=3\n[all]\ntryboot_a_b=1\nboot_partition=2\n", bootenv.ErrCorrupt, "overrides"},
		{"other section", "tryboot_a_b=1\nboot_partition=2\n[pi4]\nboot_partition=4\n[tryboot]\nboot_partition=3\n", bootenv.ErrUnsupported, "[pi4]"},
		{"other setting", "tryboot_a_b=1\nkernel=x\nboot_partition=2\n[tryboot]\nboot_partition=3\n", bootenv.ErrUnsupported, "kernel=x"},
		{"other partition", "tryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=4\n", bootenv.ErrMismatch, "4 in [tryboot]"},
		{"too long", shippedAutoboot + strings.Repeat("#", 512), bootenv.ErrUnsupported, "512"},
		{"written with a zero", "tryboot_a_b=1\nboot_partition=02\n[tryboot]\nboot_partition=3\n", bootenv.ErrUnsupported, "change the length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPi(t, shippedAutoboot)
			put(t, p.path(), tt.autoboot)
			p.quiet("CheckArm", tt.is, func() error {
				err := p.loader().CheckArm(t.Context(), bootenv.B)
				if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("CheckArm = %v, want %q in it", err, tt.text)
				}
				return err
			})
		})
	}
}

func TestTrybootFirmware(t *testing.T) {
	state := func(p *pi) error { _, err := p.loader().State(t.Context()); return err }
	p := newPi(t, shippedAutoboot)
	p.firmware(3, 0)
	if err := state(p); !errors.Is(err, bootenv.ErrMismatch) {
		t.Errorf("root A, boot partition 3: %v, want ErrMismatch", err)
	}
	p.firmware(1, 0)
	if err := state(p); !errors.Is(err, bootenv.ErrMismatch) {
		t.Errorf("boot partition 1: %v, want ErrMismatch", err)
	}
	put(t, filepath.Join(p.dir, "partition"), "\x02")
	if err := state(p); !errors.Is(err, bootenv.ErrCorrupt) {
		t.Errorf("short property: %v, want ErrCorrupt", err)
	}
	if err := os.Remove(filepath.Join(p.dir, "partition")); err != nil {
		t.Fatal(err)
	}
	if err := state(p); !errors.Is(err, bootenv.ErrNotFound) {
		t.Errorf("no property: %v, want ErrNotFound", err)
	}
	p = newPi(t, shippedAutoboot)
	p.booted = bootenv.B
	p.firmware(3, 0) // started by its number, without the flag: that is no trial
	p.state(bootenv.State{Phase: bootenv.Inconsistent, Booted: bootenv.B, Default: bootenv.A, Next: bootenv.A})
	p = newPi(t, shippedAutoboot)
	if err := os.Remove(p.path()); err != nil {
		t.Fatal(err)
	}
	if err := state(p); !errors.Is(err, bootenv.ErrNotFound) {
		t.Errorf("no autoboot.txt: %v, want ErrNotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.loader().State(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	for _, cfg := range []bootenv.TrybootConfig{
		{File: "autoboot.txt", Parts: bootenv.Parts{A: 2, B: 3}}, {File: "/a", Parts: bootenv.Parts{A: 2, B: 2}}, {File: "/a", Parts: bootenv.Parts{B: 2}},
	} {
		if _, err := bootenv.OpenTryboot(cfg); err == nil {
			t.Errorf("OpenTryboot(%+v) succeeds", cfg)
		}
	}
}
