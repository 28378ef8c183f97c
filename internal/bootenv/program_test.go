package bootenv_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// script writes an executable shell script and returns its path.
func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindTool(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	script(t, two, "tool", "")
	script(t, one, "other", "")
	put(t, filepath.Join(one, "tool"), "not executable")
	dirs := []string{filepath.Join(one, "absent"), one, two}
	for _, tt := range []struct {
		name string
		want string
		is   error
	}{
		{"tool", filepath.Join(two, "tool"), nil},
		{filepath.Join(one, "other"), filepath.Join(one, "other"), nil},
		{filepath.Join(one, "tool"), "", bootenv.ErrNotFound},
		{"absent", "", bootenv.ErrNotFound},
		{"../tool", "", nil},
		{"", "", nil},
	} {
		got, err := bootenv.FindTool(dirs, tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("FindTool(%q) = %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.is)
		}
	}
}

// maker is a program as a device's maker would write it. It keeps its state in
// one file of three words: permanent slot, slot to try, and whether that was
// started.
const maker = `
read -r permanent try used <env
read -r booted <booted
case $1 in
state)
	phase=inconsistent
	if [ "$booted" = "$permanent" ]; then
		phase=steady
		[ "$try" = - ] || phase=armed
	elif [ "$try" = "$booted" ]; then
		phase=trial
	fi
	echo "{\"booted\": \"$booted\", \"phase\": \"$phase\"}" ;;
arm) echo "$permanent $2 no" >env ;;
confirm) echo "$try - no" >env ;;
revert) echo "$permanent - no" >env ;;
*) exit 2 ;;
esac`

// makerBoots is the boot loader of that device.
func makerBoots(t *testing.T, dir string) bootenv.Slot {
	t.Helper()
	words := strings.Fields(string(readFile(t, filepath.Join(dir, "env"))))
	booted := words[0]
	switch {
	case words[1] != "-" && words[2] == "no":
		booted, words[2] = words[1], "yes"
	case words[2] == "yes":
		words[1], words[2] = "-", "no"
	}
	put(t, filepath.Join(dir, "env"), strings.Join(words, " ")+"\n")
	put(t, filepath.Join(dir, "booted"), booted+"\n")
	if booted == "B" {
		return bootenv.B
	}
	return bootenv.A
}

func TestCustom(t *testing.T) {
	bootenvtest.Run(t, func(t *testing.T) bootenvtest.Device {
		t.Helper()
		dir := t.TempDir()
		path := script(t, dir, "loader", maker)
		put(t, filepath.Join(dir, "env"), "A - no\n")
		return bootenvtest.Device{
			Loader: func(booted bootenv.Slot) bootenv.Loader {
				c, err := bootenv.OpenCustom(bootenv.CustomConfig{Program: path, Dir: dir, Booted: booted})
				if err != nil {
					t.Fatal(err)
				}
				return c
			},
			Boot:     func(t *testing.T) bootenv.Slot { t.Helper(); return makerBoots(t, dir) },
			Snapshot: func(t *testing.T) string { t.Helper(); return string(readFile(t, filepath.Join(dir, "env"))) },
		}
	})
}

func TestCustomAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		is         error
		text       string
	}{
		{"good", `echo '{"booted":"A","phase":"steady","degraded":["worn"]}'`, nil, ""},
		{"another slot", `echo '{"booted":"B","phase":"steady"}'`, bootenv.ErrMismatch, "says that slot B runs, slot A does"},
		{"nothing", ``, bootenv.ErrProgram, "not a JSON object"},
		{"no object", `echo '["A"]'`, bootenv.ErrProgram, "not a JSON object"},
		{"cut", `printf '{"booted":"A"'`, bootenv.ErrProgram, "JSON"},
		{"letter case", `echo '{"Booted":"A","phase":"steady"}'`, bootenv.ErrProgram, `"Booted"`},
		{"unknown member", `echo '{"booted":"A","phase":"steady","phaze":1}'`, bootenv.ErrProgram, `"phaze"`},
		{"twice", `echo '{"booted":"A","booted":"A","phase":"steady"}'`, bootenv.ErrProgram, "twice"},
		{"missing", `echo '{"booted":"A"}'`, bootenv.ErrProgram, "required"},
		{"unknown phase", `echo '{"booted":"A","phase":"idle"}'`, bootenv.ErrProgram, `"idle" is none of [steady armed trial inconsistent]`},
		{"null", `echo '{"booted":null,"phase":"steady"}'`, bootenv.ErrProgram, "none of [A B]"},
		{"more", `echo '{"booted":"A","phase":"steady"} {}'`, bootenv.ErrProgram, "follows"},
		{"long", `printf '{"booted":"A","phase":"steady"}%05000d' 0`, bootenv.ErrProgram, "more than 4096 bytes"},
		{"remark", `printf '{"booted":"A","phase":"steady","degraded":["%0201d"]}' 0`, bootenv.ErrProgram, "longer than 200"},
		{"exit status", `echo '{"booted":"A","phase":"steady"}'; echo first >&2; echo no medium >&2; exit 3`, bootenv.ErrProgram, `exit status 3: "no medium"`},
		{"busy", `exit 75`, bootenv.ErrBusy, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := bootenv.OpenCustom(bootenv.CustomConfig{Program: script(t, t.TempDir(), "loader", tt.body)})
			if err != nil {
				t.Fatal(err)
			}
			st, err := c.State(t.Context())
			if tt.is == nil {
				if err != nil || len(st.Degraded) != 1 || st.Phase != bootenv.Steady {
					t.Errorf("State = %+v, %v", st, err)
				}
				return
			}
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("State = %v, want %v with %q", err, tt.is, tt.text)
			}
		})
	}
}

// TestCustomIsNotTrusted: exit status 0 of a verb that did nothing is an error.
func TestCustomIsNotTrusted(t *testing.T) {
	for phase, verb := range map[string]func(context.Context, *bootenv.Custom) error{
		"steady": func(ctx context.Context, c *bootenv.Custom) error { return c.Arm(ctx, bootenv.B) },
		"armed":  func(ctx context.Context, c *bootenv.Custom) error { return c.BeforeWrite(ctx, bootenv.B) },
		"trial":  func(ctx context.Context, c *bootenv.Custom) error { return c.Confirm(ctx) },
	} {
		c, err := bootenv.OpenCustom(bootenv.CustomConfig{
			Program: script(t, t.TempDir(), "loader", `[ "$1" != state ] || echo '{"booted":"A","phase":"`+phase+`"}'`),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := verb(t.Context(), c); !errors.Is(err, bootenv.ErrVerify) {
			t.Errorf("%s: %v, want ErrVerify", phase, err)
		}
	}
}
