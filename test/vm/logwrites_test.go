//go:build vm

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/usb-updater/usb-updater/test/medium"
	"github.com/usb-updater/usb-updater/test/power/judge"
)

// What dm-log-writes logs is the boot environment and, behind it, the data
// partition, as one disk: their order counts. A log's own disk has, behind the log,
// what was there when the log began.
const (
	loggedEnv  = 1  // MiB
	logSize    = 64 // MiB
	logDisk    = logSize + loggedEnv + dataSize
	envCopy    = 0x4000 // bytes
	loggedData = loggedEnv * mib
)

// logged are files of a release under which boot environment and data partition are
// logged, on the disk that the slot has for it.
func logged() map[string]string {
	const sectorsOfMiB = mib / sectorSize
	files := envBelow(fmt.Sprintf(`
case $(cat /proc/cmdline) in
*root=/dev/vda%d*) log=/dev/vdb ;;
*) log=/dev/vdc ;;
esac
modprobe dm-log-writes
printf '0 %[2]d linear /dev/vda%[4]d 0\n%[2]d %[3]d linear /dev/vda%[5]d 0\n' | dmsetup create joined
dd if=/dev/mapper/joined of=$log bs=1M seek=%[6]d conv=fsync
dmsetup create logged --table "0 %[7]d log-writes /dev/mapper/joined $log"
dmsetup create env --table "0 %[2]d linear /dev/mapper/logged 0"
dmsetup create data --table "0 %[3]d linear /dev/mapper/logged %[2]d"
`, partA, loggedEnv*sectorsOfMiB, dataSize*sectorsOfMiB, partEnv, partData, logSize, (loggedEnv+dataSize)*sectorsOfMiB))
	files["/etc/fstab"] = "/dev/mapper/data /data ext4 defaults,noatime 0 0\n"
	return files
}

// TestLoggedWrites: the kernel logs all that an update writes to the boot
// environment and the data partition, from the insertion to the commit. Power
// cuts are replayed from the logs: at each request, with all, none, some, and
// parts of what was not flushed. What each of them leaves must boot a slot that
// is whole, settle there, and have a record that explains it.
func TestLoggedWrites(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.release.Files = logged()
	stick := l.stick(t, "vfat", l.artifact(t, Release{Name: "release-2", Files: logged()}))
	cfg := l.config(t)
	logs := []string{filepath.Join(cfg.Dir, "log-A"), filepath.Join(cfg.Dir, "log-B")}
	for i, path := range logs {
		if err := truncate(path, logDisk*mib); err != nil {
			t.Fatal(err)
		}
		cfg.Extra = append(cfg.Extra,
			"-drive", fmt.Sprintf("if=none,id=log%d,file=%s,format=raw,cache=unsafe", i, path), "-device", fmt.Sprintf("virtio-blk-pci,drive=log%d", i))
	}
	d := l.power(t, cfg)
	d.login()
	d.settled()
	d.installs(stick)
	d.says("up-to-date (11)")
	d.idle()
	d.sh("umount /data && dmsetup remove data env logged") // the log is complete
	d.off()
	outcomes := map[string]int{}
	for i, path := range logs {
		d.replay(path, outcomes, i == len(logs)-1)
	}
	t.Logf("outcomes: %v", outcomes)
	for _, want := range []string{"A boots, release-1 in the end", "B on trial boots, release-2 in the end", "B boots, release-2 in the end"} {
		if outcomes[want] == 0 {
			t.Errorf("no power cut with the outcome %q", want)
		}
	}
}

// replay judges what each power cut leaves, and counts it in outcomes. The last
// log must lead to what is on the device's disk.
func (d *device) replay(path string, outcomes map[string]int, last bool) {
	d.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	start, err := medium.NewImage(io.NewSectionReader(f, logSize*mib, (logDisk-logSize)*mib), (logDisk-logSize)*mib)
	if err != nil {
		d.t.Fatal(err)
	}
	trace, err := medium.ReadLog(f, start, func(off int64) int64 {
		if off < loggedData {
			return medium.SectorSize
		}
		return medium.BlockSize // ext4 bears no less
	})
	if err != nil {
		d.t.Fatal(err)
	}
	known := map[string]judge.Verdict{}
	states := 0
	var end *medium.Image
	err = trace.Walk(func(m medium.Moment) error {
		for _, loss := range medium.Losses {
			left, err := medium.Lose(m, loss, rand.New(rand.NewPCG(1, uint64(m.Index)))) //nolint:gosec // repeatable on purpose
			if err != nil {
				return err
			}
			if loss == medium.Kept {
				end = left.Clone()
			}
			v, err := d.judge(m.Durable, left, known)
			if err != nil {
				return err
			}
			states++
			outcomes[v.Boots+" boots, "+v.Runs+" in the end"]++
			for _, violation := range v.Violations {
				d.t.Errorf("%s, power cut after request %d, loss %q: %s", filepath.Base(path), m.Index, loss, violation)
			}
		}
		if d.t.Failed() {
			return context.Canceled // one moment tells enough
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Logf("%d requests, %d states, %d of them different", trace.Len(), states, len(known))
	if last {
		d.same(end)
	}
}

// judge judges one state, which is over what is durable.
func (d *device) judge(durable, m *medium.Image, known map[string]judge.Verdict) (judge.Verdict, error) {
	key, err := digestOfChanges(durable, m)
	if err != nil {
		return judge.Verdict{}, err
	}
	if v, ok := known[key]; ok {
		return v, nil
	}
	env := make([]byte, 2*envCopy)
	if _, err := m.ReadAt(env, 0); err != nil {
		return judge.Verdict{}, err
	}
	v, err := judge.Live(d.t.Context(), "/dev/shm", judge.Disk{
		Env: env,
		// They are not logged. Tests of whole disks show that a slot is whole when the
		// environment names it.
		Whole: [2]string{"release-1", "release-2"},
		Data:  func(path string) error { return m.Save(path, loggedData, dataSize*mib) },
	})
	known[key] = v
	return v, err
}

// digestOfChanges is a digest of what an image has changed, and the one that it is
// over.
func digestOfChanges(below, m *medium.Image) (string, error) {
	changed := map[int64]bool{}
	for _, image := range []*medium.Image{below, m} {
		image.Changed(func(n int64) { changed[n] = true })
	}
	sum := sha256.New()
	for _, n := range slices.Sorted(maps.Keys(changed)) {
		b, err := m.Block(n)
		if err != nil {
			return "", err
		}
		fmt.Fprint(sum, n, ":")
		sum.Write(b)
	}
	return string(sum.Sum(nil)), nil
}

// same compares boot environment and data partition of the disk with an image.
func (d *device) same(m *medium.Image) {
	d.t.Helper()
	disk, err := os.Open(d.cfg.Disk)
	if err != nil {
		d.t.Fatal(err)
	}
	defer disk.Close()
	for n := range m.Size() / medium.BlockSize {
		at := n*medium.BlockSize + envStart*sectorSize
		if n*medium.BlockSize >= loggedData {
			at = n*medium.BlockSize - loggedData + dataStart*sectorSize
		}
		got := make([]byte, medium.BlockSize)
		if _, err := disk.ReadAt(got, at); err != nil {
			d.t.Fatal(err)
		}
		want, err := m.Block(n)
		if err != nil {
			d.t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			d.t.Fatalf("block %d is not as the log has it", n)
		}
	}
}
