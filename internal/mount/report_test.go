package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/sim"
)

// wasOpen is the stick as it is after it was opened and closed, also one that
// cannot be mounted.
func wasOpen(t *testing.T, dev string, opts Options) *Stick {
	t.Helper()
	if info, err := os.Stat(dev); err != nil || info.IsDir() {
		return &Stick{Name: dev, opts: opts}
	}
	sys := opts.sysfs()
	blk, err := sys.openDevice(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer blk.file.Close()
	id, err := sys.identifyOpen(blk)
	if err != nil {
		t.Fatal(err)
	}
	return &Stick{Name: blk.name, Dev: blk.number, sys: sys, id: id, dev: dev, opts: opts}
}

func TestWriteReportToDirectory(t *testing.T) {
	dir := t.TempDir()
	stick, err := Open(t.Context(), dir, Options{AllowDirectory: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := stick.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usb-updater/a_b_-1.txt", "usb-updater/a_b_-2.txt"} {
		got, err := stick.WriteReport(t.Context(), "a/b\x00", want)
		if err != nil || got != want {
			t.Fatalf("WriteReport = %q, %v, want %q", got, err, want)
		}
	}
	for _, name := range []string{"usb-updater/a_b_-1.txt", "usb-updater/a_b_-2.txt"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != name {
			t.Errorf("%s holds %q, %v, want %q", name, b, err, name)
		}
	}
	if _, err := stick.WriteReport(t.Context(), "x", strings.Repeat("x", MaxReport+1)); err == nil {
		t.Error("WriteReport took more than MaxReport")
	}
}

// TestWriteReportForEverybody: a person reads the report on a machine of their
// own, whatever mask the service manager has set; a directory of theirs stays as
// it is.
func TestWriteReportForEverybody(t *testing.T) {
	for _, tt := range []struct {
		name string
		made fs.FileMode // of the directory that was there; 0 for none
		want fs.FileMode
	}{{"new directory", 0, 0o755}, {"theirs", 0o700, 0o700}} {
		t.Run(tt.name, func(t *testing.T) {
			old := unix.Umask(0o077) // that of usb-updater@.service
			defer unix.Umask(old)
			top := t.TempDir()
			dir := filepath.Join(top, reportDir)
			if tt.made != 0 {
				if err := os.Mkdir(dir, tt.made); err != nil {
					t.Fatal(err)
				}
			}
			path, err := wasOpen(t, top, Options{}).WriteReport(t.Context(), "n", "report")
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != tt.want {
				t.Errorf("directory: %v, %v, want %v", info.Mode(), err, tt.want)
			}
			if info, err := os.Stat(filepath.Join(top, path)); err != nil || info.Mode() != reportFileMode {
				t.Errorf("report: %v, %v, want %v", info.Mode(), err, fs.FileMode(reportFileMode))
			}
		})
	}
}

// TestWriteReportStopped: a stick that hangs holds nobody up.
func TestWriteReportStopped(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe") // to open it hangs
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Stick{Name: pipe}).WriteReport(ctx, "x", "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("WriteReport with a context that has ended: %v, want %v", err, context.Canceled)
	}
}

// TestWriteReportTouchesNothingElse: links and files in the way are left alone.
func TestWriteReportTouchesNothingElse(t *testing.T) {
	tests := []struct {
		name string
		make func(dir, victim string) error
		want string // path, "" for an error
	}{
		{"directory is a link", func(dir, victim string) error {
			return os.Symlink(filepath.Dir(victim), filepath.Join(dir, "usb-updater"))
		}, ""},
		{"directory is a file", func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "usb-updater"), nil, 0o600)
		}, ""},
		{"file is a link", func(dir, victim string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "usb-updater"), 0o700), os.Symlink(victim, filepath.Join(dir, "usb-updater/n-1.txt")))
		}, "usb-updater/n-2.txt"},
		{"file is a dangling link", func(dir, victim string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "usb-updater"), 0o700), os.Symlink(victim+"x", filepath.Join(dir, "usb-updater/n-1.txt")))
		}, "usb-updater/n-2.txt"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			victim := filepath.Join(outside, "victim")
			if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), tt.make(dir, victim)); err != nil {
				t.Fatal(err)
			}
			got, err := wasOpen(t, dir, Options{}).WriteReport(t.Context(), "n", "report")
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("WriteReport = %q, %v, want %q", got, err, tt.want)
			}
			entries, err := os.ReadDir(outside)
			if b, err2 := os.ReadFile(victim); err != nil || err2 != nil || string(b) != "precious" || len(entries) != 1 {
				t.Errorf("outside the stick: %q, %v, %v", b, entries, errors.Join(err, err2))
			}
		})
	}
}

// TestLastReport: what is read back is a file of ours, and no more of it than a
// report has.
func TestLastReport(t *testing.T) {
	long := strings.Repeat("x", MaxReport+1)
	tests := []struct {
		name string
		make func(dir string) error // makes what is in the directory of reports
		want string
	}{
		{"none", func(string) error { return nil }, ""},
		{"the latest", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/n-1.txt", []byte("one"), 0o600), os.WriteFile(dir+"/n-2.txt", []byte("two"), 0o600))
		}, "two"},
		{"of another device", func(dir string) error { return os.WriteFile(dir+"/m-1.txt", []byte("one"), 0o600) }, ""},
		{"too long", func(dir string) error { return os.WriteFile(dir+"/n-1.txt", []byte(long), 0o600) }, long[:MaxReport]},
		{"link", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/secret", []byte("secret"), 0o600), os.Symlink("secret", dir+"/n-1.txt"))
		}, ""},
		{"pipe", func(dir string) error { return unix.Mkfifo(dir+"/n-1.txt", 0o600) }, ""},
		{"directory", func(dir string) error { return os.Mkdir(dir+"/n-1.txt", 0o700) }, ""},
		{"directory of reports is a link", func(dir string) error {
			return errors.Join(os.WriteFile(dir+"/n-1.txt", []byte("one"), 0o600), os.Rename(dir, dir+"2"), os.Symlink("usb-updater2", dir))
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			reports := filepath.Join(dir, reportDir)
			if err := errors.Join(os.Mkdir(reports, 0o700), tt.make(reports)); err != nil {
				t.Fatal(err)
			}
			stick, err := Open(t.Context(), dir, Options{AllowDirectory: true})
			if err != nil {
				t.Fatal(err)
			}
			defer stick.Close()
			if got := stick.LastReport("n"); got != tt.want {
				t.Errorf("LastReport = %.20q (%d bytes), want %.20q", got, len(got), tt.want)
			}
		})
	}
}

func TestWriteReportFull(t *testing.T) {
	dir := t.TempDir()
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	if err := os.Mkdir(filepath.Join(dir, reportDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range maxReports {
		if err := os.WriteFile(filepath.Join(dir, reportDir, reportFile("n", n+1)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := leave(top, "n", "", func(string) {}); !errors.Is(err, ErrReportsFull) {
		t.Errorf("leave: %v, want %v", err, ErrReportsFull)
	}
}

// reportStick is a stick with one artifact on it.
func reportStick(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, "a.mender")
	return ext4Image(t, dir)
}

func TestWriteReportToDevice(t *testing.T) {
	needRoot(t)
	image := reportStick(t)
	dev, number := loop(t, image)
	stick := wasOpen(t, dev, Options{})
	got, err := stick.WriteReport(t.Context(), "board", "text")
	if want := "usb-updater/board-1.txt"; err != nil || got != want {
		t.Fatalf("WriteReport = %q, %v, want %q", got, err, want)
	}
	if inUse(t, dev) {
		t.Error("the stick is mounted afterwards")
	}
	if found := visible(t, number); found != nil {
		t.Errorf("the mount is visible: %q", found)
	}
	checkStick(t, image, got, "text")
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stick.WriteReport(t.Context(), "board", "text"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("WriteReport to an open stick = %q, %v, want %v", got, err, unix.EBUSY)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWriteReportToAnotherStick: what has the name and the number of the stick
// that was read is not written, if it is another one.
func TestWriteReportToAnotherStick(t *testing.T) {
	needRoot(t)
	image := reportStick(t)
	dev, _ := loop(t, image, "--read-only") // whose medium can be changed
	stick := wasOpen(t, dev, Options{})
	if stick.id.sequence == 0 {
		t.Skip("the kernel does not number media: it is older than Linux 5.15")
	}
	if err := sim.ChangeMedium(dev, image, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if got, err := stick.WriteReport(t.Context(), "board", "text"); !errors.Is(err, ErrGone) {
		t.Errorf("WriteReport to another medium = %q, %v, want %v", got, err, ErrGone)
	}
}

// TestWriteReportOldKernel takes the way of kernels without fsmount.
func TestWriteReportOldKernel(t *testing.T) {
	needRoot(t)
	image := reportStick(t)
	dev, _ := loop(t, image)
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	as, _ := writeOptions("ext4")
	root, err := attachPrivate(f, as, t.TempDir(), unshare)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	top, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	path, err := leave(top, "board", "text", func(string) {})
	if err := errors.Join(err, top.Close(), root.Close()); err != nil {
		t.Fatal(err)
	}
	if inUse(t, dev) {
		t.Error("the stick is mounted afterwards")
	}
	checkStick(t, image, path, "text")
}

func TestWriteReportRefuses(t *testing.T) {
	needRoot(t)
	unclean := reportStick(t)
	patch(t, unclean, 1024+0x60, 0x4)
	iso := newImage(t, 1<<20)
	overwriteAt(t, iso, 32768, "\x01CD001\x01")
	tests := []struct {
		name, image string
		flags       []string
		opts        func(number uint64) Options
		want        error
	}{
		{"read-only device", reportStick(t), []string{"--read-only"}, nil, ErrReadOnly},
		{"iso9660", iso, nil, nil, ErrReadOnly},
		{"journal to replay", unclean, nil, nil, ErrUnclean},
		{"protected", reportStick(t), nil, func(n uint64) Options { return Options{Protected: []uint64{n}} }, ErrProtected},
		{"bus", reportStick(t), nil, func(uint64) Options { return Options{Buses: []string{"usb"}} }, ErrBus},
		{"type", reportStick(t), nil, func(uint64) Options { return Options{Types: []string{"vfat"}} }, ErrTypeNotAllowed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev, number := loop(t, tt.image, tt.flags...)
			before, err := os.ReadFile(tt.image)
			if err != nil {
				t.Fatal(err)
			}
			stick := wasOpen(t, dev, Options{})
			if tt.opts != nil {
				stick.opts = tt.opts(number)
			}
			if got, err := stick.WriteReport(t.Context(), "board", "text"); !errors.Is(err, tt.want) {
				t.Errorf("WriteReport = %q, %v, want %v", got, err, tt.want)
			}
			if after, err := os.ReadFile(tt.image); err != nil || string(after) != string(before) {
				t.Errorf("the stick was written to (%v)", err)
			}
		})
	}
}

// TestWriteReportPowerCut takes the stick out after each step: what was there is
// there, and the report is whole as soon as it was flushed.
func TestWriteReportPowerCut(t *testing.T) {
	needRoot(t)
	image := reportStick(t)
	dev, _ := loop(t, image)
	root, mnt, err := wasOpen(t, dev, Options{}).openForReport()
	if err != nil {
		t.Fatal(err)
	}
	defer mnt.Close()
	defer root.Close()
	top, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	cuts := map[string]string{}
	text := strings.Repeat("report\n", 1000)
	path, err := leave(top, "board", text, func(step string) {
		cuts[step] = snapshot(t, image)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"directory", "file", "text", "flushed", "synced"} {
		if cuts[step] == "" {
			t.Fatalf("step %s was not taken", step)
		}
		t.Run(step, func(t *testing.T) {
			want := ""
			if step == "flushed" || step == "synced" {
				want = text
			}
			checkStick(t, cuts[step], path, want)
		})
	}
}

// snapshot copies what the medium holds now.
func snapshot(t *testing.T, image string) string {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.ext4")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkStick lets a computer have the stick, and checks that its file system is
// sound, the artifact is there, and the report at path holds text. Without a
// text the report may be missing or short.
func checkStick(t *testing.T, image, path, text string) {
	t.Helper()
	image = snapshot(t, image)
	// The journal is replayed, as any computer does that mounts the stick; 1
	// means that there was something to do.
	out, err := exec.CommandContext(t.Context(), "fsck.ext4", "-p", image).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		t.Fatalf("fsck.ext4 -p: %v\n%s", err, out)
	}
	dev, _ := loop(t, image)
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Candidates(t.Context()); err != nil || len(got.Entries) != 1 {
		t.Errorf("Candidates = %+v, %v, want the artifact", got, err)
	}
	f, err := s.Root().Open(path)
	if errors.Is(err, fs.ErrNotExist) && text == "" {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, MaxReport+1)
	n, _ := f.Read(got)
	if text != "" && string(got[:n]) != text {
		t.Errorf("the report holds %d bytes, want %d", n, len(text))
	}
}

// patch sets bits of one byte.
func patch(t *testing.T, image string, offset int64, bits byte) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] |= bits
	_, err2 := f.WriteAt(b[:], offset)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func overwriteAt(t *testing.T, image string, offset int64, text string) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(text), offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
