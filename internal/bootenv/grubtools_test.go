package bootenv

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/usb-updater/usb-updater/internal/bootenv/grubtest"
)

func output(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

// TestWithGRUBEditenv lets grub-editenv and this package write random values in
// turn, and both read.
func TestWithGRUBEditenv(t *testing.T) {
	tier.Device.Need(t, "grub-editenv")
	path := filepath.Join(t.TempDir(), "grubenv")
	output(t, nil, "grub-editenv", path, "create")
	store := OpenGRUBPlain(GRUBPlainConfig{Path: path, Locks: []string{path + ".lock"}})
	random := rand.New(rand.NewPCG(3, 4))
	word := func(alphabet string, most int) string {
		var b strings.Builder
		for range 1 + random.IntN(most) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		return b.String()
	}
	const letters, any = "abcxyz_0", "ab01 =#\\\\'\"$`\t\x7f\xc3"
	want := map[string]string{}
	for i := range 150 {
		v := Var{word(letters, 3), word(any, 12)}
		switch {
		case i%2 == 0:
			if err := store.Update(t.Context(), v); err != nil {
				t.Fatalf("Update(%q): %v", v, err)
			}
		case i%6 == 1: // only the tool writes line breaks
			v.Value += "\n" + word(any, 3)
			output(t, nil, "grub-editenv", path, "set", v.Name+"="+v.Value)
		default:
			output(t, nil, "grub-editenv", path, "set", v.Name+"="+v.Value)
		}
		want[v.Name] = v.Value
		if len(want) > 8 { // all in one sector
			for name := range want {
				if err := store.Update(t.Context(), Var{Name: name}); err != nil {
					t.Fatal(err)
				}
				delete(want, name)
				break
			}
		}
		got, err := store.Get(t.Context())
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("after %q, Get = %q, %v, want %q", v, got, err, want)
		}
		block, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := decodeGRUBBlock(block)
		if err != nil {
			t.Fatal(err)
		}
		var list strings.Builder // the order is that of the block
		for _, l := range lines {
			if l.name != "" {
				fmt.Fprintf(&list, "%s=%s\n", l.name, want[l.name])
			}
		}
		if got := output(t, nil, "grub-editenv", path, "list"); got != list.String() {
			t.Fatalf("after %q, grub-editenv list = %q, want %q", v, got, list.String())
		}
	}
}

// bootScript has the rules of Mender's script in the words of its description.
const bootScript = `
set root=hd0
set e1=(hd0)/mender_grubenv1/env
set e2=(hd0)/mender_grubenv2/env
set l1=(hd0)/mender_grubenv1/lock
set l2=(hd0)/mender_grubenv2/lock
function take { load_env --skip-sig --file $1 bootcount mender_boot_part upgrade_available mender_systemd_machine_id; }
function give { save_env --file $1 bootcount mender_boot_part upgrade_available mender_systemd_machine_id; }
function mark { set editing=$2; save_env --file $1 editing; }
set editing=none
load_env --skip-sig --file $l2 editing
if [ "$editing" = 0 ]; then
  set editing=none
  load_env --skip-sig --file $l1 editing
  if [ "$editing" != 0 ]; then take $e2; give $e1; mark $l1 0; fi
else
  take $e1; give $e2; mark $l2 0
fi
take $e1
if [ "$mender_boot_part" != %[1]d -a "$mender_boot_part" != %[2]d ]; then set mender_boot_part=%[1]d; set bad=1; fi
if [ "$bootcount" != 0 -a "$bootcount" != 1 ]; then set bad=1; fi
if [ "$upgrade_available" != 0 -a "$upgrade_available" != 1 ]; then set bad=1; fi
if [ "$upgrade_available" = 1 ]; then
  if [ "$bootcount" = 0 ]; then
    set bootcount=1
  else
    if [ "$mender_boot_part" = %[1]d ]; then set mender_boot_part=%[2]d; else set mender_boot_part=%[1]d; fi
    set upgrade_available=0
    set bootcount=0
  fi
  mark $l2 1; give $e2; mark $l2 0
  mark $l1 1; give $e1; mark $l1 0
fi
echo "{part=$mender_boot_part bad=$bad}"
exit
`

// TestWithGRUB boots the states that power cuts leave in the real GRUB, from a
// FAT image, and compares what it starts and writes with the model that the
// power cut tests believe: of writes in place all states, of truncating ones
// those of one change; and what other damage there is.
func TestWithGRUB(t *testing.T) {
	tier.Device.Need(t, "grub-emu", "mformat", "mcopy", "mmd")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("grub/grub.cfg", fmt.Appendf(nil, bootScript, grubA, grubB))
	write("map", []byte("(hd0) "+path("fat")+"\n"))
	boots := 0
	compare := func(what string, image []byte) {
		t.Helper()
		boots++
		d := flatDisk{&disk{data: bytes.Clone(image)}}
		for _, name := range grubNames {
			write(name, d.Read(name))
		}
		write("fat", make([]byte, 256<<10))
		output(t, nil, "mformat", "-i", path("fat"), "::")
		output(t, nil, "mcopy", "-s", "-i", path("fat"), path("mender_grubenv1"), path("mender_grubenv2"), "::")
		got := output(t, []string{"TERM=dumb"}, "grub-emu", "-m", path("map"), "-d", path("grub"), "-r", "host")
		part, err := grubtest.Boot(d, grubA, grubB)
		bad := map[bool]string{true: "1", false: ""}[err != nil]
		if want := fmt.Sprintf("{part=%d bad=%s}", part, bad); !strings.Contains(got, want) {
			t.Errorf("%s: GRUB says %q, want %s", what, got, want)
		}
		output(t, nil, "mcopy", "-s", "-n", "-o", "-i", path("fat"), "::mender_grubenv1", "::mender_grubenv2", dir)
		for _, name := range grubNames {
			b, err := os.ReadFile(path(name))
			if err != nil {
				t.Fatal(err)
			}
			if want := d.Read(name); !bytes.Equal(b, want) {
				t.Errorf("%s: %s after GRUB = %q, want %q", what, name, b, want)
			}
		}
	}
	states := func(sc grubScenario, pad int, w grubWriter, f fault) {
		t.Helper()
		start := flatImage(grubtest.Image(sc.before.lines(pad)...))
		run := &disk{data: bytes.Clone(start)}
		if err := w(run, sc.pairs); err != nil {
			t.Fatal(err)
		}
		afterCut(start, run.log, f, func(image []byte) { compare(sc.name, image) })
	}
	for _, d := range grubDamages() {
		compare(d.name, d.image())
	}
	pads := grubPads()
	for i, sc := range grubScenarios() {
		states(sc, pads["small"], grubUpdate, cut)
		if testing.Short() {
			break
		}
		if i == 0 {
			states(sc, pads["border in upgrade"], grubUpdate, cut)
			states(sc, pads["small"], grubTruncate, cut)
		}
	}
	t.Logf("%d boots of GRUB", boots)
}
