package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/device"
)

// source is an artifact to read. A read ends when its context does.
type source struct {
	io.ReadCloser
	size int64 // bytes, 0 if unknown
}

// openSource opens a URL, or a file of any other name.
func (p *program) openSource(ctx context.Context, d *device.Device, name string) (source, error) {
	if isURL(name) {
		return p.openURL(ctx, d, name)
	}
	return openLocal(ctx, name)
}

// localFile is a file whose reads end with a context, also one that waits for
// the writer of a pipe.
type localFile struct {
	file  *os.File
	ahead io.Reader // of the file
	ctx   context.Context
	stop  func() bool
}

func openLocal(ctx context.Context, name string) (source, error) {
	f, err := openFile(ctx, name)
	if err != nil {
		return source{}, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("artifact %s: is a directory", name)
	}
	if err != nil {
		return source{}, errors.Join(err, f.Close())
	}
	size := int64(0)
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	l := &localFile{file: f, ahead: artifact.Prefetch(f), ctx: ctx}
	// A regular file has no deadline, and needs none.
	l.stop = context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	return source{l, size}, nil
}

// openFile opens a file. Opening a pipe waits for its writer; that wait, too,
// ends with ctx.
func openFile(ctx context.Context, name string) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	ch := make(chan opened, 1)
	go func() {
		f, err := os.Open(name)
		ch <- opened{f, err}
	}()
	select {
	case o := <-ch:
		scheme, _, url := strings.Cut(name, "://")
		switch {
		case o.err != nil && url: // without what follows: there may be a password in it
			return nil, fmt.Errorf("Not able to open image file: it is no file, and %.16q is not http or https", scheme) //nolint:staticcheck // as below
		case o.err != nil:
			return nil, fmt.Errorf("Not able to open image file: %s: %w", name, o.err) //nolint:staticcheck // the words of Mender's client, which scripts look for
		}
		return o.file, nil
	case <-ctx.Done(): // the program ends, and the open file with it
		return nil, fmt.Errorf("artifact %s: %w", name, context.Cause(ctx))
	}
}

func (l *localFile) Read(p []byte) (int, error) {
	n, err := l.ahead.Read(p)
	if err != nil && l.ctx.Err() != nil {
		err = context.Cause(l.ctx)
	}
	return n, err
}

// Close ends the reading.
func (l *localFile) Close() error {
	l.stop()
	return l.file.Close()
}
