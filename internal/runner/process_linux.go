package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errTimeout is why a process is terminated that used up its time.
var errTimeout = errors.New("timed out")

// process is a running program. Its process ID stays ours until reap, so a
// signal cannot reach a stranger that got the same number.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *capture
	exited         chan struct{} // closed when the program is a zombie
}

// start starts the program in a process group of its own.
func start(c Cmd) (_ *process, err error) {
	p := &process{exited: make(chan struct{})}
	limit := cmp.Or(c.Capture, DefaultCapture)
	var outPipe, errPipe *os.File
	if p.stdout, outPipe, err = newCapture(limit); err != nil {
		return nil, err
	}
	if p.stderr, errPipe, err = newCapture(limit); err != nil {
		_ = outPipe.Close()
		_ = p.stdout.stop()
		return nil, err
	}
	p.cmd = exec.Command(c.Path, c.Args...)
	p.cmd.Env = c.Env
	p.cmd.Dir = cmp.Or(c.Dir, "/")
	p.cmd.Stdout, p.cmd.Stderr = outPipe, errPipe
	in, err := stdin(c.Stdin)
	if err != nil {
		_, _ = outPipe.Close(), errPipe.Close()
		_, _ = p.stdout.stop(), p.stderr.stop()
		return nil, err
	}
	if in != nil { // a nil *os.File in the interface would not be /dev/null
		p.cmd.Stdin = in
		defer in.Close() // only read by the program
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	err = p.cmd.Start()
	// From here on only the program and its children hold the writing ends.
	_, _ = outPipe.Close(), errPipe.Close()
	if err != nil {
		_, _ = p.stdout.stop(), p.stderr.stop()
		return nil, startError(err, p.cmd.Dir)
	}
	go p.watch()
	return p, nil
}

// stdin returns a file that holds the text, nil if there is none. A pipe can
// take this much at once, so nobody has to write while the program runs, and a
// program that reads nothing keeps nobody waiting.
func stdin(text string) (*os.File, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > MaxStdin {
		return nil, fmt.Errorf("standard input: %d bytes, more than %d", len(text), MaxStdin)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// startError takes the repeated path off. "No such file" is about the working
// directory or the interpreter: the program itself was there a moment ago.
func startError(err error, dir string) error {
	pathErr, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return pathErr.Err
	}
	if _, dirErr := os.Stat(dir); dirErr != nil {
		return fmt.Errorf("working directory: %w", dirErr)
	}
	return ErrNoInterpreter
}

// watch closes exited when the program has ended. It leaves the zombie.
func (p *process) watch() {
	defer close(p.exited)
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // any other error shows up again in reap
		}
	}
}

// wait returns nil when the program has ended, or why it must be ended.
func (p *process) wait(ctx context.Context, timeout time.Duration) error {
	var expired <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-p.exited:
		return nil
	case <-expired:
		return errTimeout
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// terminate ends the process group. A shell dies of SIGTERM at once, while the
// tool that it runs may still be finishing a write: so the time of grace is for
// whoever holds the output pipes, too.
func (p *process) terminate(grace time.Duration) {
	p.signal(unix.SIGTERM)
	p.signal(unix.SIGCONT) // a stopped process does not see SIGTERM
	defer p.signal(unix.SIGKILL)
	t := time.NewTimer(grace)
	defer t.Stop()
	for _, gone := range []<-chan struct{}{p.exited, p.stdout.done, p.stderr.done} {
		select {
		case <-gone:
		case <-t.C:
			return
		}
	}
}

// signal reaches every process of the group. It fails only if there is none.
func (p *process) signal(sig syscall.Signal) {
	_ = unix.Kill(-p.cmd.Process.Pid, sig)
}

// reap collects the program and its output.
func (p *process) reap() (Result, error) {
	<-p.exited
	err := p.cmd.Wait()
	res := Result{ExitCode: -1, Stdout: p.stdout.stop(), Stderr: p.stderr.stop()}
	res.StdoutCut = p.stdout.tail.cut > 0
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return res, err
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return res, errors.New("no wait status")
	}
	if status.Signaled() {
		res.Signal = status.Signal()
	} else {
		res.ExitCode = status.ExitStatus()
	}
	return res, nil
}
