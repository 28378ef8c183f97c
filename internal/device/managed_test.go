package device

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestManagedClient looks at a table of processes below a directory.
func TestManagedClient(t *testing.T) {
	tests := []struct {
		name, comm, exe, cmdline string
		want                     bool
	}{
		{"3.x", "mender", "/usr/bin/mender", "/usr/bin/mender\x00--no-syslog\x00daemon\x00", true},
		{"5.x", "mender-update", "/usr/bin/mender-update", "/usr/bin/mender-update\x00daemon\x00", true},
		{"dashes of 2.x", "mender", "/usr/bin/mender", "mender\x00-daemon\x00", true},
		{"renamed thread", "main", "/usr/bin/mender-update", "mender-update\x00daemon\x00", true},
		{"replaced while it ran", "main", "/usr/bin/mender (deleted)", "mender\x00daemon\x00", true},
		{"other verb", "mender", "/usr/bin/mender", "mender\x00show-artifact\x00", false},
		{"other program", "dockerd", "/usr/bin/dockerd", "dockerd\x00daemon\x00", false},
		{"longer name", "mender-connect", "/usr/bin/mender-connect", "mender-connect\x00daemon\x00", false},
		{"kernel thread", "mender", "", "", false},
		{"without arguments", "mender", "/usr/bin/mender", "mender\x00", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			process := filepath.Join(proc, "4711")
			if err := os.MkdirAll(process, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{"comm": tt.comm + "\n", "cmdline": tt.cmdline} {
				if err := os.WriteFile(filepath.Join(process, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.exe != "" {
				if err := os.Symlink(tt.exe, filepath.Join(process, "exe")); err != nil {
					t.Fatal(err)
				}
			}
			err := checkManaged(proc)
			if got := errors.Is(err, ErrManaged); got != tt.want {
				t.Errorf("checkManaged = %v, want ErrManaged: %v", err, tt.want)
			}
			if tt.want && !strings.Contains(err.Error(), "process 4711") {
				t.Errorf("checkManaged = %v, want the process in it", err)
			}
		})
	}
	if err := checkManaged(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("checkManaged without processes = %v, want none", err)
	}
}

// TestManagedProcess looks at a real process: one with the name and the
// argument of the client's service.
func TestManagedProcess(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "mender-update")
	// It says that it runs, and ends with its standard input.
	if err := os.WriteFile(fake, []byte("#!/bin/sh\necho ready\nread end\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), fake, "daemon")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	d := &Device{}
	if err := d.CheckManaged(); !errors.Is(err, ErrManaged) {
		t.Errorf("CheckManaged beside the client = %v, want ErrManaged", err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // read fails at the end of its input
	if err := d.CheckManaged(); err != nil && strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("CheckManaged afterward = %v, want none of process %d", err, cmd.Process.Pid)
	}
}

// TestManagedUnit: the service of a client is found by its control group, where
// its process cannot be seen.
func TestManagedUnit(t *testing.T) {
	tests := []struct {
		name, group, procs string
		want               bool
	}{
		{"5.x", "system.slice/mender-updated.service", "4711\n4712\n", true},
		{"3.x", "system.slice/mender-client.service", "4711\n", true},
		{"slice of the owner", "updates.slice/updates-cloud.slice/mender-updated.service", "4711\n", true},
		{"two hierarchies", "systemd/system.slice/mender-client.service", "4711\n", true},
		{"has ended", "system.slice/mender-updated.service", "", false},
		{"other service", "system.slice/mender-connect.service", "4711\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "sys/fs/cgroup", tt.group)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(tt.procs), 0o600); err != nil {
				t.Fatal(err)
			}
			d := &Device{opts: Options{Root: root}}
			err := d.CheckManaged()
			if got := errors.Is(err, ErrManaged); got != tt.want {
				t.Errorf("CheckManaged = %v, want ErrManaged: %v", err, tt.want)
			}
			if tt.want && !strings.Contains(err.Error(), filepath.Base(tt.group)+", process 4711") {
				t.Errorf("CheckManaged = %v, want unit and process in it", err)
			}
		})
	}
}
