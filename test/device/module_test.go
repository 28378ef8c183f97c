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

// stockModule is what the tests of both modules with rollback need of each:
// an artifact that installs config.txt with that content, and one that fails
// half way.
type stockModule struct {
	good   func(t *testing.T, name, dest, content string) string
	broken func(t *testing.T, name, dest string) string
	alone  bool // what it installs replaces everything in the directory
}

func stockModules() map[string]stockModule {
	return map[string]stockModule{
		"single-file": {good: singleFile, broken: func(t *testing.T, name, dest string) string {
			t.Helper()
			return moduleArtifact(t, "single-file", name, map[string]string{
				"dest_dir": dest + "\n", "filename": "config.txt\n", "permissions": "no mode\n", "config.txt": "broken",
			})
		}},
		"directory": {good: directory, alone: true, broken: func(t *testing.T, name, dest string) string {
			t.Helper()
			return moduleArtifact(t, "directory", name, map[string]string{"dest_dir": dest + "\n", "update.tar": "no archive"})
		}},
	}
}

// TestStockModules runs update modules as Debian ships them, over artifacts
// that the real mender-artifact wrote: install and commit, install and roll
// back, and an installation that fails.
func TestStockModules(t *testing.T) {
	need(t, "mender-artifact", "fw_printenv", "tar", stockShare+"/modules/v3/single-file", stockShare+"/modules/v3/directory")
	t.Setenv("MENDER_DATA_DIR", stockShare)
	for payloadType, m := range stockModules() {
		t.Run(payloadType, func(t *testing.T) {
			d := newDevice(t, 32*mib, "")
			dest := filepath.Join(t.TempDir(), "etc")
			if err := os.Mkdir(dest, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"config.txt", "other"} {
				if err := os.WriteFile(filepath.Join(dest, name), []byte("one"), 0o600); err != nil {
					t.Fatal(err)
				}
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
				lines := "config.txt:" + want + "\n"
				if want == "one" || !m.alone {
					lines += "other:one\n"
				}
				if got := command(t, "sh", "-c", "cd "+dest+"; grep -H . *"); got != lines {
					t.Fatalf("%s holds:\n%swant:\n%s", dest, got, lines)
				}
			}
			run(0, "install", "--reboot-exit-code", m.good(t, "app-2", dest, "two"))
			holds("two")
			run(0, "rollback")
			holds("one")
			run(2, "commit")

			run(0, "install", m.good(t, "app-3", dest, "three"))
			boot(t, d, 2) // the way back outlives a reboot
			run(0, "rollback")
			holds("one")

			if stderr := run(1, "install", m.broken(t, "app-4", dest)); !strings.Contains(stderr, "ArtifactInstall: exit status") {
				t.Errorf("an installation that fails: %s", stderr)
			}
			holds("one")
			run(2, "rollback")
			named(t, d, "release-1")

			run(0, "install", m.good(t, "app-5", dest, "five"))
			run(0, "commit")
			holds("five")
			named(t, d, "app-5")
			if stderr := run(2, "rollback"); !strings.Contains(stderr, "nothing to roll back") {
				t.Errorf("rollback after the commit: %s", stderr)
			}
			checkLeftovers(t, d)
		})
	}
}

// named checks what artifact is installed.
func named(t *testing.T, d *sim.Device, want string) {
	t.Helper()
	if out := command(t, filepath.Join(programs(t), "mender"), "--root", d.Dir, "show-artifact"); out != want+"\n" {
		t.Errorf("show-artifact: %q, want %s", out, want)
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
	named(t, d, "script-1")
	if code, stderr, _ := mender(t, d, "rollback"); code != 2 {
		t.Errorf("rollback: exit status %d: %s", code, stderr)
	}
	bad := moduleArtifact(t, "script", "script-2", map[string]string{"run.sh": "#!/bin/sh\nexit 4\n"})
	if code, stderr, _ := mender(t, d, "install", bad); code != 1 || !strings.Contains(stderr, "exit status 4") {
		t.Errorf("install of a script that fails: exit status %d: %s", code, stderr)
	}
	named(t, d, "script-2_INCONSISTENT")
	checkLeftovers(t, d)
}

// withArtifactInfo runs a program where there is the one file that the client
// insists on outside of its data directory.
const withArtifactInfo = `mount -t tmpfs none /etc/mender; echo artifact_name=factory >/etc/mender/artifact_info; ` + runArguments

const runArguments = `exec "$@"`

// TestModuleWithMenderClient: what this program installs by a module, Debian's
// mender-client commits or rolls back, and the other way round. A device
// without root slots will do.
func TestModuleWithMenderClient(t *testing.T) {
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
			a := newAppliance(t)
			a.put("config.txt", "zero")
			a.mender(0, ours, "install", singleFile(t, "app-1", a.dir, "one"))
			a.mender(0, ours, "commit")
			a.mender(0, tt.installs, "install", singleFile(t, "app-2", a.dir, "two"))
			a.mender(0, tt.ends, tt.verb)
			if got := a.read("config.txt"); got != tt.content {
				t.Errorf("config.txt = %q, want %q", got, tt.content)
			}
			for _, program := range []string{ours, client} {
				a.named(program, tt.artifact)
			}
		})
	}
}
