//go:build device

package hostile

import (
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/fuse"
)

// block is the size of what fails, in bytes.
const block = 4 * kib

// unreadable is what a stick answers of which one block cannot be read.
func unreadable(bad int64) func(string, int64, int) error {
	return func(_ string, offset int64, n int) error {
		if offset < (bad+1)*block && offset+int64(n) > bad*block {
			return unix.EIO
		}
		return nil
	}
}

// TestDefenseD12ErrorInEachBlock: an artifact of which one block of 4 KiB cannot
// be read, for each block.
func TestDefenseD12ErrorInEachBlock(t *testing.T) {
	needFUSE(t)
	r := newRig(t)
	honest := r.artifact(t, "release-2", nil)
	for bad := int64(0); bad*block < int64(len(honest)); bad++ {
		r := newRig(t)
		s := fuse.NewStick(map[string][]byte{name: honest})
		s.Read = unreadable(bad)
		dir, server := mounted(t, s)
		before := r.snapshot(t)
		o := r.run(t, dir)
		if r.safe(t, o, "release-2") {
			t.Error("installed")
		}
		o.oneOf(t, "stick-failed", "refused")
		if !strings.Contains(o.log, ": installing") { // seen before anything was written
			r.unchanged(t, before)
		}
		if bad%16 == 0 {
			r.recovers(t)
		} else {
			r.boots(t, 2)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("block %d of %d", bad, len(honest)/block)
		}
	}
}

// TestDefenseD12ErrorInFileSystem: a stick with a real file system of which one
// block cannot be read, for each block that an update reads.
func TestDefenseD12ErrorInFileSystem(t *testing.T) {
	needLoop(t)
	r := newRig(t)
	packed := r.artifact(t, "release-2", func(s *artifacttest.Spec) { s.Compression = "gzip" })
	content := fileSystem(t, map[string][]byte{name: packed, "mender/notes.txt": []byte("no artifact")})

	var mu sync.Mutex
	read := map[int64]bool{}
	s := fuse.NewStick(map[string][]byte{image: content})
	s.Read = func(_ string, offset int64, n int) error {
		mu.Lock()
		defer mu.Unlock()
		for b := offset / block; b*block < offset+int64(n); b++ {
			read[b] = true
		}
		return nil
	}
	m := newMedium(t, s)
	if o := r.run(t, m.loop); !r.safe(t, o, "release-2") {
		t.Fatalf("a good stick is not installed:\n%s", o.log)
	}
	m.end(t)
	if len(read) < 20 {
		t.Fatalf("only %d blocks were read: the page cache answers", len(read))
	}
	installed := 0
	for bad := range read {
		r := newRig(t)
		s := fuse.NewStick(map[string][]byte{image: content})
		s.Read = unreadable(bad)
		m := newMedium(t, s)
		o := r.run(t, m.loop)
		if r.safe(t, o, "release-2") {
			installed++ // a block that nobody needs
		} else {
			o.oneOf(t, "stick-failed", "refused", "bad-artifact", "no-artifact")
			r.boots(t, 2)
		}
		m.end(t)
		if t.Failed() {
			t.Fatalf("block %d", bad)
		}
	}
	t.Logf("%d blocks are read, %d of them are not needed", len(read), installed)
	if installed > len(read)/2 {
		t.Error("most errors were not seen")
	}
}

// moment is a point of a run at which a stick can go.
type moment struct {
	pass   int   // when the file has been opened that often
	offset int64 // and this byte is read
}

func moments(t *testing.T, artifact []byte) map[string]moment {
	t.Helper()
	parts := regions(t, artifact)
	return map[string]moment{
		"scan, first byte":       {1, 0},
		"scan, header":           {1, parts["header.tar.gz"].from},
		"second look":            {2, 0},
		"stream, first block":    {2, parts["payload, first block"].from},
		"stream, middle":         {2, parts["payload, middle"].from},
		"stream, last block":     {2, parts["payload, last block"].from},
		"stream, end of archive": {2, parts["end of the artifact"].from},
	}
}

// trap is a stick that stops at a moment: hit is closed then, and what asks
// waits for release.
func trap(files map[string][]byte, at moment) (s *fuse.Stick, hit, release chan struct{}) {
	s = fuse.NewStick(files)
	hit, release = make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.Read = func(path string, offset int64, n int) error {
		if path == name && s.Opens(path) == at.pass && offset+int64(n) > at.offset {
			once.Do(func() { close(hit) })
			<-release
			return unix.EIO
		}
		return nil
	}
	return s, hit, release
}

// TestDefenseD12PulledOut: the stick is gone in the middle of a read.
func TestDefenseD12PulledOut(t *testing.T) {
	needFUSE(t)
	r := newRig(t)
	honest := r.artifact(t, "release-2", nil)
	for what, at := range moments(t, honest) {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			s, hit, release := trap(map[string][]byte{name: honest}, at)
			defer close(release)
			dir, server := mounted(t, s)
			_, end := r.agent(t, "run", dir)
			await(t, hit)
			if err := server.Pull(); err != nil {
				t.Fatal(err)
			}
			o := end()
			if r.safe(t, o, "release-2") {
				t.Errorf("installed:\n%s", o.log)
			}
			o.oneOf(t, "stick-failed", "refused", "bad-artifact", "canceled")
			r.recovers(t)
		})
	}
}

// TestDefenseD12Hangs: the stick stops to answer, and the service manager ends
// the run, as it does when the device is gone. A read that hangs in the kernel
// must not keep the agent from ending: it says so at once, and its process goes
// when the kernel gives the read up.
func TestDefenseD12Hangs(t *testing.T) {
	needFUSE(t)
	r := newRig(t)
	honest := r.artifact(t, "release-2", nil)
	for what, at := range moments(t, honest) {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			s, hit, release := trap(map[string][]byte{name: honest}, at)
			free := sync.OnceFunc(func() { close(release) })
			defer free()
			dir, _ := mounted(t, s)
			cmd, end := r.agent(t, "run", dir)
			await(t, hit)
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			endsSoon(t, cmd)
			free()
			o := end()
			if r.safe(t, o, "release-2") {
				t.Errorf("installed:\n%s", o.log)
			}
			o.oneOf(t, "canceled")
			r.recovers(t)
		})
	}
}

// endsSoon fails if the agent is still at work after a moment, whatever hangs.
func endsSoon(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	// Of 10 s that the unit gives. The agent looks for the stick four times a second.
	const patience = 5 * time.Second
	select {
	case <-cmd.Stderr.(*logWriter).ended:
	case <-time.After(patience):
		t.Errorf("the run does not end within %v", patience)
	}
}

// await fails if the moment does not come.
func await(t *testing.T, hit <-chan struct{}) {
	t.Helper()
	select {
	case <-hit:
	case <-time.After(time.Minute):
		t.Fatal("the stick was not read that far")
	}
}
