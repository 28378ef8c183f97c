//go:build device

package kill

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/test/sim"
)

// again parts the calls of an installation from those of the next one.
const again = "again"

// begin starts something, whose name is for error texts. One kill came before.
func (b *bench) begin(about string) { b.about, b.kills, b.trialLost = about, 1, b.lostBefore }

func (b *bench) errorf(format string, args ...any) {
	b.t.Helper()
	b.t.Errorf(b.about+": "+format, args...)
}

// mark tells one installation's calls from the next one's.
func (b *bench) mark() {
	b.t.Helper()
	f, err := os.OpenFile(b.calls(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	b.check(err)
	_, err = f.WriteString(again + "\n")
	b.check(errors.Join(err, f.Close()))
}

func (b *bench) marked() bool { return strings.Contains(strings.Join(b.called(), " "), again) }

// called returns what ran, in its order.
func (b *bench) called() []string {
	b.t.Helper()
	content, err := os.ReadFile(b.calls())
	if !errors.Is(err, fs.ErrNotExist) {
		b.check(err)
	}
	return strings.Fields(string(content))
}

// checkCode takes the exit codes of a program that knows what it says.
func (b *bench) checkCode(code int, out string) {
	b.t.Helper()
	if code < 0 || code > 2 {
		b.errorf("exit status %d\n%s", code, out)
	}
}

// checkNext: the slot that would boot now is whole, and so is the one that the
// boot loader would go back to.
func (b *bench) checkNext() {
	b.t.Helper()
	env, err := b.Env()
	b.check(err)
	b.noteTrial(env)
	for _, n := range sim.Slots {
		next := env["mender_boot_part"] == strconv.Itoa(n) || env["upgrade_available"] == "1"
		if next && b.holds(n) == "" {
			b.errorf("slot %d is not whole, and may boot: %v", n, env)
		}
	}
	if env["vendor_serial"] != "keep me" {
		b.errorf("boot environment: vendor_serial=%q", env["vendor_serial"])
	}
}

// noteTrial looks whether the boot loader has ended a trial that nobody judged.
func (b *bench) noteTrial(env map[string]string) {
	b.t.Helper()
	r, err := state.Read(b.Data())
	b.check(err)
	if p := r.Pending; p != nil && p.Version == 1 && p.Slotted() && env["upgrade_available"] == "0" && env["mender_boot_part"] == "2" {
		b.trialLost = true
	}
}

// holds names the release of which the slot holds all.
func (b *bench) holds(n int) string {
	b.t.Helper()
	content := b.read(n, imageSize)
	for name, image := range b.releases {
		if bytes.Equal(content, image) {
			return name
		}
	}
	return ""
}

// bootNext reboots; the slot that the boot environment names must come up.
func (b *bench) bootNext() {
	b.t.Helper()
	env, err := b.Env()
	b.check(err)
	want := env["mender_boot_part"]
	if env["upgrade_available"] == "1" && env["bootcount"] != "0" { // the trial is over
		want = map[string]string{"2": "3", "3": "2"}[want]
	}
	got, err := b.Boot()
	b.check(err)
	if strconv.Itoa(got) != want {
		b.errorf("slot %d came up, want %s: %v", got, want, env)
	}
	env, err = b.Env()
	b.check(err)
	b.noteTrial(env)
}
