// Command power cuts the power of a virtual device at random moments from the
// insertion of a stick to the commit, and checks what becomes of it. make
// test-vm-power runs it.
//
// A device runs on a disk that forgets (package medium) and is updated once. The
// trace of that update is then judged offline, at every moment of it with several
// losses of what was not flushed; and rounds pick moments at random, stage by
// stage, and really start the device with the disk as the cut left it. It must
// come up on a whole slot and settle without help. Each few rounds the next
// update follows, and its trace serves the rounds after it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "power:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rounds, share, pulls, faults, draws int
	seed                                uint64
	bug, out, cache, bin, keep          string
	lock                                string
	limit, timeout                      time.Duration
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("power", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 20, "power cuts after which the device is started")
	f.IntVar(&o.share, "share", 10, "each so many rounds, the next update follows")
	f.IntVar(&o.pulls, "pulls", 0, "instead: sticks to pull out")
	f.IntVar(&o.faults, "faults", 0, "instead: updates during which the disk gives I/O errors")
	f.IntVar(&o.draws, "draws", 3, "random losses for each moment that is judged offline")
	f.Uint64Var(&o.seed, "seed", 0, "of all random choices; 0: one of its own")
	f.StringVar(&o.bug, "bug", "", "build the agent with a deliberate bug: "+strings.Join(bugNames(), ", "))
	f.StringVar(&o.out, "out", ".cache/power/results.jsonl", "file to append results to")
	f.StringVar(&o.cache, "cache", ".cache/vm", "directory of the virtual device's parts")
	f.StringVar(&o.bin, "bin", "bin", "directory of the programs")
	f.StringVar(&o.keep, "keep", ".cache/power", "directory for the disks of violations")
	f.StringVar(&o.lock, "lock", "", "file to hold a shared lock on while a machine runs")
	f.DurationVar(&o.limit, "limit", 0, "begin no round after this time; 0: no limit")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "for one boot or one update")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) //nolint:gosec // any number will do
	}
	for _, path := range []*string{&o.out, &o.cache, &o.bin, &o.keep} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return o, err
		}
		*path = abs
	}
	return o, nil
}

// run does what the command line says. It is called in the top directory of the
// source.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "power")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fast, err := os.MkdirTemp("/dev/shm", "power")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fast)
	l := &lab{dir: dir, lock: o.lock, timeout: o.timeout, seed: o.seed}
	if o.bug != "" {
		if l.program, err = buildBug(ctx, o.bug, dir); err != nil {
			return err
		}
	}
	results, err := openResults(o.out, out)
	if err != nil {
		return err
	}
	if err := os.Chdir("test/vm"); err != nil { // where the parts are built
		return err
	}
	if err := newLab(ctx, l, o.cache, o.bin); err != nil {
		return errors.Join(err, results.Close())
	}
	s := &campaign{options: o, lab: l, check: &checker{lay: l.lay, dir: fast}, results: results, out: out}
	err = s.run(ctx)
	s.summary()
	return errors.Join(err, results.Close(), s.verdict())
}
