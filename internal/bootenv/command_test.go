package bootenv_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// Tools of several kinds, over a file "env" of name=value lines in their
// working directory. Each run of a setter adds a line to "runs".
const (
	// Prints "name=" for what is not set, as libubootenv does.
	getLenient = `
[ $# -eq 0 ] && exec cat env
for n; do v=$(sed -n "s/^$n=//p" env); echo "$n=$v"; done`
	// Fails if a name is not set, as U-Boot's does.
	getStrict = `
[ $# -eq 0 ] && exec cat env
for n; do grep "^$n=" env || { echo "## Error: \"$n\" not defined" >&2; rc=1; }; done
exit $rc`
	setBody = `
echo "$*" >>runs
[ "$*" = "-s -" ] || exit 9
cp env new
while IFS= read -r line; do
	n=${line%%SEP*}; v=${line#*SEP}
	[ "$n" = "$line" ] && continue
	sed -i "/^$n=/d" new
	[ -z "$v" ] || echo "$n=$v" >>new
done
mv new env`
)

func setter(separator string) string { return strings.ReplaceAll(setBody, "SEP", separator) }

// command returns a store behind the tools, and its directory.
func command(t *testing.T, get, set string) (*bootenv.Command, string) {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "env"), "upgrade_available=0\nmender_boot_part=2\nbootcount=0\n")
	put(t, filepath.Join(dir, "runs"), "")
	c, err := bootenv.OpenCommand(bootenv.CommandConfig{
		Getter: script(t, dir, "get", get), Setter: script(t, dir, "set", set), Dir: dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func runs(t *testing.T, dir string) int {
	t.Helper()
	return strings.Count(string(readFile(t, filepath.Join(dir, "runs"))), "\n")
}

func TestCommandUpdate(t *testing.T) {
	arm := []bootenv.Var{{Name: "mender_boot_part", Value: "3"}, {Name: "upgrade_available", Value: "1"}, {Name: "note", Value: "a=b"}, {Name: "bootcount"}}
	want := map[string]string{"mender_boot_part": "3", "upgrade_available": "1", "note": "a=b"}
	for _, tt := range []struct {
		name, get, set string
		runs           int
	}{
		{"lenient getter", getLenient, setter("="), 1},
		{"strict getter", getStrict, setter("="), 1},
		{"old setter", getStrict, setter(" "), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, dir := command(t, tt.get, tt.set)
			if err := c.Update(t.Context(), arm...); err != nil {
				t.Fatalf("Update: %v", err)
			}
			if got := runs(t, dir); got != tt.runs {
				t.Errorf("the setter ran %d times, want %d", got, tt.runs)
			}
			got, err := c.Get(t.Context())
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("Get: %v, (-want +got):\n%s", err, diff)
			}
			got, err = c.Get(t.Context(), "note", "bootcount")
			if diff := cmp.Diff(map[string]string{"note": "a=b"}, got); err != nil || diff != "" {
				t.Errorf("Get(note, bootcount): %v, (-want +got):\n%s", err, diff)
			}
			if err := c.Update(t.Context(), arm...); err != nil || runs(t, dir) != tt.runs {
				t.Errorf("Update without a change: %v, %d runs of the setter", err, runs(t, dir))
			}
			if h, err := c.Check(t.Context(), arm...); err != nil || h.Active != 0 || h.Vars != 3 || h.Atomic || h.Free != -1 {
				t.Errorf("Check = %+v, %v", h, err)
			}
		})
	}
}

func TestCommandRefuses(t *testing.T) {
	arm := []bootenv.Var{{Name: "mender_boot_part", Value: "3"}, {Name: "upgrade_available", Value: "1"}}
	for _, tt := range []struct {
		name, get, set string
		vars           []bootenv.Var
		is             error
		text           string
		runs           int
	}{
		{name: "nothing stored, exit status 0", get: getStrict, set: "echo >>runs; cat >/dev/null", is: bootenv.ErrVerify, text: `"mender_boot_part" is "2", want "3"`, runs: 2},
		{name: "one line refused, exit status 0", get: getStrict, set: "echo >>runs; sed -i s/part=2/part=3/ env", is: bootenv.ErrVerify, text: `"upgrade_available" is "0", want "1"`, runs: 1},
		{name: "exit status", get: getStrict, set: "echo >>runs; echo Read-only file system >&2; exit 1", is: bootenv.ErrProgram, text: `exit status 1: "Read-only file system"`, runs: 1},
		{name: "default of U-Boot's tool", get: `echo "Warning: Bad CRC, using default environment" >&2; cat env`, set: setter("="), is: bootenv.ErrCorrupt, text: "Bad CRC"},
		{name: "default of libubootenv", get: `echo "Cannot read environment, using default" >&2; cat env`, set: setter("="), is: bootenv.ErrCorrupt, text: "using default"},
		{name: "default behind an exit status", get: `echo "Cannot read environment, using default" >&2; exit 243`, set: setter("="), is: bootenv.ErrCorrupt},
		{name: "getter fails", get: "exit 1", set: setter("="), is: bootenv.ErrProgram, text: "get: program failed: exit status 1"},
		{name: "no variables", get: "echo hello", set: setter("="), is: bootenv.ErrProgram, text: `"hello"`},
		{name: "a name twice", get: "echo upgrade_available=0; echo upgrade_available=1", set: setter("="), is: bootenv.ErrCorrupt, text: "twice"},
		{name: "too much", get: "yes x=y | head -c 1048577", set: setter("="), is: bootenv.ErrProgram, text: "more than 1048576 bytes"},
		{name: "name with a blank", get: getStrict, set: setter("="), vars: []bootenv.Var{{Name: "a b", Value: "1"}}, text: "not a valid name"},
		{name: "line break", get: getStrict, set: setter("="), vars: []bootenv.Var{{Name: "a", Value: "1\nb=2"}}, text: "line break"},
		{name: "too long", get: getStrict, set: setter("="), vars: []bootenv.Var{{Name: "a", Value: strings.Repeat("x", 4096)}}, is: bootenv.ErrNoSpace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, dir := command(t, tt.get, tt.set)
			vars := arm
			if tt.vars != nil {
				vars = tt.vars
			}
			err := c.Update(t.Context(), vars...)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Update = %v, want %v with %q", err, tt.is, tt.text)
			}
			if got := runs(t, dir); got != tt.runs {
				t.Errorf("the setter ran %d times, want %d", got, tt.runs)
			}
		})
	}
}

// TestCommandSurroundings: a tool sees nothing of ours but the fixed PATH.
func TestCommandSurroundings(t *testing.T) {
	t.Setenv("FW_ENV_CONFIG", "/somewhere/else")
	c, _ := command(t, `echo "seen=$FW_ENV_CONFIG $PATH"`, "")
	got, err := c.Get(t.Context())
	if want := " " + strings.Join(bootenv.ToolDirs(), ":"); err != nil || got["seen"] != want {
		t.Errorf("the getter sees %q, %v, want %q", got["seen"], err, want)
	}
}

func TestCommandHangs(t *testing.T) {
	dir := t.TempDir()
	path := script(t, dir, "tool", "while :; do :; done")
	c, err := bootenv.OpenCommand(bootenv.CommandConfig{Getter: path, Setter: path, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, bootenv.ErrProgram) {
		t.Errorf("Get = %v, want ErrProgram", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	slow, err := bootenv.OpenCommand(bootenv.CommandConfig{Getter: path, Setter: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, bootenv.ErrProgram) {
		t.Errorf("Get = %v, want DeadlineExceeded alone", err)
	}
}

func TestOpenCommand(t *testing.T) {
	path := script(t, t.TempDir(), "tool", "")
	for _, cfg := range []bootenv.CommandConfig{{Getter: path}, {Setter: path}, {Getter: path, Setter: "/absent"}} {
		if _, err := bootenv.OpenCommand(cfg); err == nil {
			t.Errorf("OpenCommand(%+v) succeeds", cfg)
		}
	}
}

// TestCommandWithFwTools runs the whole contract through the real tools: by
// name and with the quirks of the release that is installed.
func TestCommandWithFwTools(t *testing.T) {
	tier.Device.Need(t, "fw_printenv", "fw_setenv")
	path := func(name string) string {
		p, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	get, set := path("fw_printenv"), path("fw_setenv")
	bootenvtest.Run(t, func(t *testing.T) bootenvtest.Device {
		t.Helper()
		direct, files := openFiles(t, shipped(), true)
		dir := filepath.Dir(files[0])
		configs, err := filepath.Glob(filepath.Join(dir, "*.config"))
		if err != nil || len(configs) != 1 {
			t.Fatalf("configuration of the environment: %v, %v", configs, err)
		}
		c, err := bootenv.OpenCommand(bootenv.CommandConfig{
			Getter: script(t, dir, "get", "exec "+get+" -c "+configs[0]+` "$@"`),
			Setter: script(t, dir, "set", "exec "+set+" -c "+configs[0]+` "$@"`),
		})
		if err != nil {
			t.Fatal(err)
		}
		return bootenvtest.Device{
			Loader: func(booted bootenv.Slot) bootenv.Loader { return bootenv.NewMender(c, parts, booted) },
			Boot: func(t *testing.T) bootenv.Slot {
				t.Helper()
				s, err := bootenvtest.Boot(t.Context(), direct, parts)
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Snapshot: func(t *testing.T) string {
				t.Helper()
				return string(slices.Concat(readFile(t, files[0]), readFile(t, files[1])))
			},
		}
	})
	t.Run("no copy is good", func(t *testing.T) {
		_, files := openFiles(t, shipped(), false)
		if err := os.WriteFile(files[0], make([]byte, len(readFile(t, files[0]))), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(files[0])
		c, err := bootenv.OpenCommand(bootenv.CommandConfig{
			Getter: script(t, dir, "get", "exec "+get+" -c "+dir+`/*.config "$@"`), Setter: set,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "upgrade_available"); !errors.Is(err, bootenv.ErrCorrupt) {
			t.Errorf("Get = %v, want ErrCorrupt", err)
		}
	})
}
