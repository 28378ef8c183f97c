//go:build device

package device

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// client is Debian's mender-client, the witness.
const client = "/usr/bin/mender"

// appliance is a device without root slots: a data directory and a
// configuration. around is a shell script that runs its arguments, in a mount
// namespace of its own.
type appliance struct {
	t      *testing.T
	dir    string
	around string
}

func newAppliance(t *testing.T) *appliance {
	t.Helper()
	a := &appliance{t: t, dir: t.TempDir(), around: withArtifactInfo}
	a.put("device_type", "device_type="+deviceType+"\n")
	a.put("mender.conf", "{}")
	return a
}

func (a *appliance) put(name, content string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *appliance) read(name string) string {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b)
}

// command prepares a program that runs there. Its process is the program.
func (a *appliance) command(program string, args ...string) *exec.Cmd {
	shell := []string{"--mount", "sh", "-ec", a.around, "sh", program}
	return exec.CommandContext(a.t.Context(), "unshare", append(shell, args...)...)
}

// run runs a program and returns its exit code and output.
func (a *appliance) run(program string, args ...string) (int, string) {
	a.t.Helper()
	cmd := a.command(program, args...)
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		a.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// mender runs ours or the client, which must end with that exit code.
func (a *appliance) mender(want int, program string, args ...string) string {
	a.t.Helper()
	args = append([]string{"--config", filepath.Join(a.dir, "mender.conf"), "--data", a.dir}, args...)
	code, out := a.run(program, args...)
	if code != want {
		a.t.Fatalf("%s %v: exit status %d, want %d\n%s", program, args, code, want, out)
	}
	return out
}

// named checks what artifact is installed, by the words of program.
func (a *appliance) named(program, want string) {
	a.t.Helper()
	if out := a.mender(0, program, "show-artifact"); !strings.Contains("\n"+out, "\n"+want+"\n") {
		a.t.Errorf("show-artifact: %s, want %s", out, want)
	}
}

// withDpkg runs a program where what dpkg changes is in $SCRATCH: its database,
// its log, and the directory that the test's package installs into.
const withDpkg = `
mkdir -p $SCRATCH/opt $SCRATCH/log $SCRATCH/dpkg/info $SCRATCH/dpkg/updates $SCRATCH/dpkg/triggers
touch $SCRATCH/dpkg/status $SCRATCH/dpkg/available
mount --bind $SCRATCH/dpkg /var/lib/dpkg
mount --bind $SCRATCH/log /var/log
mount --bind $SCRATCH/opt /opt
` + withArtifactInfo

// clients are who runs the stock modules: ours, and the one they were made for.
// What is expected of both is what one can rely on.
func clients(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"ours": filepath.Join(programs(t), "mender"), "mender-client": client}
}

// debArtifact holds a Debian package whose file says its version; preinst is its
// script that runs before the installation.
func debArtifact(t *testing.T, version, preinst string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "app")
	for path, f := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"DEBIAN/control": {fmt.Sprintf("Package: update-module-test\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n", version), 0o644},
		"DEBIAN/preinst": {"#!/bin/sh\n" + preinst + "\n", 0o755},
		"opt/app/says":   {version, 0o644},
	} {
		path = filepath.Join(tree, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(f.content), f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	deb := tree + ".deb"
	command(t, "dpkg-deb", "--root-owner-group", "--build", tree, deb)
	content, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	return moduleArtifact(t, "deb", "app-"+version, map[string]string{"app.deb": string(content)})
}

// TestStockDebModule: Debian's module for packages hands them to the real dpkg.
// It has no way back: what it installs is committed at once, and what fails
// leaves the mark. The machine's own packages are not touched.
func TestStockDebModule(t *testing.T) {
	need(t, "mender-artifact", "unshare", "dpkg", "dpkg-deb", client, stockShare+"/modules/v3/deb")
	one, two := debArtifact(t, "1", ":"), debArtifact(t, "2", ":")
	broken, four := debArtifact(t, "3", "echo BROKEN >&2; exit 1"), debArtifact(t, "4", ":")
	for name, program := range clients(t) {
		t.Run(name, func(t *testing.T) {
			a := newAppliance(t)
			a.around = withDpkg
			t.Setenv("SCRATCH", t.TempDir())
			install := func(want int, artifact string) string {
				t.Helper()
				return a.mender(want, program, "install", artifact)
			}
			installed := func(want string) {
				t.Helper()
				const query = `dpkg-query -W -f '${Version} ${Status} ' update-module-test && cat /opt/app/says`
				if code, out := a.run("sh", "-c", query); code != 0 || out != want+" install ok installed "+want {
					t.Errorf("dpkg has %q (%d), want version %s", out, code, want)
				}
			}
			install(0, one)
			installed("1")
			a.named(program, "app-1")
			a.mender(2, program, "commit")
			a.mender(2, program, "rollback")
			install(0, two)
			installed("2")
			a.named(program, "app-2")

			if out := install(1, broken); !strings.Contains(out, "BROKEN") {
				t.Errorf("what the package says is not told: %s", out)
			}
			installed("2")
			a.named(program, "app-3_INCONSISTENT")
			a.mender(2, program, "commit")
			install(0, four)
			installed("4")
			a.named(program, "app-4")
			if _, err := os.Lstat(filepath.Join(a.dir, "modules/v3/payloads/0000/tree")); err == nil {
				t.Error("the work tree is still there")
			}
			if err := exec.CommandContext(t.Context(), "dpkg-query", "-W", "update-module-test").Run(); err == nil {
				t.Error("the machine has the package now")
			}
		})
	}
}

// dockerModel stands in for Docker, of which the update module needs an engine.
// Images and containers are files in $DOCKER: registry/IMAGE can be pulled,
// images/IMAGE was, containers/ID says "STATUS IMAGE ARGUMENTS". The names of
// commands and options are Docker's.
const dockerModel = `#!/bin/sh
set -eu
cd $DOCKER
verb=$1; shift
need() { [ -e $1 ] || { echo "Error: no such object: $1" >&2; exit 1; }; }
to() { for id; do need containers/$id; read -r _ rest <containers/$id; echo "$status $rest" >containers/$id; echo $id; done; }
case $verb in
ps) [ "$*" = -q ]; grep -l ^running containers/* | sed s,containers/,, ;;
stop) [ $# -gt 0 ]; status=exited; to "$@" ;;
start) [ $# -gt 0 ]; status=running; to "$@" ;;
pull) need registry/$1; touch images/$1 ;;
run)
	[ "$1" = -dt ]; shift
	for image; do :; done
	need images/$image
	id=c$(ls containers | wc -l)
	echo "running $image ${*% *}" >containers/$id
	echo $id ;;
*) echo "docker: unknown command: $verb" >&2; exit 125 ;;
esac
`

// dockerArtifact is for the stock module of that name, which takes everything
// from the meta-data.
func dockerArtifact(t *testing.T, name, image string) string {
	t.Helper()
	dir := t.TempDir()
	meta, out := filepath.Join(dir, "meta.json"), filepath.Join(dir, name+".mender")
	if err := os.WriteFile(meta, fmt.Appendf(nil, `{"containers": [%q], "run_args": "--name app"}`, image), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "mender-artifact", "write", "module-image", "-T", "docker", "-t", deviceType, "-n", name, "-m", meta, "-o", out)
	return out
}

// TestStockDockerModule: Debian's module for containers, over a model of Docker:
// install, roll back, commit, an image that cannot be had, and no Docker at all.
func TestStockDockerModule(t *testing.T) {
	need(t, "mender-artifact", "unshare", "jq", client, stockShare+"/modules/v3/docker")
	two, three := dockerArtifact(t, "app-2", "app:2"), dockerArtifact(t, "app-3", "app:3")
	for name, program := range clients(t) {
		t.Run(name, func(t *testing.T) {
			a := newAppliance(t)
			for _, dir := range []string{"registry/app:2", "images/app:1"} {
				a.put("docker/"+dir, "")
			}
			a.put("docker/containers/c0", "running app:1 --name app\n")
			if err := os.Chmod(a.put("bin/docker", dockerModel), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER", filepath.Join(a.dir, "docker"))
			t.Setenv("PATH", filepath.Join(a.dir, "bin")+":"+os.Getenv("PATH"))
			running := func(want string) {
				t.Helper()
				out := command(t, "sh", "-c", "grep -h ^running $DOCKER/containers/*")
				if got := strings.TrimSpace(out); got != "running "+want+" --name app" {
					t.Errorf("containers: %q, want %s", got, want)
				}
			}
			a.mender(0, program, "install", two)
			running("app:2")
			a.mender(0, program, "rollback")
			running("app:1")
			a.mender(2, program, "commit")
			a.named(program, "factory")

			a.mender(0, program, "install", two)
			a.mender(0, program, "commit")
			running("app:2")
			a.named(program, "app-2")

			a.mender(1, program, "install", three)
			running("app:2")
			a.named(program, "app-2")
			a.mender(2, program, "commit")

			a.put("docker/registry/app:3", "")
			t.Setenv("PATH", withoutDocker(t))
			if out := a.mender(1, program, "install", three); !strings.Contains(out, "Must have docker installed") {
				t.Errorf("no docker: %s", out)
			}
			a.named(program, "app-2")
		})
	}
}

// withoutDocker is a PATH with nothing but what this test itself needs.
func withoutDocker(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, tool := range []string{"unshare", "sh", "mount"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
