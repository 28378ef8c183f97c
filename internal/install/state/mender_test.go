package state

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/tier"
)

// TestWithMender lets Mender's client 3.x read the store.
func TestWithMender(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "mender", "-version").Output()
	// Our own program of that name does not name a Go runtime.
	if err != nil || !strings.HasPrefix(string(version), "3.") || !strings.Contains(string(version), "runtime: go") {
		tier.Device.Lack(t, fmt.Sprintf("mender 3.x (Debian package mender-client): %q, %v", version, err))
	}
	if strconv.IntSize != 64 {
		t.Skip("a client of another word size does not read the store")
	}
	dir := t.TempDir()
	config := filepath.Join(t.TempDir(), "mender.conf")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	r := full()
	r.Failed["large"] = Failure{Reason: strings.Repeat("overflow pages ", 1000)}
	save(t, s, r)
	for command, want := range map[string]string{
		"show-artifact": "release-1\n",
		"show-provides": "artifact_group=group\nartifact_name=release-1\nrootfs-image.version=release-1\n",
	} {
		out, err := exec.CommandContext(t.Context(), "mender", "-config", config, "-data", dir, command).Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		lines := slices.Sorted(strings.Lines(string(out)))
		if got := strings.Join(lines, ""); got != want {
			t.Errorf("%s = %q, want %q", command, got, want)
		}
	}
	// The client opens the store for writing; ours must still read it.
	save(t, s, load(t, s))
}
