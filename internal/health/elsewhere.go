package health

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/usb-updater/usb-updater/internal/runner"
)

// Checks run in a process of their own where the service manager offers one
// behind a Unix socket: programs of the device's owner, and connections to its
// services, need what a process that writes slots and boot environment should
// not have. The protocol: each connection is one pass. The client says nothing,
// and hangs up when it does not want the result any longer. The other end
// writes a Result as JSON.

const (
	// maxResult bounds a result, in bytes: names and output are cut before.
	maxResult = 256 << 10
	// maxRan bounds the names that are believed.
	maxRan = 2 * maxChecks
)

// ask has the checks run behind the socket. ok is false if nobody listens
// there, so that they have to run here.
func (k *Checker) ask(ctx context.Context) (res Result, ok bool, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", k.config.Socket)
	if err != nil {
		return Result{}, false, done(ctx)
	}
	defer conn.Close() // tells the other end to stop
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = json.NewDecoder(io.LimitReader(conn, maxResult)).Decode(&res)
	if ctx.Err() != nil {
		return Result{}, true, fmt.Errorf("health check: %w", context.Cause(ctx))
	}
	if err != nil {
		// It was killed, or could not even begin. A check may have done that.
		return Result{}.fail(".", wrong("the process that runs the checks ended without a result")), true, nil
	}
	return res.bounded(), true, nil
}

// bounded makes what another process says safe to print.
func (r Result) bounded() Result {
	r.Ran = r.Ran[:min(len(r.Ran), maxRan)]
	for i, name := range r.Ran {
		r.Ran[i] = runner.Printable(name)
	}
	if r.Passed {
		return Result{Passed: true, Ran: r.Ran}
	}
	return r.fail(r.Failed, verdict{reason: r.Reason, exitCode: r.ExitCode, output: r.Output})
}

// Serve is the other end of the socket: it runs the checks once, and writes the
// result to out. It stops when in ends.
func (k *Checker) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, err := io.Copy(io.Discard, io.LimitReader(in, 1)) // nothing is said here
		if err == nil {
			err = io.EOF
		}
		cancel(fmt.Errorf("the client hung up: %w", err))
	}()
	res, err := k.runHere(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(res)
}

// Broken is the result of checks that the configuration does not allow to run.
func Broken(err error) Result { return Result{}.fail(".", wrong("%v", err)) }
