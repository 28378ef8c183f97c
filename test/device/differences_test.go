//go:build device

package device

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

// difference is a row of the compatibility page, "Where it differs on purpose".
type difference struct {
	situation, v3          string // the row's first two cells
	try                    func(m *machine, program string) string
	ours, v3Finds, v5Finds string // what try finds
}

// state says in short what a run has come to.
func (m *machine) state(program string, code int) string {
	m.t.Helper()
	return fmt.Sprintf("%d %s %s", code, m.armed(), m.named(program))
}

// onTrial installs release-2 and boots it.
func (m *machine) onTrial(program string) {
	m.t.Helper()
	m.must(program, "install", m.artifact("release-2", artifacttest.Spec{Scripts: scripts()}))
	m.boot(3)
}

func (m *machine) fail(state string) { m.touch("fail-" + state) }

func (m *machine) touch(name string) {
	m.t.Helper()
	if err := os.WriteFile(m.data(name), nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// ran tells which of the scripts ran.
func (m *machine) ran(scripts ...string) string {
	m.t.Helper()
	var out []string
	for _, call := range m.called() {
		if slices.Contains(scripts, call) {
			out = append(out, call)
		}
	}
	return strings.Join(out, " ")
}

// module is an update module for payloads of the type app.
func (m *machine) module(body string) string {
	m.t.Helper()
	m.put("v3/app", "#!/bin/sh\necho $1 >>/var/lib/mender/calls\n"+body+"\n")
	if err := os.Chmod(filepath.Join(m.dir, "v3/app"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.t.Setenv("BEFORE", "mount --bind /mnt/v3 /usr/share/mender/modules/v3")
	return m.artifact("app-2", artifacttest.Spec{PayloadType: "app", Files: []artifacttest.File{artifacttest.Bytes("app", make([]byte, 8192))}})
}

func (m *machine) configure(more string) {
	m.t.Helper()
	m.put("mender.conf", `{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3", `+more+`}`)
}

func updates() []difference {
	return []difference{
		{"install while an update is pending", "overwrites it", func(m *machine, program string) string {
			m.must(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			code, _ := m.code(program, "install", m.artifact("release-3", artifacttest.Spec{}))
			return fmt.Sprintf("%d %s", code, m.holds(3))
		}, "1 release-2", "0 release-3", "1 release-2"},
		{"commit before the reboot", "commits", func(m *machine, program string) string {
			m.must(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			code, _ := m.code(program, "commit")
			return m.state(program, code)
		}, "1 3/1 release-1", "0 3/0 release-2", "1 2/0 release-1"},
		{"commit after the boot loader went back", "runs commit scripts on the old system", func(m *machine, program string) string {
			m.onTrial(program)
			m.boot(2)
			code, _ := m.code(program, "commit")
			return m.state(program, code) + " " + m.ran("ArtifactCommit_Enter", "ArtifactFailure_Enter")
		}, "1 2/0 release-1 ArtifactFailure_Enter", "1 2/0 release-1 ArtifactCommit_Enter ArtifactFailure_Enter", "1 2/0 release-1 ArtifactCommit_Enter ArtifactFailure_Enter"},
		{"commit of a trial whose record is lost", "commits", func(m *machine, program string) string {
			m.onTrial(program)
			if err := os.Remove(m.data("mender-store")); err != nil {
				m.t.Fatal(err)
			}
			code, _ := m.code(program, "commit")
			return m.state(program, code)
		}, "0 3/0 release-2", "0 3/0 release-2", "2 3/1 unknown"},
		{"power cut between commit and its record", "keeps the old name", func(m *machine, program string) string {
			m.onTrial(program)
			if err := m.device.SetEnv(map[string]string{"upgrade_available": "0"}); err != nil {
				m.t.Fatal(err)
			}
			code, _ := m.code(program, "commit")
			return m.state(program, code)
		}, "0 3/0 release-2", "1 3/0 release-1", "1 2/0 release-1"},
		{"commit where the boot environment protects `upgrade_available`", "says that it has committed; the trial stays open", func(m *machine, program string) string {
			m.onTrial(program)
			if err := m.device.SetEnv(map[string]string{".flags": "upgrade_available:dr"}); err != nil {
				m.t.Fatal(err)
			}
			code, _ := m.code(program, "commit")
			return m.state(program, code) + " " + m.ran("ArtifactCommit_Enter")
		}, "1 3/1 release-1 ", "0 3/1 release-2 ArtifactCommit_Enter", "0 3/1 release-2 ArtifactCommit_Enter"},
		{"ArtifactFailure after `rollback`", "does not run", func(m *machine, program string) string {
			m.onTrial(program)
			code, _ := m.code(program, "rollback")
			return m.state(program, code) + " " + m.ran("ArtifactRollback_Enter", "ArtifactFailure_Enter")
		}, "0 2/0 release-1 ArtifactRollback_Enter ArtifactFailure_Enter", "0 2/0 release-1 ArtifactRollback_Enter", "0 2/0 release-1 ArtifactRollback_Enter ArtifactFailure_Enter"},
		{"ArtifactCommit_Error after a failed ArtifactCommit_Leave", "runs", func(m *machine, program string) string {
			m.onTrial(program)
			m.fail("ArtifactCommit_Leave")
			code, _ := m.code(program, "commit")
			return m.state(program, code) + " " + m.ran("ArtifactCommit_Error")
		}, "1 3/0 release-2_INCONSISTENT ArtifactCommit_Error", "1 3/0 release-2_INCONSISTENT ArtifactCommit_Error", "1 3/0 release-2_INCONSISTENT "},
		{"killed by SIGTERM", "exit code 0", func(m *machine, program string) string {
			return m.state(program, m.terminate(program))
		}, "143 2/0 release-1", "0 2/0 release-1", "-1 2/0 release-1"},
	}
}

func artifacts() []difference {
	return []difference{
		{"wrong artifact, Download_Enter", "runs before the header is read", func(m *machine, program string) string {
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{DeviceTypes: []string{"other"}}))
			return m.state(program, code) + " " + m.ran("Download_Enter")
		}, "1 2/0 release-1 ", "1 2/0 release-1 Download_Enter", "1 2/0 release-1 "},
		{"script that is not executable", "an error", func(m *machine, program string) string {
			m.put("scripts/Download_Enter_00", says)
			m.put("scripts/version", "3")
			m.t.Setenv("BEFORE", "mount --bind /mnt/scripts /etc/mender/scripts")
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			return m.state(program, code)
		}, "1 2/0 release-1", "1 2/0 release-1", "0 3/1 release-1"},
		{"`version` file of the device's scripts is missing", "an error", func(m *machine, program string) string {
			m.put("scripts/Download_Enter_00", says)
			m.t.Setenv("BEFORE", "chmod 755 /mnt/scripts/Download_Enter_00; mount --bind /mnt/scripts /etc/mender/scripts")
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			return m.state(program, code)
		}, "0 3/1 release-1", "1 2/0 release-1", "0 3/1 release-1"},
		{"verification key unreadable", "verification off", func(m *machine, program string) string {
			m.configure(`"ArtifactVerifyKey": "/none.pem"`)
			code, _ := m.code(program, "--config", "/mnt/mender.conf", "install", m.artifact("release-2", artifacttest.Spec{}))
			return m.state(program, code)
		}, "1 2/0 release-1", "0 3/1 release-1", "1 2/0 release-1"},
		{"empty device type", "accepts any artifact", func(m *machine, program string) string {
			m.touch("device_type")
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{DeviceTypes: []string{"other"}}))
			return m.state(program, code)
		}, "1 2/0 release-1", "0 3/1 release-1", "1 2/0 release-1"},
		{"inactive partition mounted", "fails", func(m *machine, program string) string {
			if err := m.device.Flash(3, m.image("release-1")); err != nil {
				m.t.Fatal(err)
			}
			m.t.Setenv("BEFORE", "mount -o ro /dev/mmcblk0p3 /var/lib/mender/mounted")
			if err := os.Mkdir(m.data("mounted"), 0o755); err != nil {
				m.t.Fatal(err)
			}
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			m.t.Setenv("BEFORE", "")
			return m.state(program, code)
		}, "0 3/1 release-1", "1 2/0 release-1", "0 3/1 release-1"},
		{"`fw_setenv` is missing or broken", "fails", func(m *machine, program string) string {
			m.t.Setenv("BEFORE", "mount --bind /bin/false /usr/bin/fw_setenv")
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			m.t.Setenv("BEFORE", "")
			return m.state(program, code)
		}, "0 3/1 release-1", "1 2/0 release-1", "1 2/0 release-2_INCONSISTENT"},
		{"artifact of format version 2", "works", func(m *machine, program string) string {
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{Version: 2}))
			return m.state(program, code)
		}, "0 3/1 release-1", "0 3/1 release-1", "1 2/0 release-1"},
		{"state script with the word of another action in its description", "runs for both", func(m *machine, program string) string {
			script := artifacttest.Script{Name: "ArtifactInstall_Leave_00_Enter", Data: []byte(says)}
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{Scripts: []artifacttest.Script{script}}))
			return m.state(program, code) + " " + m.ran(script.Name)
		}, "0 3/1 release-1 ArtifactInstall_Leave_00_Enter", "0 3/1 release-1 ArtifactInstall_Leave_00_Enter ArtifactInstall_Leave_00_Enter", "0 3/1 release-1 ArtifactInstall_Leave_00_Enter"},
		{"writes of the boot environment for an install", "two or three", func(m *machine, program string) string {
			before := m.envWrites()
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			return fmt.Sprintf("%d %d", code, m.envWrites()-before)
		}, "0 1", "0 2", "0 1"},
		{"type-info `depends` as a list", "works", func(m *machine, program string) string {
			m.store(map[string][]byte{"artifact-name": []byte("release-1"), "artifact-provides": []byte(`{"data.version":"1"}`)})
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{Depends: map[string][]string{"data.version": {"0", "1"}}}))
			return m.state(program, code)
		}, "0 3/1 release-1", "0 3/1 release-1", "1 2/0 release-1"},
	}
}

func modules() []difference {
	return []difference{
		{"update module that answers garbage about rollback", "nothing installed", func(m *machine, program string) string {
			code, _ := m.code(program, "install", m.module("case $1 in SupportsRollback) echo Perhaps;; esac"))
			return m.state(program, code) + " " + m.ran("ArtifactInstall", "Cleanup")
		}, "1 2/0 release-1 Cleanup", "1 2/0 release-1 Cleanup", "1 2/0 app-2_INCONSISTENT ArtifactInstall Cleanup"},
		{"`Cleanup` of a module fails", "the new name", func(m *machine, program string) string {
			code, _ := m.code(program, "install", m.module("[ $1 != Cleanup ]"))
			return m.state(program, code)
		}, "1 2/0 app-2", "1 2/0 app-2", "1 2/0 app-2_INCONSISTENT"},
		{"work tree of a module", "for root only", func(m *machine, program string) string {
			code, _ := m.code(program, "install", m.module("[ $1 != ArtifactInstall ] || stat -c '%a' . files/app >>/var/lib/mender/calls"))
			return fmt.Sprintf("%d %s", code, m.ran("700", "755", "600", "644"))
		}, "0 700 600", "0 700 600", "0 755 644"},
	}
}

// configured is a device with a file in place of its mender.conf.
func (m *machine) configured(content string) {
	m.t.Helper()
	m.put("mender.conf", content)
	m.t.Setenv("BEFORE", "mount --bind /mnt/mender.conf /etc/mender/mender.conf")
}

func configurations() []difference {
	asks := func(m *machine, program string) string {
		code, _ := m.code(program, "show-artifact")
		return strconv.Itoa(code)
	}
	return []difference{
		{"`RootfsPartA` and `RootfsPartB` are the same", "refuses", func(m *machine, program string) string {
			m.configured(`{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p2"}`)
			code, _ := m.code(program, "install", m.artifact("release-2", artifacttest.Spec{}))
			return fmt.Sprintf("%d %s", code, m.holds(2))
		}, "1 release-1", "1 release-1", "0 release-2"},
		{"mender.conf that does not parse", "no command works", func(m *machine, program string) string {
			m.configured(`{"RootfsPartA":`)
			return asks(m, program)
		}, "1", "1", "0"},
		{"`Servers` beside `ServerURL` in mender.conf", "no command works", func(m *machine, program string) string {
			m.configured(`{"ServerURL": "https://a.invalid", "Servers": [{"ServerURL": "https://b.invalid"}]}`)
			return asks(m, program)
		}, "0", "1", "0"},
		{"store that is damaged", "no command works; from 3.5 on, set aside and begun anew", func(m *machine, program string) string {
			if err := os.WriteFile(m.data("mender-store"), []byte("no database"), 0o600); err != nil {
				m.t.Fatal(err)
			}
			return asks(m, program)
		}, "0", "1", "0"},
		{"log in syslog", "yes, or a line that says why not", func(m *machine, program string) string {
			_, out := m.code(program, "commit") // there is no syslog in the slot
			return fmt.Sprint(strings.Contains(out, "syslog"))
		}, "false", "true", "false"},
		{"answer that standard output does not take", "exit code 0", func(m *machine, program string) string {
			code, _ := m.run("sh", "-c", m.there(program)+" show-artifact >/dev/full")
			return strconv.Itoa(code)
		}, "1", "0", "0"},
	}
}

// envWrites counts the writes of the boot environment since it was made.
func (m *machine) envWrites() int {
	m.t.Helper()
	n, err := m.device.EnvWrites()
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// downloads come from a server on this machine.
func downloads() []difference {
	serve := func(m *machine, program string, h func(file string) http.HandlerFunc) string {
		m.t.Helper()
		m.t.Setenv("NO_PROXY", "*")
		m.artifact("release-2", artifacttest.Spec{})
		s := httptest.NewServer(h(filepath.Join(m.dir, "release-2.mender")))
		defer s.Close()
		code, _ := m.code(program, "install", s.URL+"/release-2.mender")
		return m.state(program, code)
	}
	return []difference{
		{"download: redirect", "follows", func(m *machine, program string) string {
			return serve(m, program, func(file string) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasPrefix(r.URL.Path, "/moved") {
						http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusFound)
						return
					}
					http.ServeFile(w, r, file)
				}
			})
		}, "0 3/1 release-1", "0 3/1 release-1", "1 2/0 release-1"},
		{"download: length unknown", "refuses", func(m *machine, program string) string {
			return serve(m, program, func(file string) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) {
					_ = http.NewResponseController(w).Flush() // now there is no length any more
					content, _ := os.ReadFile(file)
					_, _ = w.Write(content)
				}
			})
		}, "0 3/1 release-1", "1 2/0 release-1", "0 3/1 release-1"},
	}
}

// terminate ends an installation that waits for data, and returns its exit code.
func (m *machine) terminate(program string) int {
	m.t.Helper()
	fifo := filepath.Join(m.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		m.t.Fatal(err)
	}
	artifact, err := os.ReadFile(filepath.Join(m.dir, filepath.Base(m.artifact("release-2", artifacttest.Spec{Compression: "none"}))))
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.command(m.there(program), "install", "/mnt/fifo")
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer w.Close()
	const most = 3 * mib // of the 4 MiB: more than fits the pipe, so that it is read
	if _, err := w.Write(artifact[:most]); err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	if _, exited := errors.AsType[*exec.ExitError](cmd.Wait()); !exited && !cmd.ProcessState.Success() {
		m.t.Fatal(cmd.ProcessState)
	}
	return cmd.ProcessState.ExitCode()
}

func differences() []difference {
	return slices.Concat(updates(), artifacts(), modules(), configurations(), downloads())
}

// TestDifferences holds the page's table of differences against our program and
// Debian's mender-client, on a device with two slots that is as real as it gets;
// and, if MENDER_UPDATE names one, against the mender-update of generation 5,
// with its update module for root file systems in MENDER_UPDATE_MODULE.
func TestDifferences(t *testing.T) {
	need(t, "unshare", "chroot", "fw_setenv", client)
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]sim.File{"etc/mender/scripts/version": {Content: "3", Mode: 0o644}, "etc/mender/scripts/Download_Enter_00": {Content: says, Mode: 0o755}}
	for _, d := range differences() {
		t.Run(d.situation, func(t *testing.T) {
			if !strings.Contains(string(page), "\n| "+d.situation+" | "+d.v3+" | ") {
				t.Errorf("the page has no such row, or says something else than %q of 3.x", d.v3)
			}
			for _, peer := range []struct{ name, program, want string }{
				{"ours", filepath.Join(programs(t), "mender"), d.ours},
				{"3.x", client, d.v3Finds},
				{"5.x", os.Getenv("MENDER_UPDATE"), d.v5Finds},
			} {
				if peer.program == "" {
					continue // nobody packages it: it can be had by hand only
				}
				t.Run(peer.name, func(t *testing.T) {
					m := newMachine(t, files)
					if peer.name == "5.x" {
						m.shareModule(os.Getenv("MENDER_UPDATE_MODULE"))
					}
					if got := d.try(m, peer.program); got != peer.want {
						t.Errorf("%s, want %s", got, peer.want)
					}
				})
			}
		})
	}
}

// shareModule makes an update module known, by the variable that generation 5
// reads.
func (m *machine) shareModule(path string) {
	m.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(m.put("v3/"+filepath.Base(path), string(content)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.dir, "modules"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink("../v3", filepath.Join(m.dir, "modules/v3")); err != nil {
		m.t.Fatal(err)
	}
	m.t.Setenv("MENDER_DATA_DIR", "/mnt")
}
