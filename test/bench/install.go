package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/test/sim"
)

const (
	deviceType = "bench"
	oursName   = "usb-updater"
	// format names the cache: another generator of images needs another one.
	format = 1
)

type installOptions struct {
	out                   io.Writer
	size                  int64 // bytes of the image
	rounds, cpus          int
	dir, cache, bin, peer string
	media, codecs, states []string
	peers                 []string // "1" is all
}

// installBench measures whole installs: a program that a shell would run writes
// an image to the inactive slot of a device and switches its boot environment.
type installBench struct {
	installOptions
	dir                string
	cache              cache
	keys               string
	image, prev, noise string
	sum                [sha256.Size]byte // of the image

	// Of the medium that is measured.
	device *sim.Device
	loopA  string
	slot   *blockDevice
	stick  *stick
}

// runInstall prints a table of medians for all media, codecs and states. It
// fails if ours did not install.
func runInstall(ctx context.Context, o installOptions) error {
	if os.Getuid() != 0 {
		return errors.New("installs need root, for loop devices")
	}
	for _, s := range o.states {
		if s != "fresh" && s != "prev" {
			return fmt.Errorf("state %q: want fresh or prev", s)
		}
	}
	for _, p := range o.peers {
		if !slices.Contains(peerNames(), p) {
			return fmt.Errorf("program %q: want one of %v", p, peerNames())
		}
	}
	if o.size%mib != 0 || o.size < 16*mib || o.rounds < 1 {
		return errors.New("want at least 16 MiB and one round")
	}
	b := &installBench{installOptions: o, cache: cache{filepath.Join(o.cache, fmt.Sprintf("v%d-%d", format, o.size/mib))}}
	var err error
	for _, path := range []*string{&b.cache.dir, &b.bin, &b.peer} { // the programs run elsewhere
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp(o.dir, "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := b.makeImages(ctx); err != nil {
		return err
	}
	for _, name := range o.media {
		m, err := findMedium(name)
		if err != nil {
			return err
		}
		if err := b.runMedium(ctx, m); err != nil {
			return fmt.Errorf("medium %s: %w", name, err)
		}
	}
	return nil
}

// makeImages finds or makes what the slot holds before and after.
func (b *installBench) makeImages(ctx context.Context) error {
	if err := os.MkdirAll(b.cache.dir, 0o755); err != nil {
		return err
	}
	create := func(fill func(io.Writer) error) func(string) error {
		return func(path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			return errors.Join(fill(f), f.Close())
		}
	}
	var err [5]error
	b.image, err[0] = b.cache.file("image", create(func(w io.Writer) error { return writeImages(w, io.Discard, b.size) }))
	b.prev, err[1] = b.cache.file("prev", create(func(w io.Writer) error { return writeImages(io.Discard, w, b.size) }))
	b.noise, err[2] = b.cache.file("noise", create(func(w io.Writer) error { return writeNoise(w, b.size) }))
	b.sum, err[3] = sumFile(b.image)
	if len(b.peers) > 0 {
		b.keys, err[4] = b.cache.key(ctx)
	}
	return errors.Join(err[:]...)
}

// runMedium makes a device and measures on it.
func (b *installBench) runMedium(ctx context.Context, m medium) (err error) {
	if err := b.makeDevice(ctx, m); err != nil {
		return errors.Join(err, b.closeDevice())
	}
	defer func() { err = errors.Join(err, b.closeDevice()) }()
	if err := b.head(m); err != nil {
		return err
	}
	for _, name := range b.codecs {
		how, err := findCodec(name)
		if err != nil {
			return err
		}
		if err := b.runCodec(ctx, m, how); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// makeDevice makes a device that runs from slot A; slot B is on the medium.
func (b *installBench) makeDevice(ctx context.Context, m medium) error {
	d, err := sim.New(filepath.Join(b.dir, "device"), sim.Options{SlotSize: b.size, DeviceType: deviceType, Loop: true})
	if err != nil {
		return err
	}
	b.device = d
	root := filepath.Join(b.dir, "root.ext4")
	if err := errors.Join((sim.Release{Name: "release-1"}).Image(root, 16*mib), d.Flash(sim.Slots[0], root)); err != nil {
		return err
	}
	if _, err := d.Boot(); err != nil {
		return err
	}
	if b.loopA, err = loopOf(d.Slot(sim.Slots[0])); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "slot-b")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(b.size), f.Close()); err != nil {
		return err
	}
	if b.slot, err = attach(ctx, file, m.slot); err != nil {
		return err
	}
	var st unix.Stat_t
	node := d.Slot(sim.Slots[1])
	return errors.Join(unix.Stat(b.slot.path, &st), os.Remove(node), unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev)))
}

// loopOf is the machine's own name of a loop device.
func loopOf(node string) (string, error) {
	n, err := minor(node)
	return fmt.Sprintf("/dev/loop%d", n), err
}

func (b *installBench) closeDevice() error {
	var err error
	if b.slot != nil {
		err = errors.Join(err, b.slot.close(), os.Remove(b.slot.file))
	}
	if b.device != nil {
		err = errors.Join(err, b.device.Close(), os.RemoveAll(b.device.Dir))
	}
	b.slot, b.device = nil, nil
	return err
}

// runCodec measures all programs with one kind of artifact. The order changes
// from round to round, so that none always follows the same other one.
func (b *installBench) runCodec(ctx context.Context, m medium, how codec) (err error) {
	all, left, err := b.programs(ctx, how)
	if err != nil {
		return err
	}
	var files []string
	for _, p := range all {
		files = append(files, p.file)
	}
	slices.Sort(files)
	if b.stick, err = makeStick(ctx, b.dir, m.stick, slices.Compact(files)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stick.close()) }()
	for _, state := range b.states {
		for _, p := range all {
			p.runs, p.failed = nil, nil
		}
		for round := range b.rounds {
			for i := range all {
				p := all[(i+round)%len(all)]
				if p.failed != nil {
					continue
				}
				r, err := b.measure(ctx, p, state)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				p.runs, p.failed = append(p.runs, r), err
			}
		}
		b.rows(how, state, all)
		for _, p := range all[:2] {
			if p.failed != nil {
				return fmt.Errorf("%s over %s: %w", p.name, state, p.failed)
			}
		}
	}
	for _, l := range left {
		fmt.Fprintf(b.out, "\n%s, %s: left out: %s\n", l.name, how.name, l.reason)
	}
	return nil
}

func (b *installBench) head(m medium) error {
	s, err := compareImages(b.image, b.prev)
	if err != nil {
		return err
	}
	cpus := runtime.NumCPU()
	if b.cpus > 0 {
		cpus = min(cpus, b.cpus)
	}
	fmt.Fprintf(b.out, "\nMedium %s, %d CPU, image of %d MiB: %v. Medians of %d rounds.\n\n", m.name, cpus, b.size/mib, s, b.rounds)
	fmt.Fprintln(b.out, "| artifact | slot held | program | wall s | × ours | CPU s | × ours | RSS MiB | written MiB | zeroed MiB | read MiB | flushes |")
	fmt.Fprintln(b.out, "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	return nil
}

// cellText is what a table shows as text.
func cellText(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// rows prints the medians of a state, with ratios to ours, the first.
func (b *installBench) rows(how codec, state string, all []*program) {
	ours := medians(all[0].runs)
	for _, p := range all {
		if p.failed != nil {
			fmt.Fprintf(b.out, "| %s | %s | %s | FAILED: %.300v |||||||||\n", how.name, state, cellText(p.name), cellText(p.failed.Error()))
			continue
		}
		r := medians(p.runs)
		fmt.Fprintf(b.out, "| %s | %s | %s | %.2f | %.2f | %.2f | %.2f | %.1f | %.0f | %.0f | %.0f | %.0f |\n",
			how.name, state, cellText(p.name), r.wall, r.wall/ours.wall, r.cpu, r.cpu/ours.cpu, r.rss, r.written, r.zeroed, r.read, r.flushes)
	}
}
