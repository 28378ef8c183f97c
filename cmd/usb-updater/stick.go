package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
	"github.com/usb-updater/usb-updater/internal/watch"
)

const (
	// openTries and openPause bound how long a stick may take to get ready
	// after its device has appeared.
	openTries = 6
	openPause = 2 * time.Second

	// gonePause is the time between two looks for the stick while it is read.
	gonePause = 250 * time.Millisecond
	// goneTries is how often a stick that could not be read is looked for:
	// reads fail a moment before the kernel removes the device.
	goneTries = 4
)

// errTooMany means that a stick is over the limit of what is looked at.
var errTooMany = fmt.Errorf("more than %d disks, or %d partitions of one, are plugged in", watch.MaxDisks, watch.MaxPartitions)

// openStick opens the block device for reading. It must be on a bus that is
// allowed, and nothing but storage; the device's own disks are never a stick.
// One that is not ready yet gets some time. A directory may stand in for a stick
// on a simulated device, and where directory says so.
func (a *agent) openStick(ctx context.Context, p profile, directory bool) (*mount.Stick, error) {
	opts := mount.Options{
		Types:          p.device.Agent.FileSystems,
		RunDir:         p.device.RunDir(),
		AllowDirectory: directory || p.device.Simulated(),
		AllowComposite: p.device.Agent.AllowComposite,
	}
	if sys := p.device.Path("/sys"); !p.device.Simulated() || describesDisks(sys) {
		var err error
		if opts.Protected, err = p.device.OwnStorage(p.slots); err != nil {
			return nil, err
		}
		opts.Sysfs, opts.Buses = sys, p.device.Agent.Buses
	}
	if a.tell != nil { // what is no stick is told by what opens it
		a.tell.present, _ = mount.Presence(stickName(a.args[0], opts), opts)
	}
	if opts.Sysfs != "" {
		if err := withinLimit(a.args[0], opts.Sysfs); err != nil {
			return nil, err
		}
	}
	stick, err := a.mountStick(ctx, opts)
	if err == nil && a.tell != nil {
		a.tell.stick = stick
	}
	return stick, err
}

// describesDisks tells whether a simulated device says on which bus its sticks
// are. Most do not: theirs are directories.
func describesDisks(sysfs string) bool {
	_, err := os.Stat(filepath.Join(sysfs, "class/block"))
	return err == nil
}

// mountStick opens the stick of the command line. It must not take longer than
// all of the scan may.
func (a *agent) mountStick(ctx context.Context, opts mount.Options) (*mount.Stick, error) {
	ctx, cancel := a.scanContext(ctx)
	defer cancel()
	name := stickName(a.args[0], opts)
	open := func() (*mount.Stick, error) { return mount.Open(ctx, name, opts) }
	if opts.AllowDirectory { // nothing starts up on a simulated device, or for list
		return open()
	}
	return patiently(ctx, a.sleep, open)
}

// withinLimit refuses a stick that is one too many. Each partition has a run,
// so each run counts for itself.
func withinLimit(word, sysfs string) error {
	var st unix.Stat_t
	path := word
	if !strings.Contains(word, "/") {
		path = filepath.Join("/dev", strings.ReplaceAll(word, "!", "/"))
	}
	if unix.Stat(path, &st) != nil {
		return nil // to be told by what opens it
	}
	found, err := watch.Scan(sysfs)
	if err != nil {
		return err
	}
	_, over := watch.Limit(found)
	for _, d := range over {
		if unix.Mkdev(d.Major, d.Minor) == uint64(st.Rdev) {
			return fmt.Errorf("stick %.64q: %w", word, errTooMany)
		}
	}
	return nil
}

// patiently tries again as long as a stick that has just been plugged in may
// still be starting: its card is not there yet, or it cannot be read.
func patiently(ctx context.Context, sleep func(context.Context, time.Duration) error, open func() (*mount.Stick, error)) (*mount.Stick, error) {
	for try := 1; ; try++ {
		stick, err := open()
		starting := errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, unix.EIO)
		if err == nil || !starting || try == openTries {
			return stick, err
		}
		if stop := sleep(ctx, openPause); stop != nil {
			return nil, errors.Join(err, stop)
		}
	}
}

// stickName lets a person name a directory of the current one without a
// slash, where a directory may stand in for a stick. Otherwise such a word is
// the kernel's name of a block device.
func stickName(word string, opts mount.Options) string {
	if info, err := os.Stat(word); opts.AllowDirectory && err == nil && info.IsDir() {
		if path, err := filepath.Abs(word); err == nil {
			return path
		}
	}
	return word
}

// whilePlugged runs do, whose context ends at once when the stick is gone. It
// tells a run that failed because of that from others, also where a read error
// or the service manager was faster. check asks whether the stick is there.
//
// Once do has returned without an error, the stick is not needed any more:
// arming the boot loader is not stopped by an empty port.
func (a *agent) whilePlugged(ctx context.Context, check func() error, do func(context.Context) (report.Code, error)) (report.Code, error) {
	reading, stop := whilePresent(ctx, check)
	code, err := do(reading)
	stop()
	if err == nil {
		return code, nil
	}
	gone := check()
	tries := goneTries
	if a.opts.Root != "" { // a simulated stick does not take time to go
		tries = 1
	}
	for try := 1; gone == nil && code == report.StickFailed && try < tries; try++ {
		if a.sleep(ctx, gonePause) != nil {
			break
		}
		gone = check()
	}
	if !errors.Is(gone, mount.ErrGone) {
		return code, err
	}
	a.log.Debug().Err(err).Msg("ended by the removal")
	return report.StickRemoved, gone
}

// whilePresent returns a context that ends when check finds that the stick is
// gone, which it asks every now and then. A nil check never does. stop ends it
// before that.
func whilePresent(ctx context.Context, check func() error) (present context.Context, stop func()) {
	present, cancel := context.WithCancelCause(ctx)
	if check == nil {
		return present, func() { cancel(nil) }
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		ticker := time.NewTicker(gonePause)
		defer ticker.Stop()
		for {
			select {
			case <-present.Done():
				return
			case <-ticker.C:
				if err := check(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return present, func() { cancel(nil); <-watching }
}
