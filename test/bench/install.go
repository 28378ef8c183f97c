package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	mib  = 1 << 20
	cell = 4 << 10
	page = 64 << 10 // of which an image is made
)

// installBench measures whole installs: a program writes an image to a loop
// device over memory. Each program is one that a shell would run.
type installBench struct {
	dir    string
	bin    string
	device *sim.Device
	image  []byte
	prev   []byte // what the slot holds in state prev
	sum    [sha256.Size]byte
	out    io.Writer
}

// result is one run.
type result struct {
	wall, cpu      float64 // seconds
	rss            float64 // MiB
	written        float64 // MiB, of the block device, zeroed by command or not
	flushes, reads float64
}

// peer is a program to be measured; command takes the codec.
type peer struct {
	name    string
	command func(codec string) []string
}

// runInstall prints a table of medians for each codec and state of the slot.
func runInstall(ctx context.Context, out io.Writer, size int64, rounds int, dir, bin string, codecs []string, peers bool) error {
	if os.Getuid() != 0 {
		return errors.New("installs need root, for loop devices")
	}
	dir, err := os.MkdirTemp(dir, "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &installBench{dir: dir, bin: bin, out: out}
	b.makeImages(int(size))
	if err := b.makeDevice(); err != nil {
		return err
	}
	defer func() { _ = b.device.Close() }() // scratch
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "artifact\tslot held\tprogram\twall s\tCPU s\tCPU/wall\tRSS MiB\twritten MiB\tread MiB\tflushes\t\n")
	for _, codec := range codecs {
		if err := b.makeArtifact(ctx, codec); err != nil {
			return err
		}
		for _, state := range []string{"prev", "other"} {
			all := b.peers(peers, codec)
			runs := make([][]result, len(all))
			for range rounds {
				for i, p := range all {
					r, err := b.measure(ctx, p.command(codec), state)
					if err != nil {
						return fmt.Errorf("%s, %s over %s: %w", p.name, codec, state, err)
					}
					runs[i] = append(runs[i], r)
				}
			}
			for i, p := range all {
				m := medians(runs[i])
				fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t%.0f\t\n", codec, state, p.name, m.wall, m.cpu, m.cpu/m.wall, m.rss, m.written, m.reads, m.flushes)
			}
		}
	}
	changed := 0
	for at := 0; at < len(b.image); at += cell {
		if !bytes.Equal(b.image[at:at+cell], b.prev[at:at+cell]) {
			changed += cell
		}
	}
	fmt.Fprintf(w, "(image of %d MiB; prev differs in %d MiB of its blocks of 4 KiB, other in all; medians of %d rounds;\nwritten includes what the device was told to zero; the CPU of the kernel's own threads is not in it)\n", size/mib, changed/mib, rounds)
	return w.Flush()
}

// makeImages makes an image like a root file system: two fifths are zeros, the
// rest compresses to a third. One in eleven of the blocks of 4 KiB is new.
func (b *installBench) makeImages(size int) {
	rng := rand.New(rand.NewPCG(1, 1))
	content := makeImage(int64(size))
	for at := 0; at < size; {
		n := min((1+rng.IntN(40))*page, size-at)
		if rng.IntN(100) < 42 {
			clear(content[at : at+n])
		}
		at += n
	}
	b.image, b.prev, b.sum = content, slices.Clone(content), sha256.Sum256(content)
	for at := 0; at+16*cell <= size; at += (1 + rng.IntN(80)) * cell {
		n := (1 + rng.IntN(6)) * cell
		if rng.IntN(100) < 90 && !bytes.Equal(content[at:at+n], make([]byte, n)) {
			for i := range n {
				b.prev[at+i] ^= 0x5a
			}
		}
	}
}

// makeDevice makes a device on loop devices whose slot A runs.
func (b *installBench) makeDevice() error {
	d, err := sim.New(filepath.Join(b.dir, "device"), sim.Options{SlotSize: int64(len(b.image)), Loop: true, DeviceType: "bench"})
	if err != nil {
		return err
	}
	b.device = d
	root := filepath.Join(b.dir, "root.ext4")
	if err := (sim.Release{Name: "release-1"}).Image(root, 16*mib); err != nil {
		return err
	}
	if err := d.Flash(2, root); err != nil {
		return err
	}
	_, err = d.Boot()
	return err
}

func (b *installBench) artifact(codec string) string { return filepath.Join(b.dir, codec+".mender") }

// makeArtifact packs the image with the settings of mender-artifact.
func (b *installBench) makeArtifact(ctx context.Context, codec string) error {
	pack := map[string][2]string{
		"none": {"", ""}, "gzip": {".gz", "gzip -9 -c"}, "zstd": {".zst", "zstd -q -9 --zstd=wlog=23 -c"}, "xz": {".xz", "xz -6 -T2 -c"},
	}
	how, ok := pack[codec]
	if !ok {
		return fmt.Errorf("compression %q: want none, gzip, zstd or xz", codec)
	}
	var plain bytes.Buffer
	spec := artifacttest.Spec{Name: "release-2", DeviceTypes: []string{"bench"}, Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("rootfs.ext4", b.image)}}
	if err := artifacttest.Write(&plain, spec); err != nil {
		return err
	}
	whole, _, err := repack(plain.Bytes(), how[0], packer(ctx, how[1]))
	if err != nil {
		return err
	}
	data, err := packer(ctx, how[1])(b.image)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(b.artifact(codec), whole, 0o600), os.WriteFile(b.artifact(codec)+".image", data, 0o600))
}

// packer returns what compresses with a command, "" for not at all.
func packer(ctx context.Context, command string) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		if command == "" {
			return b, nil
		}
		args := strings.Fields(command)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin = bytes.NewReader(b)
		return cmd.Output()
	}
}

// peers are ours and, if wanted, others that are installed.
func (b *installBench) peers(others bool, codec string) []peer {
	mender := filepath.Join(b.bin, "mender")
	ours := []string{mender, "--root", b.device.Dir, "--log-level", "error", "install"}
	all := []peer{
		{"usb-updater", func(c string) []string { return append(slices.Clone(ours), b.artifact(c)) }},
		{"usb-updater, 1 CPU", func(c string) []string {
			return append([]string{"taskset", "-c", "0"}, append(slices.Clone(ours), b.artifact(c))...)
		}},
	}
	if !others {
		return all
	}
	unpack := map[string]string{"none": "cat", "gzip": "zcat", "zstd": "zstd -q -dc", "xz": "xz -dc"}[codec]
	all = append(all, peer{strings.Fields(unpack)[0] + " | dd", func(c string) []string {
		return []string{"sh", "-c", unpack + ` < "$0" | dd of="$1" bs=1M iflag=fullblock conv=fsync status=none`, b.artifact(c) + ".image", b.device.Slot(3)}
	}})
	if _, err := exec.LookPath("mender"); err == nil && codec != "zstd" { // Debian's cannot read zstd
		all = append(all, peer{"mender-client", func(c string) []string {
			return []string{"test/bench/mender-client", b.device.Slot(2), b.device.Slot(3), b.artifact(c)}
		}})
	}
	return all
}

// measure brings the device into its state, runs the command, and looks at
// every byte that it should have written.
func (b *installBench) measure(ctx context.Context, command []string, state string) (result, error) {
	slot := b.device.Slot(3)
	if err := b.reset(slot, state); err != nil {
		return result{}, err
	}
	before, err := blockStat(slot)
	if err != nil {
		return result{}, err
	}
	measured := filepath.Join(b.dir, "time")
	args := append([]string{"-q", "-f", "%e %U %S %M", "-o", measured}, command...)
	if out, err := exec.CommandContext(ctx, "/usr/bin/time", args...).CombinedOutput(); err != nil {
		return result{}, fmt.Errorf("%s: %w: %s", command[0], err, out)
	}
	after, err := blockStat(slot)
	if err != nil {
		return result{}, err
	}
	line, err := os.ReadFile(measured)
	if err != nil {
		return result{}, err
	}
	var user, system, kib float64
	r := result{
		reads: (after[2] - before[2]) * 512 / mib, written: (after[6] - before[6]) * 512 / mib, flushes: after[15] - before[15],
	}
	if _, err := fmt.Sscan(string(line), &r.wall, &user, &system, &kib); err != nil {
		return result{}, err
	}
	r.cpu, r.rss = user+system, kib/1024
	return r, b.check(slot)
}

func (b *installBench) reset(slot, state string) error {
	content := b.prev
	if state == "other" {
		content = makeNoise(len(b.image))
	}
	f, err := os.OpenFile(slot, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0), f.Close())
	stores, _ := filepath.Glob(filepath.Join(b.device.Data(), "mender-store*")) // the pattern is right
	for _, s := range stores {
		err = errors.Join(err, os.Remove(s))
	}
	return errors.Join(err, b.device.Shipped())
}

func (b *installBench) check(slot string) error {
	f, err := os.Open(slot)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, int64(len(b.image))); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != b.sum {
		return errors.New("the slot does not hold the image")
	}
	return nil
}

// blockStat reads the counters of a block device (source: Linux,
// Documentation/block/stat.rst).
func blockStat(path string) ([]float64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return nil, err
	}
	var out []float64
	for field := range strings.FieldsSeq(string(b)) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	if len(out) < 16 {
		return nil, fmt.Errorf("%s: %d counters, want 16: the kernel does not count flushes", path, len(out))
	}
	return out, nil
}

func makeNoise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

// medians takes each figure by itself.
func medians(runs []result) result {
	median := func(of func(result) float64) float64 {
		all := make([]float64, len(runs))
		for i, r := range runs {
			all[i] = of(r)
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return result{
		wall:    median(func(r result) float64 { return r.wall }),
		cpu:     median(func(r result) float64 { return r.cpu }),
		rss:     median(func(r result) float64 { return r.rss }),
		written: median(func(r result) float64 { return r.written }),
		reads:   median(func(r result) float64 { return r.reads }),
		flushes: median(func(r result) float64 { return r.flushes }),
	}
}
