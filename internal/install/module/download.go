package module

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// maxFileName bounds a payload file's name in bytes, as file systems do.
const maxFileName = 255

// errEnded means that the module is gone and reads no more.
var errEnded = errors.New("it ended in the middle of the payload")

// Open returns the destination of the next payload file: its name, and its size
// in bytes. The destination before it is complete then.
type Open func(name string, size int64) (io.Writer, error)

// Download makes a new work tree and brings the payload to the module: stream
// calls open for each file in turn, and writes what the file holds. The module
// reads it as it comes, or finds it in the directory files afterwards.
//
// A file name never becomes a path: one that is not a single component is
// refused. On nil the module has succeeded and the work tree is on the medium.
// On error the module has ended, and the tree is there for [Runner.Cleanup].
// When stream fails, the module is terminated.
func (r *Runner) Download(ctx context.Context, p Payload, stream func(ctx context.Context, open Open) error) error {
	if _, err := r.find(p.PayloadType); err != nil {
		return err
	}
	if err := r.makeTree(p); err != nil {
		return err
	}
	sizes, err := r.Ask(ctx, p.PayloadType, providePayloadFileSizes)
	// Modules for Mender 3.4 and older were never asked this, and it decides about
	// a number in stream-next only.
	if f, ok := errors.AsType[*Failure](err); ok && f.ExitCode >= 0 {
		r.log(fmt.Sprintf("%v: taken for No", err))
		err = nil
	}
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(r.tree())
	if err != nil {
		return fmt.Errorf("work tree: %w", err)
	}
	defer root.Close() // files are closed one by one
	if err := unix.Mkfifo(filepath.Join(r.tree(), nameStreamNext), 0o600); err != nil {
		return fmt.Errorf("work tree: make %s: %w", nameStreamNext, err)
	}
	d := &download{module: p.PayloadType, tree: r.tree(), root: root, sizes: sizes}
	if err := d.run(ctx, r, stream); err != nil {
		return err
	}
	// The FIFOs would only confuse the states to come.
	if err := errors.Join(root.RemoveAll(nameStreams), root.RemoveAll(nameStreamNext)); err != nil {
		return fmt.Errorf("work tree: %w", err)
	}
	return r.Flush()
}

// mode says where the payload goes. It is the module that decides.
type mode uint8

const (
	undecided mode = iota // the module has neither asked for it nor ended
	streaming             // through the FIFOs
	storing               // into the directory files
)

// download is one payload on its way.
type download struct {
	module string
	tree   string
	root   *os.Root // of the work tree
	sizes  bool

	mode    mode
	current *destination
	gone    context.Context // done when the module has ended
	err     error           // why it failed; only after gone
}

// run runs the module and, beside it, the stream.
func (d *download) run(ctx context.Context, r *Runner, stream func(context.Context, Open) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	gone, ended := context.WithCancel(context.Background())
	d.gone = gone
	state := stateDownload
	if d.sizes {
		state = stateDownloadSizes
	}
	// What the module writes is told when both have ended: whoever listens hears
	// of the stream, too, and is not to be called from two sides.
	var lines []string
	quiet := *r
	quiet.Log = func(line string) { lines = append(lines, line) }
	go func() {
		defer ended()
		d.err = quiet.Run(ctx, d.module, state)
	}()
	streamErr := stream(ctx, d.open)
	if streamErr == nil {
		streamErr = d.finish()
	} else {
		_ = d.close() // of what is not wanted any more
	}
	if streamErr != nil && !errors.Is(streamErr, errEnded) {
		stop(streamErr)
	}
	<-d.gone.Done()
	if r.Log != nil {
		for _, line := range lines {
			r.Log(line)
		}
	}
	return d.verdict(state, streamErr)
}

// verdict says what the module and the stream have come to together.
func (d *download) verdict(state State, streamErr error) error {
	var failure *Failure
	switch {
	case streamErr == nil:
		return d.err
	case errors.As(d.err, &failure) && failure.ExitCode > 0, d.err != nil && errors.Is(streamErr, errEnded):
		return d.err // the cause; that nobody reads any more follows from it
	case errors.Is(streamErr, errEnded), errors.Is(streamErr, unix.EPIPE):
		return &Failure{Module: d.module, State: string(state), Reason: errEnded.Error(), Err: streamErr}
	default:
		return streamErr
	}
}

// open is the [Open] of a download.
func (d *download) open(name string, size int64) (io.Writer, error) {
	if err := d.close(); err != nil {
		return nil, err
	}
	if !isFileName(name) {
		return nil, fmt.Errorf("payload file %s: not a plain file name", quote(name))
	}
	if d.mode != storing {
		if err := d.announce(name, size); err != nil {
			return nil, err
		}
	}
	var err error
	if d.mode == storing {
		d.current, err = d.create(name)
	} else {
		d.current, err = d.openStream(filepath.Join(nameStreams, name))
	}
	if err != nil {
		return nil, err
	}
	return d.current, nil
}

// isFileName reports whether s is one path component on one line.
func isFileName(s string) bool {
	return s != "" && len(s) <= maxFileName && s != "." && s != ".." &&
		!strings.ContainsRune(s, '/') && !strings.ContainsFunc(s, unicode.IsControl)
}

// announce writes the file's line to stream-next, or finds out that the module
// leaves the payload to us.
func (d *download) announce(name string, size int64) error {
	path := filepath.Join(nameStreams, name)
	if err := unix.Mkfifo(filepath.Join(d.tree, path), 0o600); err != nil {
		return fmt.Errorf("payload file %s: make its stream: %w", quote(name), err)
	}
	next, err := d.openStream(nameStreamNext)
	if errors.Is(err, errEnded) && d.mode == undecided && d.err == nil {
		d.mode = storing
		return d.root.Mkdir(nameFiles, 0o700)
	}
	if err != nil {
		return err
	}
	d.mode = streaming
	line := path
	if d.sizes {
		line = fmt.Sprintf("%s %d", path, size)
	}
	_, err = io.WriteString(next, line+"\n")
	return errors.Join(err, next.close())
}

// finish follows the last file: the module finds nothing more in stream-next.
// One that knows how many files there are need not ask.
func (d *download) finish() error {
	if err := d.close(); err != nil {
		return err
	}
	if d.mode == storing {
		return nil
	}
	next, err := d.openStream(nameStreamNext)
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	return next.close()
}

// close completes the current file.
func (d *download) close() error {
	c := d.current
	if c == nil {
		return nil
	}
	d.current = nil
	return c.close()
}

// openStream opens a FIFO for writing, and waits until the module opens it for
// reading. That wait, and each write afterwards, ends with the module: then the
// error is errEnded.
func (d *download) openStream(path string) (*destination, error) {
	type opened struct {
		file *os.File
		err  error
	}
	ch := make(chan opened, 1)
	go func() {
		f, err := d.root.OpenFile(path, os.O_WRONLY, 0)
		ch <- opened{f, err}
	}()
	var o opened
	select {
	case o = <-ch:
	case <-d.gone.Done():
		// A reader, ours, lets the open return. If there was one already, that
		// was in time: the module read what it wanted.
		reader, err := d.root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, errEnded // the module removed the FIFO: the open waits for ever, and nobody for it
		}
		defer reader.Close() // read only
		if o = <-ch; o.err == nil {
			return nil, errors.Join(errEnded, o.file.Close())
		}
	}
	if o.err != nil {
		return nil, fmt.Errorf("update module %s: open %s: %w", quote(d.module), quote(path), o.err)
	}
	s := &destination{file: o.file, gone: d.gone}
	s.stop = context.AfterFunc(d.gone, func() { _ = o.file.SetWriteDeadline(time.Unix(1, 0)) })
	return s, nil
}

// create makes a file in the directory files.
func (d *download) create(name string) (*destination, error) {
	f, err := d.root.OpenFile(filepath.Join(nameFiles, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store payload file %s: %w", quote(name), err)
	}
	return &destination{file: f, sync: true}, nil
}

// destination is where a payload file goes: a FIFO, or a file.
type destination struct {
	file *os.File
	sync bool            // it is a file
	gone context.Context // done when the reader of a FIFO has ended
	stop func() bool
}

// Write ends when the module does, also if a process that it left behind still
// holds the FIFO open.
func (s *destination) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	if err != nil && s.gone != nil && s.gone.Err() != nil {
		err = fmt.Errorf("%w: %w", errEnded, err)
	}
	return n, err
}

func (s *destination) close() error {
	var err error
	if s.sync {
		err = s.file.Sync()
	}
	if s.stop != nil {
		s.stop()
	}
	return errors.Join(err, s.file.Close())
}
