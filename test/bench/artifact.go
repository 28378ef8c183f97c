package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/usb-updater/usb-updater/internal/artifact"
)

// repack copies an artifact with its data entry, which must be a plain archive,
// compressed by pack. It returns the artifact and the compressed archive.
func repack(plain []byte, suffix string, pack func([]byte) ([]byte, error)) (whole, data []byte, err error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(plain))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			err = w.Close() // writes the end
			return out.Bytes(), data, err
		}
		if err != nil {
			return nil, nil, err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, nil, err
		}
		if strings.HasPrefix(h.Name, "data/") {
			if content, err = pack(content); err != nil {
				return nil, nil, err
			}
			h.Name += suffix
			h.Size = int64(len(content))
			data = content
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, nil, err
		}
	}
}

// verify reads an artifact as an install does.
func verify(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := artifact.Open(f, artifact.Options{})
	if err != nil {
		return err
	}
	_, err = a.Copy(ctx, func(artifact.File) (io.Writer, error) { return io.Discard, nil })
	return err
}

// tool runs a program with the file as its last argument.
func tool(command string) func(context.Context, string) error {
	return func(ctx context.Context, file string) error {
		args := append(strings.Fields(command), file)
		return exec.CommandContext(ctx, args[0], args[1:]...).Run() // no Stdout: the null device
	}
}

func standardGzip(_ context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, z)
	return err
}
