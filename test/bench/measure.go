package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// result is one run.
type result struct {
	wall, cpu float64 // seconds
	rss       float64 // MiB, of the largest process
	written   float64 // MiB that the block device was sent
	zeroed    float64 // MiB that it made zero by command
	read      float64 // MiB
	flushes   float64
}

// maxRun ends a program that hangs.
const maxRun = 15 * time.Minute

// measure brings the device into its state, runs a program, and looks at every
// byte and variable that it should have written.
func (b *installBench) measure(ctx context.Context, p *program, state string) (result, error) {
	file := filepath.Join(b.stick.dir, filepath.Base(p.file))
	if err := b.reset(p, state, file); err != nil {
		return result{}, err
	}
	before, err := blockStat(b.slot.path)
	if err != nil {
		return result{}, err
	}
	line := filepath.Join(b.dir, "time")
	if err := b.run(ctx, p.command(file, line)); err != nil {
		return result{}, err
	}
	r, err := readTime(line)
	if err != nil {
		return result{}, err
	}
	flushed, err := blockStat(b.slot.path)
	if err != nil {
		return result{}, err
	}
	// What a program left to the kernel is counted; its time is not.
	if err := b.slot.flush(); err != nil {
		return result{}, err
	}
	after, err := blockStat(b.slot.path)
	if err != nil {
		return result{}, err
	}
	holes, err := b.slot.holes()
	if err != nil {
		return result{}, err
	}
	const sector = 512
	r.read = (after[statRead] - before[statRead]) * sector / mib
	r.zeroed = float64(holes) / mib
	r.written = (after[statWritten]-before[statWritten])*sector/mib - r.zeroed
	r.flushes = flushed[statFlushes] - before[statFlushes]
	return r, b.check(p)
}

func (b *installBench) reset(p *program, state, file string) error {
	content := b.prev
	if state == "fresh" {
		content = b.noise
	}
	err := errors.Join(b.slot.fill(content), b.stick.forget(file), b.configure(p))
	stores, _ := filepath.Glob(filepath.Join(b.device.Data(), "mender-store*")) // the pattern is right
	for _, s := range stores {
		err = errors.Join(err, os.Remove(s))
	}
	err = errors.Join(err, b.device.Shipped())
	if err != nil || p.before == nil {
		return err
	}
	return b.device.SetEnv(p.before)
}

// run runs a command on the CPUs that it may use.
func (b *installBench) run(ctx context.Context, command []string) error {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	start := cmd.Start
	if b.cpus > 0 {
		start = func() error { return startPinned(cmd, b.cpus) }
	}
	if err := start(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(command[0]), err, tail(out.b))
	}
	return nil
}

// startPinned starts a program on the first n CPUs: it inherits the set of the
// thread that starts it.
func startPinned(cmd *exec.Cmd, n int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, few unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := 0; cpu < int(unsafe.Sizeof(all))*8 && few.Count() < n; cpu++ {
		if all.IsSet(cpu) {
			few.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &few); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &all))
}

// limited keeps the last of what a program says.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	const most = 4 << 10
	l.b = append(l.b, p...)
	l.b = l.b[max(0, len(l.b)-most):]
	return len(p), nil
}

// check fails unless the slot holds the image and the environment was switched.
func (b *installBench) check(p *program) error {
	sum, err := sumFile(b.slot.path)
	if err != nil {
		return err
	}
	if sum != b.sum {
		return errors.New("the slot does not hold the image")
	}
	if p.after == nil {
		return nil
	}
	env, err := b.device.Env()
	if err != nil {
		return err
	}
	return switched(env, p.after)
}

func switched(env, want map[string]string) error {
	for name, value := range want {
		if got := strings.TrimSpace(env[name]); got != value {
			return fmt.Errorf("%s is %q afterwards, want %q", name, got, value)
		}
	}
	return nil
}

func readTime(path string) (result, error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return result{}, err
	}
	var r result
	var user, system, kib float64
	if _, err := fmt.Sscan(string(line), &r.wall, &user, &system, &kib); err != nil {
		return result{}, fmt.Errorf("read what time measured %q: %w", line, err)
	}
	r.cpu, r.rss = user+system, kib/1024
	return r, nil
}

// Counters of a block device, of sectors and of flushes (source: Linux,
// Documentation/block/stat.rst).
const statRead, statWritten, statFlushes = 2, 6, 15

func blockStat(path string) ([]float64, error) {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "stat"))
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
	if len(out) <= statFlushes {
		return nil, fmt.Errorf("%s: %d counters: the kernel does not count flushes", path, len(out))
	}
	return out, nil
}

// medians takes each figure by itself; of an even number of runs, the mean of
// the two in the middle.
func medians(runs []result) result {
	median := func(of func(result) float64) float64 {
		all := make([]float64, len(runs))
		for i, r := range runs {
			all[i] = of(r)
		}
		slices.Sort(all)
		return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	}
	return result{
		wall:    median(func(r result) float64 { return r.wall }),
		cpu:     median(func(r result) float64 { return r.cpu }),
		rss:     median(func(r result) float64 { return r.rss }),
		written: median(func(r result) float64 { return r.written }),
		zeroed:  median(func(r result) float64 { return r.zeroed }),
		read:    median(func(r result) float64 { return r.read }),
		flushes: median(func(r result) float64 { return r.flushes }),
	}
}
