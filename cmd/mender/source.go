package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// source is an artifact to read. A read ends when its context does, also one
// that waits for the writer of a pipe.
type source struct {
	file *os.File
	size int64 // bytes, 0 if unknown
	ctx  context.Context
	stop func() bool
}

func openSource(ctx context.Context, name string) (*source, error) {
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "http:") || strings.HasPrefix(lower, "https:") {
		return nil, fmt.Errorf("artifact %s: installing from the network is not supported yet: download it and install the file", name)
	}
	f, err := openFile(ctx, name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("artifact %s: is a directory", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &source{file: f, ctx: ctx}
	if info.Mode().IsRegular() {
		s.size = info.Size()
	}
	// A regular file has no deadline, and needs none.
	s.stop = context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	return s, nil
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
		if o.err != nil {
			return nil, fmt.Errorf("Not able to open image file: %s: %w", name, o.err) //nolint:staticcheck // the words of Mender's client, which scripts look for
		}
		return o.file, nil
	case <-ctx.Done(): // the program ends, and the open file with it
		return nil, fmt.Errorf("artifact %s: %w", name, context.Cause(ctx))
	}
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.file.Read(p)
	if err != nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	return n, err
}

// Close ends the reading.
func (s *source) Close() error {
	s.stop()
	return s.file.Close()
}
