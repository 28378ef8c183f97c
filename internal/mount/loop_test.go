package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenEvilStick(t *testing.T) {
	needRoot(t)
	image := ext4Image(t, evilTree(t))
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	dev, number := loop(t, image)
	name := filepath.Base(dev)
	for _, how := range []string{dev, name} {
		s, err := Open(t.Context(), how, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != name || s.Dev != number || s.Type != "ext4" {
			t.Errorf("stick is %q, device %d, type %q", s.Name, s.Dev, s.Type)
		}
		checkEvilStick(t, s)
		checkFlags(t, s.Root())
		if found := visible(t, number); found != nil {
			t.Errorf("the mount is visible: %q", found)
		}
		if !inUse(t, dev) {
			t.Error("the open stick is not in use")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if inUse(t, dev) {
			t.Error("the closed stick is in use")
		}
	}
	after, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the stick was written to")
	}
}

// checkEvilStick checks that the good files of evilTree are found, and that the
// others are refused also when they are asked for.
func checkEvilStick(t *testing.T, s *Stick) {
	t.Helper()
	got, err := s.Candidates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := append(evilNames(), "good.mender", "MENDER/upper.mender")
	slices.Sort(want)
	if !slices.Equal(paths(got), want) {
		t.Errorf("Candidates = %q, want %q", paths(got), want)
	}
	for _, e := range got.Entries {
		f, err := s.Open(e)
		if err != nil {
			t.Errorf("Open: %v", err)
			continue
		}
		f.Close()
	}
	for _, name := range []string{"x.mender", "inside.mender", "y.mender", "null.mender", "disk.mender", "z.mender", "mender/x.mender"} {
		if f, err := s.Open(Entry{Path: name}); err == nil {
			f.Close()
			t.Errorf("Open(%q) works", name)
		}
	}
}

// checkFlags checks what the kernel says about the mount.
func checkFlags(t *testing.T, root *os.Root) {
	t.Helper()
	dir, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	if st.Flags&want != want {
		t.Errorf("mount flags are %#x, want %#x in them", st.Flags, want)
	}
	const noSymFollow = 0x2000 // ST_NOSYMFOLLOW of Linux 5.10
	var uts unix.Utsname
	var major, minor int
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if (major > 5 || major == 5 && minor >= 14) && st.Flags&noSymFollow == 0 {
		t.Errorf("mount flags are %#x, want nosymfollow in them", st.Flags)
	}
	if f, err := root.OpenFile("new", os.O_CREATE|os.O_WRONLY, 0o600); !errors.Is(err, unix.EROFS) {
		if err == nil {
			f.Close()
		}
		t.Errorf("create a file on the stick: %v, want %v", err, unix.EROFS)
	}
}

// TestPanicOptionOverridden checks that the stick's wish for a kernel panic at
// the first error is not granted, and that the journal is left alone.
func TestPanicOptionOverridden(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, ext4Image(t, t.TempDir()))
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	options, err := os.ReadFile(filepath.Join("/proc/fs/ext4", s.Name, "options"))
	if err != nil {
		t.Skip("this kernel does not show the options of ext4")
	}
	for _, want := range []string{"ro\n", "errors=continue\n", "norecovery\n"} {
		if !strings.Contains(string(options), want) {
			t.Errorf("options lack %q:\n%s", want, options)
		}
	}
}

// TestDirtyJournal opens a stick that was pulled while it was written to, with
// the write protect switch on.
func TestDirtyJournal(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	fill(t, dir, "a.mender")
	image := ext4Image(t, dir, "-O", "^metadata_csum")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var incompat [1]byte
	_, err = f.ReadAt(incompat[:], 1024+0x60)
	incompat[0] |= 0x4 // needs recovery
	_, err2 := f.WriteAt(incompat[:], 1024+0x60)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
	dev, _ := loop(t, image, "--read-only")
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Candidates(t.Context()); err != nil || len(got.Entries) != 1 {
		t.Errorf("Candidates = %+v, %v", got, err)
	}
}

func TestManyFiles(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, ext4Image(t, t.TempDir(), "-b", "1024"))
	writable(t, dev, func(dir string) error {
		for i := range 10000 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.mender", i)), []byte("x"), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Candidates(t.Context())
	if err != nil || len(got.Entries) != MaxCandidates || got.LeftOut != 10000-MaxCandidates || got.Truncated {
		t.Errorf("Candidates = %d entries, %d left out, %v, %v", len(got.Entries), got.LeftOut, got.Truncated, err)
	}
}

// TestAttachPrivate checks the way of old kernels, on any kernel.
func TestAttachPrivate(t *testing.T) {
	needRoot(t)
	dev, number := loop(t, ext4Image(t, evilTree(t)))
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	runDir := filepath.Join(t.TempDir(), "run") // holds locks, which must stay in sight
	lock := filepath.Join(runDir, "queue.lock")
	if err := errors.Join(os.Mkdir(runDir, 0o755), os.WriteFile(lock, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := attachPrivate(f, readOnly("ext4"), runDir, unshare)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := &Stick{Name: "loop", root: root}
	checkEvilStick(t, s)
	checkFlags(t, root)
	if found := visible(t, number); found != nil {
		t.Errorf("the mount is visible: %q", found)
	}
	point := filepath.Join(runDir, mountPoint)
	if info, err := os.Stat(point); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mount point: %v, %v, want mode 0700", info, err)
	}
	if files, err := os.ReadDir(point); err != nil || len(files) != 0 {
		t.Errorf("mount point holds %v, %v", files, err)
	}
	if _, err := os.Stat(lock); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if inUse(t, dev) {
		t.Error("the closed stick is in use")
	}
}

// TestAttachPrivateOnItsOwn: nothing but a directory of our own is mounted on.
func TestAttachPrivateOnItsOwn(t *testing.T) {
	runDir, precious := t.TempDir(), t.TempDir()
	if err := os.Symlink(precious, filepath.Join(runDir, mountPoint)); err != nil {
		t.Fatal(err)
	}
	unreached := func() error { t.Error("it goes on"); return unix.EPERM }
	if _, err := attachPrivate(nil, readOnly("ext4"), runDir, unreached); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("attachPrivate on a link: %v, want %v", err, unix.ENOTDIR)
	}
}

// TestAttachInSandbox mounts where new namespaces are forbidden: in the one that
// the sandbox has made, and not in one whose mounts others see.
func TestAttachInSandbox(t *testing.T) {
	needRoot(t)
	if os.Getenv("IN_SANDBOX") == "" {
		for _, how := range [][]string{
			{"--propagation", "private"}, {"--propagation", "slave"}, {"--propagation", "shared"},
		} {
			args := append([]string{"--mount"}, append(how, os.Args[0], "-test.run=^TestAttachInSandbox$", "-test.v")...)
			cmd := exec.CommandContext(t.Context(), "unshare", args...)
			cmd.Env = append(os.Environ(), "IN_SANDBOX="+how[1])
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
				t.Errorf("%s: %v\n%s", how[1], err, out)
			}
		}
		return
	}
	dev, number := loop(t, ext4Image(t, evilTree(t)))
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	forbidden := func() error { return unix.EPERM }
	root, err := attachPrivate(f, readOnly("ext4"), t.TempDir(), forbidden)
	if os.Getenv("IN_SANDBOX") == "shared" {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("attachPrivate where others see the mount: %v, want %v", err, unix.EPERM)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	checkFlags(t, root)
	if found := visible(t, number); found != nil {
		t.Errorf("the mount is visible: %q", found)
	}
	if err := root.Close(); err != nil {
		t.Error(err)
	}
}

// TestOnThreadLeavesTheMainThread checks that the main thread, whose mounts
// /proc/self shows, never runs what changes a namespace.
func TestOnThreadLeavesTheMainThread(t *testing.T) {
	for range 100 {
		if err := onThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenRefusesDevices(t *testing.T) {
	needRoot(t)
	partitioned := newImage(t, 1<<20)
	overwrite(t, partitioned, mbr("\x80", "\x0c"))
	encrypted := newImage(t, 1<<20)
	overwrite(t, encrypted, at(map[int]string{0: "LUKS\xba\xbe"}))
	damaged := newImage(t, 1<<20)
	overwrite(t, damaged, ext(0x4, 0x42, 0))
	good := ext4Image(t, t.TempDir())
	tests := []struct {
		name    string
		image   string
		options Options
		want    error // nil: any
		text    string
	}{
		{"partition table", partitioned, Options{}, ErrPartitioned, "open one of its partitions"},
		{"empty", newImage(t, 1<<20), Options{}, ErrUnknownType, "no known file system"},
		{"encrypted", encrypted, Options{}, ErrTypeNotAllowed, "luks: format the stick as one of vfat, exfat, ext4, iso9660"},
		{"not in the list", good, Options{Types: []string{"vfat"}}, ErrTypeNotAllowed, "ext4: format the stick as one of vfat"},
		{"damaged", damaged, Options{}, nil, "read file system"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev, _ := loop(t, tt.image, "--read-only")
			s, err := Open(t.Context(), dev, tt.options)
			if err == nil {
				s.Close()
				t.Fatal("Open works")
			}
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), dev) {
				t.Errorf("Open: %v, want %v, %q in it", err, tt.want, tt.text)
			}
			if inUse(t, dev) {
				t.Error("the refused stick is in use")
			}
		})
	}
	t.Run("swapped node", func(t *testing.T) {
		dev, number := loop(t, good, "--read-only")
		f, err := os.Open(dev)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if blk, err := sysfs("/sys").identify(f, number+1); err == nil {
			t.Errorf("identify(%s) as %s = %+v, want an error", dev, numberString(number+1), blk)
		}
	})
	t.Run("protected", func(t *testing.T) {
		dev, number := loop(t, good, "--read-only")
		if s, err := Open(t.Context(), dev, Options{Protected: []uint64{number}}); !errors.Is(err, ErrProtected) {
			if err == nil {
				s.Close()
			}
			t.Errorf("Open: %v, want %v", err, ErrProtected)
		}
	})
}

// TestUnsupportedType checks what both ways to mount say about a file system
// that no kernel has.
func TestUnsupportedType(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, newImage(t, 1<<20), "--read-only")
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := attachDetached(f, readOnly("nosuchfs")); !errors.Is(err, ErrTypeUnsupported) && !errors.Is(err, unix.ENOSYS) {
		t.Errorf("attachDetached: %v, want %v", err, ErrTypeUnsupported)
	}
	if _, err := attachPrivate(f, readOnly("nosuchfs"), t.TempDir(), unshare); !errors.Is(err, ErrTypeUnsupported) {
		t.Errorf("attachPrivate: %v, want %v", err, ErrTypeUnsupported)
	}
}

// TestMountedElsewhere opens a stick that an automounter has mounted for
// writing.
func TestMountedElsewhere(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, ext4Image(t, t.TempDir()))
	var held *os.File
	writable(t, dev, func(dir string) (err error) {
		held, err = os.Open(dir)
		return err
	})
	if s, err := Open(t.Context(), dev, Options{}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "elsewhere") {
		if err == nil {
			s.Close()
		}
		t.Errorf("Open: %v, want %v", err, unix.EBUSY)
	}
	held.Close()
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestOpenKeepsNothing checks that a stick that was closed, and one that was
// refused, leave no descriptor open.
func TestOpenKeepsNothing(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, ext4Image(t, t.TempDir()))
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	var before int
	for i := range 3 {
		s, err := Open(t.Context(), dev, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), dev, Options{Types: []string{"vfat"}}); !errors.Is(err, ErrTypeNotAllowed) {
			t.Fatal(err)
		}
		if i == 0 {
			before = count() // the runtime has its own by now
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}

// TestNeverVisible checks that the mounts of the system do not change even for
// an instant. Other processes may mount something meanwhile, hence the tries.
func TestNeverVisible(t *testing.T) {
	needRoot(t)
	dev, _ := loop(t, ext4Image(t, t.TempDir()))
	file, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, attach := range map[string]func() (*Stick, error){
		"detached": func() (*Stick, error) { return Open(t.Context(), dev, Options{}) },
		"private": func() (*Stick, error) {
			root, err := attachPrivate(file, readOnly("ext4"), t.TempDir(), unshare)
			return &Stick{root: root}, err
		},
	} {
		changed := true
		for try := 0; changed && try < 5; try++ {
			changed = mountsChange(t, func() {
				s, err := attach()
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
		if changed {
			t.Errorf("%s: the mounts of the system change", name)
		}
	}
}

// TestOtherTypes mounts what sticks mostly have, where the kernel can.
func TestOtherTypes(t *testing.T) {
	needRoot(t)
	for typ, cmd := range map[string][]string{"vfat": {"mkfs.vfat"}, "exfat": {"mkfs.exfat"}} {
		t.Run(typ, func(t *testing.T) {
			image := newImage(t, 64<<20)
			mkfs(t, append(cmd, image)...)
			dev, _ := loop(t, image, "--read-only")
			s, err := Open(t.Context(), dev, Options{})
			if errors.Is(err, ErrTypeUnsupported) {
				t.Skip("this kernel lacks " + typ)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			checkFlags(t, s.Root())
			if got, err := s.Candidates(t.Context()); err != nil || len(got.Entries) != 0 {
				t.Errorf("Candidates = %+v, %v", got, err)
			}
		})
	}
}
