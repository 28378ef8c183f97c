//go:build device

package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usb-updater/usb-updater/test/sim"
)

// stockShare is where Debian's mender-client keeps its update modules.
const stockShare = "/usr/share/mender"

// moduleArtifact has the real mender-artifact write an artifact for an update
// module; files are payload files, name to content.
func moduleArtifact(t *testing.T, payloadType, name string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, name+".mender")
	args := []string{"write", "module-image", "-T", payloadType, "-t", deviceType, "-n", name, "-o", out}
	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-f", path)
	}
	command(t, "mender-artifact", args...)
	return out
}

// singleFile is an artifact for the stock module of that name.
func singleFile(t *testing.T, name, dest, content string) string {
	t.Helper()
	return moduleArtifact(t, "single-file", name, map[string]string{
		"dest_dir": dest + "\n", "filename": "config.txt\n", "permissions": "0640\n", "config.txt": content,
	})
}

// directory is an artifact for the stock module of that name.
func directory(t *testing.T, name, dest, content string) string {
	t.Helper()
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "config.txt"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(t.TempDir(), "update.tar")
	command(t, "tar", "-cf", tar, "-C", tree, ".")
	archive, err := os.ReadFile(tar)
	if err != nil {
		t.Fatal(err)
	}
	return moduleArtifact(t, "directory", name, map[string]string{"dest_dir": dest + "\n", "update.tar": string(archive)})
}

// TestStockModules runs update modules as Debian ships them, over artifacts
// that the real mender-artifact wrote: install and commit, install and roll
// back.
func TestStockModules(t *testing.T) {
	need(t, "mender-artifact", "fw_printenv", "tar", stockShare+"/modules/v3/single-file", stockShare+"/modules/v3/directory")
	t.Setenv("MENDER_DATA_DIR", stockShare)
	for payloadType, artifact := range map[string]func(t *testing.T, name, dest, content string) string{
		"single-file": singleFile, "directory": directory,
	} {
		t.Run(payloadType, func(t *testing.T) {
			d := newDevice(t, 32*mib, "")
			dest := filepath.Join(t.TempDir(), "etc")
			if err := os.Mkdir(dest, 0o755); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dest, "config.txt")
			if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
				t.Fatal(err)
			}
			run := func(want int, args ...string) string {
				t.Helper()
				code, stderr, _ := mender(t, d, args...)
				if code != want {
					t.Fatalf("mender %v: exit status %d, want %d: %s", args, code, want, stderr)
				}
				return stderr
			}
			holds := func(want string) {
				t.Helper()
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Fatalf("%s = %q, %v, want %q", file, got, err, want)
				}
			}
			run(0, "install", "--reboot-exit-code", artifact(t, "app-2", dest, "two"))
			holds("two")
			run(0, "rollback")
			holds("one")
			run(2, "commit")

			run(0, "install", artifact(t, "app-3", dest, "three"))
			boot(t, d, 2) // the way back outlives a reboot
			run(0, "rollback")
			holds("one")

			run(0, "install", artifact(t, "app-4", dest, "four"))
			run(0, "commit")
			holds("four")
			if stderr := run(2, "rollback"); !strings.Contains(stderr, "nothing to roll back") {
				t.Errorf("rollback after the commit: %s", stderr)
			}
			checkLeftovers(t, d)
		})
	}
}

// checkLeftovers: the device has one root slot that boots, and no work tree.
func checkLeftovers(t *testing.T, d *sim.Device) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(d.Data(), "modules/v3/payloads/0000/tree")); err == nil {
		t.Error("the work tree is still there")
	}
	if env := printenv(t, d); !strings.Contains(env, "mender_boot_part=2") || !strings.Contains(env, "upgrade_available=0") {
		t.Errorf("boot environment:\n%s", env)
	}
}

// TestStockScriptModule: Debian's module for scripts has no way back, so that
// what it installs is committed at once.
func TestStockScriptModule(t *testing.T) {
	need(t, "mender-artifact", "fw_printenv", stockShare+"/modules/v3/script")
	t.Setenv("MENDER_DATA_DIR", stockShare)
	d := newDevice(t, 32*mib, "")
	proof := filepath.Join(t.TempDir(), "proof")
	good := moduleArtifact(t, "script", "script-1", map[string]string{"run.sh": "#!/bin/sh\necho done >" + proof + "\n"})
	if code, stderr, _ := mender(t, d, "install", good); code != 0 {
		t.Fatalf("install: exit status %d: %s", code, stderr)
	}
	if got, err := os.ReadFile(proof); err != nil || string(got) != "done\n" {
		t.Errorf("%s = %q, %v", proof, got, err)
	}
	if code, stderr, _ := mender(t, d, "commit"); code != 2 {
		t.Errorf("commit: exit status %d: %s", code, stderr)
	}
	bad := moduleArtifact(t, "script", "script-2", map[string]string{"run.sh": "#!/bin/sh\nexit 4\n"})
	if code, stderr, _ := mender(t, d, "install", bad); code != 1 || !strings.Contains(stderr, "exit status 4") {
		t.Errorf("install of a script that fails: exit status %d: %s", code, stderr)
	}
	checkLeftovers(t, d)
}

// withArtifactInfo runs a program where there is the one file that the client
// insists on outside of its data directory.
const withArtifactInfo = `mount -t tmpfs none /etc/mender; echo artifact_name=factory >/etc/mender/artifact_info; exec "$@"`

// TestModuleWithMenderClient: what this program installs by a module, Debian's
// mender-client commits or rolls back, and the other way round. A device
// without root slots will do.
func TestModuleWithMenderClient(t *testing.T) {
	const client = "/usr/bin/mender"
	need(t, "mender-artifact", "unshare", client, stockShare+"/modules/v3/single-file")
	ours := filepath.Join(programs(t), "mender")
	for _, tt := range []struct {
		name, installs, ends, verb, content, artifact string
	}{
		{"ours, committed by the client", ours, client, "commit", "two", "app-2"},
		{"ours, rolled back by the client", ours, client, "rollback", "one", "app-1"},
		{"the client's, committed by ours", client, ours, "commit", "two", "app-2"},
		{"the client's, rolled back by ours", client, ours, "rollback", "one", "app-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range map[string]string{
				"device_type": "device_type=" + deviceType + "\n", "mender.conf": "{}", "config.txt": "zero",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mender := func(program string, args ...string) string {
				t.Helper()
				args = append([]string{program, "--config", filepath.Join(dir, "mender.conf"), "--data", dir}, args...)
				return command(t, "unshare", append([]string{"--mount", "sh", "-ec", withArtifactInfo, "sh"}, args...)...)
			}
			mender(ours, "install", singleFile(t, "app-1", dir, "one"))
			mender(ours, "commit")
			mender(tt.installs, "install", singleFile(t, "app-2", dir, "two"))
			mender(tt.ends, tt.verb)
			if got, err := os.ReadFile(filepath.Join(dir, "config.txt")); err != nil || string(got) != tt.content {
				t.Errorf("config.txt = %q, %v, want %q", got, err, tt.content)
			}
			for _, program := range []string{ours, client} {
				if got := mender(program, "show-artifact"); !strings.HasPrefix(got, tt.artifact+"\n") && !strings.HasSuffix(got, tt.artifact+"\n") {
					t.Errorf("%s show-artifact: %s, want %s", program, got, tt.artifact)
				}
			}
		})
	}
}
