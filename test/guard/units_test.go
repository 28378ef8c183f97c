package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxExposure is what systemd may find exposed in each unit, in tenths (source:
// systemd-analyze security; 100 is everything). Health checks may connect to
// services of the device, hence the larger number of their unit.
func maxExposure() map[string]string {
	return map[string]string{
		"usb-updater@.service":            "15",
		"usb-updater-boot.service":        "15",
		"usb-updater-boot-failed.service": "15",
		healthUnit:                        "16",
	}
}

const healthUnit = "usb-updater-health@.service"

// TestUnits lets systemd check the units, and rate the agent's sandbox.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	dir := t.TempDir()
	units, err := filepath.Glob(filepath.Join(root, "systemd/*.s*"))
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	var copies []string
	for _, unit := range units {
		copies = append(copies, verifiable(t, dir, unit))
	}
	for _, unit := range copies { // which may name each other
		verify(t, unit)
	}
	limits := maxExposure()
	for _, unit := range units {
		if name := filepath.Base(unit); strings.HasSuffix(name, ".service") && limits[name] == "" {
			t.Errorf("nobody says how exposed %s may be", name)
		}
	}
	for unit, limit := range limits {
		path := filepath.Join(root, "systemd", unit)
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold="+limit, path).CombinedOutput()
		if err != nil {
			t.Errorf("%s is more exposed than %s: %v\n%s", unit, limit, err, out)
		}
	}
}

// verifiable copies a unit so that it can be read although the program and its
// man page are not installed here.
func verifiable(t *testing.T, dir, unit string) string {
	t.Helper()
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "/usr/bin/usb-updater", "/bin/true")
	text = strings.ReplaceAll(text, "Documentation=man:usb-updater(8)\n", "")
	name := filepath.Join(dir, filepath.Base(unit))
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, "@.service") {
		return name
	}
	instance := strings.Replace(name, "@.", "@sda1.", 1)
	if err := os.Symlink(name, instance); err != nil {
		t.Fatal(err)
	}
	return instance
}

func verify(t *testing.T, unit string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "usb-updater") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify %s: %v\n%s", filepath.Base(unit), err, out)
	}
}

// TestUnitsWithoutNetwork: a process that writes slots or boot environment has
// no network, not even that of the device itself.
func TestUnitsWithoutNetwork(t *testing.T) {
	for unit := range maxExposure() {
		b, err := os.ReadFile(filepath.Join(root, "systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		text := "\n" + string(b)
		want := []string{"PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "IPAddressDeny=any"}
		if unit == healthUnit {
			want = []string{"IPAddressDeny=any", "IPAddressAllow=localhost"}
		}
		for _, line := range want {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
		if unit != healthUnit && strings.Contains(text, "\nIPAddressAllow=") {
			t.Errorf("%s allows addresses", unit)
		}
	}
}

// TestSandboxLeavesTheDevices: some options of systemd take away what the agent
// writes and mounts, and nobody would notice before a stick is plugged in.
func TestSandboxLeavesTheDevices(t *testing.T) {
	tests := map[string]struct {
		with    []string // lines that must be there if the option is
		without bool     // the option must not be there at all
	}{
		"PrivateDevices=":        {without: true}, // hides block devices
		"PrivateUsers=":          {without: true}, // takes root's rights to devices
		"ProcSubset=":            {without: true}, // hides cmdline, device-tree, boot id
		"DynamicUser=":           {without: true},
		"User=":                  {without: true},
		"ProtectClock=":          {with: []string{"DeviceAllow=block-* rw"}}, // makes a list of devices
		"DevicePolicy=":          {with: []string{"DeviceAllow=block-* rw", "DeviceAllow=char-mtd rw", "DeviceAllow=char-ubi* rw"}},
		"ProtectSystem=":         {with: []string{"ReadWritePaths=/run -/var/lib/mender -/data -/boot -/uboot -/efi -/var/lock"}},
		"ProtectKernelTunables=": {with: []string{"ReadWritePaths=-/sys/devices"}}, // force_ro
	}
	for unit := range maxExposure() {
		if unit == healthUnit {
			continue // it writes none of them
		}
		b, err := os.ReadFile(filepath.Join(root, "systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		text := "\n" + string(b)
		for option, tt := range tests {
			switch used := strings.Contains(text, "\n"+option); {
			case used && tt.without:
				t.Errorf("%s has %s, with which the agent cannot do its work", unit, option)
			case used:
				for _, line := range tt.with {
					if !strings.Contains(text, "\n"+line+"\n") {
						t.Errorf("%s has %s and lacks %s", unit, option, line)
					}
				}
			}
		}
	}
}

// TestTrialDoesNotStayOpen: each way in which the boot check can end without a
// verdict leads to the unit that leaves the trial, and nothing reboots on its
// own account.
func TestTrialDoesNotStayOpen(t *testing.T) {
	for unit, want := range map[string][]string{
		"usb-updater-boot.service": {
			"OnFailure=usb-updater-boot-failed.service", "JobTimeoutSec=", "TimeoutStartSec=", "Type=oneshot",
			"WantedBy=multi-user.target", "Also=usb-updater-boot-failed.service",
			"Wants=usb-updater-health.socket", // Requires= would keep the check from running
		},
		"usb-updater-boot-failed.service": {
			"ExecStart=/usr/bin/usb-updater boot-check --give-up", "DefaultDependencies=no", "Conflicts=shutdown.target", "IgnoreOnIsolate=yes",
			"Type=exec", "RuntimeMaxSec=", "WantedBy=emergency.target",
		},
		"usb-updater@.service": {"After=dev-%i.device local-fs.target usb-updater-boot.service"},
	} {
		b, err := os.ReadFile(filepath.Join(root, "systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		text := "\n" + string(b)
		for _, line := range want {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
		if unit == "usb-updater-boot-failed.service" && strings.Contains(text, "\nPrivateTmp=") {
			t.Errorf("%s waits for the file system of /var/tmp, which may be what broke the boot", unit)
		}
		for _, action := range []string{"FailureAction=", "JobTimeoutAction=", "StartLimitAction=", "SuccessAction="} {
			if strings.Contains(text, "\n"+action) {
				t.Errorf("%s has %s, which also reboots a system that was committed", unit, action)
			}
		}
	}
}
