package bootenv_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/bootenv"
	"github.com/usb-updater/usb-updater/internal/bootenv/bootenvtest"
)

// tool runs one of the command-line tools that share the environment with us.
func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// TestWithFwTools lets fw_setenv and this package write in turn, and both read.
func TestWithFwTools(t *testing.T) {
	tier.Device.Need(t, "fw_printenv", "fw_setenv")
	for name, redundant := range map[string]bool{"redundant": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			config := bootenvtest.NewUBootFile(t, t.TempDir(), shipped(), redundant)
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := bootenv.ParseFwEnvConfig(text, "")
			if err != nil {
				t.Fatal(err)
			}
			u := open(t, cfg.Copies...)
			want := shipped()
			check := func(writer string) {
				t.Helper()
				if got, err := u.Get(t.Context()); err != nil {
					t.Fatalf("after %s: %v", writer, err)
				} else if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("after %s, Get (-want +got):\n%s", writer, diff)
				}
				got := map[string]string{}
				for line := range strings.Lines(tool(t, "", "fw_printenv", "-c", config)) {
					k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
					got[k] = v
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("after %s, fw_printenv (-want +got):\n%s", writer, diff)
				}
			}
			check("EncodeImage")
			for range 3 {
				want["upgrade_available"], want["bootcount"] = "1", "0"
				if err := u.Update(t.Context(), bootenv.Var{Name: "upgrade_available", Value: "1"}, bootenv.Var{Name: "bootcount", Value: "0"}); err != nil {
					t.Fatal(err)
				}
				check("Update")
				want["upgrade_available"], want["bootcount"] = "0", "1"
				tool(t, "upgrade_available=0\nbootcount=1\n", "fw_setenv", "-c", config, "-s", "-")
				check("fw_setenv")
			}
		})
	}
}

// TestWithMkenvimage reads what image builders write.
func TestWithMkenvimage(t *testing.T) {
	tier.Device.Need(t, "mkenvimage")
	for name, redundant := range map[string]bool{"redundant": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "env")
			args := []string{"-s", "0x2000", "-o", path, "-"}
			copies := []bootenv.Copy{{Path: path, Size: 0x2000}}
			if redundant {
				args = slices.Insert(args, 0, "-r")
				copies = append(copies, bootenv.Copy{Path: path + "2", Size: 0x2000})
			}
			tool(t, "a=1\nbootcmd=run x; y\n", "mkenvimage", args...)
			if redundant {
				if err := os.WriteFile(path+"2", readFile(t, path), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := open(t, copies...).Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{"a": "1", "bootcmd": "run x; y"}, got); diff != "" {
				t.Errorf("Get (-want +got):\n%s", diff)
			}
		})
	}
}
