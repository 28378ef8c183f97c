package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// probed is what a confined process found it can still do.
type probed struct {
	Words, Err string
	Can        []string // must be empty
	Stick      string   // what it read beneath the directory
	Status     []string // of its threads
}

// probeConfinement is a process that confines itself to the directory on
// descriptor 3 and then tries what it must not be able to do.
func probeConfinement() {
	var p probed
	defer func() { _ = json.NewEncoder(os.Stdout).Encode(p) }()
	dir := os.NewFile(stickFD, "stick")
	tasks, err := os.Open("/proc/self/task")
	if err != nil {
		p.Err = err.Error()
		return
	}
	var status []*os.File
	names, err := tasks.Readdirnames(-1)
	for _, name := range names {
		f, openErr := os.Open(filepath.Join("/proc/self/task", name, "status"))
		err = errors.Join(err, openErr)
		status = append(status, f)
	}
	if err == nil {
		p.Words, err = confine(dir)
	}
	if err != nil {
		p.Err = err.Error()
		return
	}
	try := func(what string, err error) {
		if err == nil {
			p.Can = append(p.Can, what)
		}
	}
	for _, path := range []string{"/etc/passwd", "/proc/self/status", "/dev/null", "/", "/etc"} {
		f, err := os.Open(path)
		if err == nil {
			_, err = f.Stat()
		}
		try("open "+path, err)
	}
	try("write /tmp", os.WriteFile(filepath.Join(os.TempDir(), "confined"), []byte("x"), 0o600))
	try("run a program", exec.Command("/bin/true").Run())
	try("mount", unix.Mount("x", "/", "tmpfs", 0, ""))
	try("become another user", unix.Setresuid(1, 1, 1))
	try("write the stick", os.WriteFile("/proc/self/fd/3/new", []byte("x"), 0o600))
	if fd, err := unix.Openat(stickFD, "../outside", unix.O_RDONLY, 0); err == nil {
		p.Can = append(p.Can, "leave the stick upwards")
		_ = unix.Close(fd)
	}
	if fd, err := unix.Openat(stickFD, "inside", unix.O_RDONLY, 0); err == nil {
		b := make([]byte, 64)
		n, _ := unix.Read(fd, b)
		p.Stick = string(b[:n])
	}
	for _, f := range status {
		b := make([]byte, 16<<10)
		n, _ := f.Read(b) // a thread that has ended says nothing
		p.Status = append(p.Status, string(b[:n]))
	}
}

// TestInspectorIsConfined: what parses a stick reads the stick, and can do
// nothing else, with any of its threads.
func TestInspectorIsConfined(t *testing.T) {
	if errors.Is(onAllThreads(unix.SYS_GETPID, 0, 0, 0), syscall.ENOTSUP) {
		t.Skip("the race detector needs cgo, with which threads cannot be confined")
	}
	top := t.TempDir()
	stick := filepath.Join(top, "stick")
	err := errors.Join(os.Mkdir(stick, 0o700), os.WriteFile(filepath.Join(stick, "inside"), []byte("content"), 0o600),
		os.WriteFile(filepath.Join(top, "outside"), []byte("secret"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(stick)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args[0] = probeName
	cmd.ExtraFiles = []*os.File{dir}
	cmd.Env = []string{"TMPDIR=" + top}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("probe: %v", err)
	}
	var p probed
	if err := json.Unmarshal(out, &p); err != nil || p.Err != "" {
		t.Fatalf("probe said %q: %v %s", out, err, p.Err)
	}
	if strings.Contains(p.Words, "lacks") {
		t.Skip("this kernel lacks Landlock")
	}
	if p.Can != nil {
		t.Errorf("a confined process can %q, want nothing", p.Can)
	}
	if p.Stick != "content" {
		t.Errorf("a confined process reads %q beneath its directory, want %q", p.Stick, "content")
	}
	threads := 0
	for _, status := range p.Status {
		if status == "" {
			continue
		}
		threads++
		for _, want := range []string{"NoNewPrivs:\t1\n", "CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("a thread lacks %q:\n%s", want, status)
			}
		}
	}
	if threads < 2 {
		t.Errorf("%d threads were looked at, want several", threads)
	}
	for _, name := range []string{"confined", "stick/new"} {
		if _, err := os.Stat(filepath.Join(top, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want none", name, err)
		}
	}
}
