//go:build device

// Package uboot asks the real U-Boot what it makes of the environments that
// this project writes. It runs Debian's build of it in QEMU (packages
// qemu-system-x86 and u-boot-qemu), without hardware virtualization, from
// power-on to the prompt in a fraction of a second.
package uboot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

const (
	firmware = "/usr/lib/u-boot/qemu-x86/u-boot.rom"
	qemu     = "qemu-system-x86_64"
	// patience bounds a whole run. It takes two seconds.
	patience = 30 * time.Second

	envSize  = 0x1000
	diskSize = 1 << 20
	block    = 512

	// Where the environments are on the disk: an only copy, two copies, and
	// what U-Boot writes.
	onlyAt, firstAt, secondAt, exportAt = 0x10000, 0x20000, 0x30000, 0x40000
	// memory is a free address in U-Boot.
	memory = 0x2000000
)

// need skips without QEMU or U-Boot, unless REQUIRE demands the device tests.
func need(t *testing.T) {
	t.Helper()
	tier.Device.Need(t, qemu, firmware)
}

// console is U-Boot's prompt.
type console struct {
	*testing.T
	in  io.Writer
	out io.Reader
}

// start powers a machine on with this disk and waits for the prompt.
func start(t *testing.T, disk string) *console {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, qemu, "-accel", "tcg", "-machine", "pc", "-m", "128", "-nodefaults",
		"-display", "none", "-serial", "stdio", "-bios", firmware, "-drive", "if=virtio,format=raw,file="+disk)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	c := &console{t, in, out}
	c.until("autoboot:")
	c.send(" ") // any key stops the countdown
	c.until("\n=> ")
	return c
}

func (c *console) send(s string) {
	c.Helper()
	if _, err := io.WriteString(c.in, s); err != nil {
		c.Fatal(err)
	}
}

// until returns what U-Boot prints before the mark.
func (c *console) until(mark string) string {
	c.Helper()
	const limit = 64 << 10
	var got []byte
	for b := make([]byte, 1); len(got) < limit; got = append(got, b[0]) {
		if text, ok := bytes.CutSuffix(got, []byte(mark)); ok {
			return string(text)
		}
		if _, err := c.out.Read(b); err != nil {
			break
		}
	}
	c.Fatalf("no %q in %q", mark, got)
	return ""
}

// run runs a command and returns what it prints, without its echo.
func (c *console) run(format string, args ...any) string {
	c.Helper()
	command := fmt.Sprintf(format, args...)
	c.send(command + "\r")
	c.until(command + "\r")
	out := strings.ReplaceAll(c.until("\n=> "), "\r\n", "\n")
	return strings.TrimPrefix(strings.ReplaceAll(out, "\r", "\n"), "\n")
}

// do runs a command that must succeed.
func (c *console) do(format string, args ...any) {
	c.Helper()
	out := c.run(format, args...)
	if status := c.run("echo $?"); status != "0\n" {
		c.Fatalf("%s: status %q: %s", fmt.Sprintf(format, args...), status, out)
	}
}

// load reads bytes of the disk into memory.
func (c *console) load(offset int) {
	c.Helper()
	c.do("virtio read %#x %#x %#x", memory, offset/block, envSize/block)
}

// printenv returns the variables. It prints a backslash as two.
func (c *console) printenv() map[string]string {
	c.Helper()
	vars := map[string]string{}
	text, size, ok := strings.Cut(c.run("printenv"), "\n\nEnvironment size: ")
	if !ok {
		c.Fatalf("printenv prints %q %q", text, size)
	}
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			c.Fatalf("printenv prints the line %q", line)
		}
		vars[name] = strings.ReplaceAll(value, `\\`, `\`)
	}
	return vars
}

// values are worth a thought when they are stored, printed or parsed.
var values = map[string]string{
	"mender_boot_part": "3", "mender_boot_part_hex": "3", "upgrade_available": "1", "bootcount": "0",
	"v_blanks": "a  b c", "v_first": " leading", "v_last": "trailing ", "v_equals": "a=b=c", "v_quotes": `"it's"`,
	"v_script": "if test 1 = 1; then echo ${x}; fi", "v_hash": "#1", "v_high": "\xc3\xa9\xff",
	"v_backslash": `a\\b`, "v_escaped": `a\;b`, "v_end": `x\\`, "v_many": `\\\\\\`, "v_lone": `a\b`,
	"v_long": strings.Repeat("0123456789", 60),
}

// unescape is what U-Boot does with a stored value (source: U-Boot,
// lib/hashtable.c, himport_r).
func unescape(stored string) string {
	return regexp.MustCompile(`(?s)\\(.)`).ReplaceAllString(stored, "$1")
}

// TestEnvironment: U-Boot reads what we write, one copy or two, byte by byte,
// and we read what U-Boot writes.
func TestEnvironment(t *testing.T) {
	need(t)
	disk := filepath.Join(t.TempDir(), "disk")
	stores := environments(t, disk)
	for _, u := range stores {
		var pairs []bootenv.Var
		for name, value := range values {
			pairs = append(pairs, bootenv.Var{Name: name, Value: value})
		}
		// In two updates, with a variable that goes again.
		if err := u.Update(t.Context(), append(pairs[:5:5], bootenv.Var{Name: "gone", Value: "1"})...); err != nil {
			t.Fatal(err)
		}
		if err := u.Update(t.Context(), append(pairs[5:], bootenv.Var{Name: "gone"})...); err != nil {
			t.Fatal(err)
		}
	}
	health, err := stores[1].Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	active := []int{firstAt, secondAt}[health.Active]
	want := map[string]string{"shipped": `a\b`}
	for name, value := range values {
		want[name] = unescape(value)
	}

	c := start(t, disk)
	c.do("virtio scan")
	// The format with one copy: U-Boot checks the CRC itself.
	c.load(onlyAt)
	c.do("env import -d -c %#x %#x", memory, envSize)
	if diff := cmp.Diff(want, c.printenv()); diff != "" {
		t.Errorf("one copy, printenv (-want +got):\n%s", diff)
	}
	// One of two copies: it begins behind the flag byte, with the CRC before.
	c.do("env default -f -a")
	c.load(active)
	header := strings.Fields(c.run("md.b %#x 4", memory))
	sum := regexp.MustCompile(`==> ([0-9a-f]{8})`).FindStringSubmatch(c.run("crc32 %#x %#x", memory+5, envSize-5))
	if len(header) < 5 || len(sum) != 2 || header[4]+header[3]+header[2]+header[1] != sum[1] {
		t.Errorf("the CRC in the copy is %q, U-Boot's is %q", header, sum)
	}
	c.do("env import -d -b %#x %#x", memory+5, envSize-5)
	if diff := cmp.Diff(want, c.printenv()); diff != "" {
		t.Errorf("two copies, printenv (-want +got):\n%s", diff)
	}

	// The other way.
	c.do("setenv upgrade_available 0")
	c.do("setenv bootcount")
	c.do("setenv set_here 'a;b = \"c\"'")
	want["upgrade_available"], want["set_here"] = "0", `a;b = "c"`
	delete(want, "bootcount")
	c.do("env export -c -s %#x %#x", envSize, memory)
	c.do("virtio write %#x %#x %#x", memory, exportAt/block, envSize/block)
	exported := open(t, false, bootenv.Copy{Path: disk, Offset: exportAt, Size: envSize})
	stored := maps.Clone(want)
	for name, value := range stored {
		stored[name] = strings.ReplaceAll(value, `\`, `\\`)
	}
	got, err := exported.Get(t.Context())
	if err != nil {
		t.Fatalf("Get of what U-Boot exported: %v", err)
	}
	if diff := cmp.Diff(stored, got); diff != "" {
		t.Errorf("Get of what U-Boot exported (-want +got):\n%s", diff)
	}
}

// environments makes the disk and returns the stores on it: one with an only
// copy, one with two.
func environments(t *testing.T, disk string) []*bootenv.UBoot {
	t.Helper()
	content := make([]byte, diskSize)
	shipped := map[string]string{"shipped": `a\\b`}
	for at, flags := range map[int]*byte{onlyAt: nil, firstAt: new(byte(1)), secondAt: new(byte(1))} {
		image, err := bootenvtest.EncodeImage(shipped, envSize, flags)
		if err != nil {
			t.Fatal(err)
		}
		copy(content[at:], image)
	}
	if err := os.WriteFile(disk, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return []*bootenv.UBoot{
		open(t, true, bootenv.Copy{Path: disk, Offset: onlyAt, Size: envSize}),
		open(t, false, bootenv.Copy{Path: disk, Offset: firstAt, Size: envSize}, bootenv.Copy{Path: disk, Offset: secondAt, Size: envSize}),
	}
}

func open(t *testing.T, single bool, copies ...bootenv.Copy) *bootenv.UBoot {
	t.Helper()
	u, err := bootenv.OpenUBoot(bootenv.UBootConfig{Copies: copies, AllowSingleCopy: single, Locks: []string{filepath.Join(t.TempDir(), "lock")}})
	if err != nil {
		t.Fatal(err)
	}
	return u
}
