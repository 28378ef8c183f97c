package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/sim"
)

// TestInspectorEndsWithTheAgent: an inspector that hangs holds the stick's mount,
// so it ends when the agent does, whatever ends that. A key that is a named pipe
// is read by the agent, and then holds up the inspector.
func TestInspectorEndsWithTheAgent(t *testing.T) {
	d, err := sim.New(t.TempDir(), sim.Options{SlotSize: 1 << 20, DeviceType: "board"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	image := filepath.Join(t.TempDir(), "image")
	conf := `{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3", "ArtifactVerifyKey": "/key.pem"}`
	release := sim.Release{Name: "release-1", Files: map[string]sim.File{"etc/mender/mender.conf": {Content: conf, Mode: 0o600}}}
	if err := errors.Join(release.Image(image, 512<<10), d.Flash(2, image)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(d.Dir, "key.pem")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.CommandContext(t.Context(), "/proc/self/exe", "--root", d.Dir, "list", t.TempDir())
	agent.Args[0] = "usb-updater"
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pipe, publicKey(t), 0); err != nil { // waits for the agent
		t.Fatal(err)
	}
	pid := inspectorOf(t, agent.Process.Pid)
	inspector, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inspector)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait() // killed
	ended := []unix.PollFd{{Fd: int32(inspector), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, 10_000); n != 1 {
		t.Errorf("the inspector outlives the agent (%v)", err)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// publicKey makes a key and returns it as a file has it.
func publicKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// inspectorOf waits for the inspector that a process starts.
func inspectorOf(t *testing.T, parent int) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			text, _ := os.ReadFile(list) // a thread that has ended has none
			for word := range strings.FieldsSeq(string(text)) {
				cmdline, _ := os.ReadFile("/proc/" + word + "/cmdline")
				if pid, err := strconv.Atoi(word); err == nil && strings.Contains(string(cmdline), inspectorVerb) {
					return pid
				}
			}
		}
	}
	t.Fatal("the agent starts no inspector")
	return 0
}
