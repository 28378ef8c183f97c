package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/mount"
	"github.com/usb-updater/usb-updater/internal/report"
)

// A stick is inspected by a process of its own, the inspector, which can read
// the stick and nothing else (see confine). It tells what it saw on its
// standard output, as JSON. What it says is believed no more than a stick is:
// the header of the chosen artifact is read and verified again here (see
// reopen), and must be the one that the inspector told of.

const (
	// inspectorVerb is the command that is run for it. Nobody else needs it.
	inspectorVerb = "inspect-stick"
	// stickFD is where the inspector finds the root directory of the stick.
	stickFD = 3
	// maxSighting bounds what an inspector may say, and maxComplaint what it
	// may say when it breaks, in bytes.
	maxSighting  = 16 << 20
	maxComplaint = 2 << 10
	// inspectorGrace is how long an inspector that was killed may take to end.
	// One that hangs in a read of the stick does not end before that read.
	inspectorGrace = time.Second
)

// sighting is what an inspector says.
type sighting struct {
	Confined  string // how
	Err       *sightedError
	LeftOut   int
	Truncated bool
	Files     []sightedFile
	Report    []byte // the latest one of this device, if it leaves any
}

// sightedFile is a candidate as it is told.
type sightedFile struct {
	Path    []byte // any bytes, which a JSON string cannot hold
	Size    int64
	Header  *artifact.Header
	Payload int64 // bytes
	Err     *sightedError
}

// sightedError is an error that comes from the inspector.
type sightedError struct {
	Text string
	Kind artifact.Kind // 0: not one of artifact's
}

// Error is the text, as it was.
func (e *sightedError) Error() string { return e.Text }

// As lets an error of package artifact be one here, too.
func (e *sightedError) As(target any) bool {
	t, ok := target.(**artifact.Error)
	if ok && e.Kind != 0 {
		*t = &artifact.Error{Kind: e.Kind, Err: errors.New(e.Text)}
	}
	return ok && e.Kind != 0
}

func tell(err error) *sightedError {
	if err == nil {
		return nil
	}
	told := &sightedError{Text: err.Error()}
	if ae, ok := errors.AsType[*artifact.Error](err); ok {
		told.Kind = ae.Kind
	}
	return told
}

// candidate is the other way round.
func (f sightedFile) candidate() (candidate, error) {
	c := candidate{entry: mount.Entry{Path: string(f.Path), Size: f.Size}, header: f.Header, size: f.Payload}
	if f.Err != nil {
		c.err = f.Err
	}
	if c.header == nil && c.err == nil {
		return c, errors.New("a file with neither header nor error")
	}
	return c, nil
}

// outline is what of a header matters before its payload is read: all but the
// documents as they were written, and what is in the state scripts.
func outline(h *artifact.Header) *artifact.Header {
	short := *h
	short.HeaderInfo, short.TypeInfo, short.MetaData = nil, nil, nil
	short.Scripts = nil
	for _, s := range h.Scripts {
		short.Scripts = append(short.Scripts, artifact.Script{Name: s.Name})
	}
	return &short
}

// sameHeader tells whether the inspector told of h.
func sameHeader(told, h *artifact.Header) bool {
	a, errA := json.Marshal(outline(told))
	b, errB := json.Marshal(outline(h))
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// sight has the stick inspected. If ctx ends first it returns at once; an
// inspector that hangs in a read of the stick ends with that read.
func (a *agent) sight(ctx context.Context, stick *mount.Stick) (sighting, error) {
	seen, err := leaveBehind(ctx, inspectorGrace, func() (sighting, error) { return a.runInspector(ctx, stick) })
	switch {
	case ctx.Err() != nil: // what was seen is no verdict
		return sighting{}, context.Cause(ctx)
	case err != nil:
		return sighting{}, fmt.Errorf("inspect stick %.64q: %w", stick.Name, err)
	case seen.Err != nil:
		return sighting{}, seen.Err
	}
	return seen, nil
}

func (a *agent) runInspector(ctx context.Context, stick *mount.Stick) (seen sighting, err error) {
	// The inspector holds the stick's mount, which must end with this process,
	// whatever ends that. The kernel sends the death signal when the thread that
	// forked ends: one that is locked to this goroutine lives as long as it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir, err := stick.Root().Open(".")
	if err != nil {
		return seen, err
	}
	defer dir.Close()
	// The program itself, whatever its name leads to by now.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", a.inspectorArgs()...)
	cmd.Args[0] = "usb-updater"
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	complaint := &limitedBuffer{left: maxComplaint}
	cmd.Stderr = complaint
	cmd.WaitDelay = inspectorGrace
	out, err := cmd.StdoutPipe()
	if err != nil {
		return seen, err
	}
	if err := cmd.Start(); err != nil {
		return seen, err
	}
	decodeErr := json.NewDecoder(io.LimitReader(out, maxSighting)).Decode(&seen)
	_ = out.Close() // what it still has to say is not read: it must not wait for us
	if err := cmd.Wait(); decodeErr != nil {
		return seen, fmt.Errorf("the inspecting process broke: %w", errors.Join(err, decodeErr, complaint.err()))
	}
	return seen, nil
}

// inspectorArgs lead the inspector to the same configuration.
func (a *agent) inspectorArgs() []string {
	var args []string
	for flag, value := range map[string]string{
		"--root": a.opts.Root, "--mender-config": a.opts.ConfigFile, "--config": a.opts.AgentFile, "--data": a.opts.DataDir,
	} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	return append(args, inspectorVerb)
}

// inspectStick is the inspector. It is started by sight, and prints nothing but
// a sighting.
func (a *agent) inspectStick(ctx context.Context) (report.Code, error) {
	seen := a.inspectAll(ctx)
	if err := json.NewEncoder(a.stdout).Encode(seen); err != nil {
		return report.Failed, err
	}
	return report.OK, nil
}

func (a *agent) inspectAll(ctx context.Context) (seen sighting) {
	// The device's own files come first: after confine they are out of reach.
	d, err := device.Open(a.opts)
	if err != nil {
		return sighting{Err: tell(err)}
	}
	keys, err := d.Keys()
	if err != nil {
		return sighting{Err: tell(err)}
	}
	name := ""
	if d.Agent.WriteReport {
		name = reportName(d)
	}
	dir := os.NewFile(stickFD, "stick")
	stick, err := mount.Adopt(dir)
	if err != nil {
		return sighting{Err: tell(err)}
	}
	defer stick.Close() // read only
	if seen.Confined, err = confine(dir); err != nil {
		return sighting{Err: tell(err)}
	}
	listing, err := stick.Candidates(ctx)
	if err != nil {
		return sighting{Err: tell(err)}
	}
	if name != "" {
		seen.Report = []byte(stick.LastReport(name))
	}
	seen.LeftOut, seen.Truncated = listing.LeftOut, listing.Truncated
	for _, entry := range listing.Entries {
		c := inspect(ctx, stick, entry, keys)
		file := sightedFile{Path: []byte(entry.Path), Size: entry.Size, Payload: c.size, Err: tell(c.err)}
		if c.header != nil {
			file.Header = outline(c.header)
		}
		seen.Files = append(seen.Files, file)
	}
	return seen
}

// limitedBuffer keeps the first bytes that are written to it.
type limitedBuffer struct {
	bytes.Buffer

	left int
}

// Write takes all, and keeps what there is room for.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	_, _ = b.Buffer.Write(p[:n]) // a buffer in memory
	return len(p), nil
}

func (b *limitedBuffer) err() error {
	if b.Len() == 0 {
		return nil
	}
	return fmt.Errorf("it said %q", b.String())
}
