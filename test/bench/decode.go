package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact"
	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// contestant is one way to get at the content of a file.
type contestant struct {
	compression string
	name        string
	file        string // that it reads
	run         func(ctx context.Context, file string) error
	best        time.Duration
}

func run(ctx context.Context, out io.Writer, size int64, rounds int, dir string) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "bench"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	image := makeImage(size)
	var all []*contestant
	for _, c := range []struct{ compression, suffix, pack, unpack string }{
		{"none", "", "", "cat"},
		{"gzip", ".gz", "gzip -6 -c", "zcat"},
		{"zstd", ".zst", "zstd -q -3 -c", "zstd -q -dc"},
		{"xz", ".xz", "xz -1 -T1 -c", "xz -dc"},
	} {
		data, mender, err := prepare(ctx, dir, image, c.suffix, c.pack)
		if err != nil {
			fmt.Fprintf(out, "%s is left out: %v\n", c.compression, err)
			continue
		}
		all = append(all,
			&contestant{compression: c.compression, name: "usb-updater", file: mender, run: verify},
			&contestant{compression: c.compression, name: c.unpack, file: data, run: tool(c.unpack)})
		if c.compression == "gzip" {
			all = append(all, &contestant{compression: c.compression, name: "compress/gzip", file: data, run: standardGzip})
		}
	}
	for range rounds {
		for _, c := range all {
			start := time.Now()
			if err := c.run(ctx, c.file); err != nil {
				return fmt.Errorf("%s of %s: %w", c.name, c.compression, err)
			}
			if took := time.Since(start); c.best == 0 || took < c.best {
				c.best = took
			}
		}
	}
	return table(out, all, size, rounds)
}

// table prints the rates, and for each other contestant how much faster ours is.
func table(out io.Writer, all []*contestant, size int64, rounds int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "compression\tprogram\tMB/s\tours / it\t\n")
	ours := map[string]time.Duration{}
	for _, c := range all {
		rate := float64(size) / 1e6 / c.best.Seconds()
		if c.name == "usb-updater" {
			ours[c.compression] = c.best
			fmt.Fprintf(w, "%s\t%s\t%.0f\t\t\n", c.compression, c.name, rate)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.2f\t\n", c.compression, c.name, rate, c.best.Seconds()/ours[c.compression].Seconds())
	}
	fmt.Fprintf(w, "(image of %d MiB, half random and half text; the best of %d rounds; bytes of the image)\n", size>>20, rounds)
	return w.Flush()
}

// makeImage returns an image that is half random and half text, in pieces of
// 64 KiB. It is the same each time.
func makeImage(size int64) []byte {
	const piece = 64 << 10
	source := rand.NewChaCha8([32]byte{1})
	words := strings.Fields(strings.Repeat("the file system of a device holds programs libraries and text that repeats itself now and then ", 4))
	for range 2000 {
		words = append(words, fmt.Sprintf("%x", source.Uint64()>>(source.Uint64()%48)))
	}
	image := make([]byte, 0, size+2*piece)
	for int64(len(image)) < size {
		noise := make([]byte, piece)
		_, _ = source.Read(noise) // never fails
		image = append(image, noise...)
		for end := len(image) + piece; len(image) < end; {
			image = append(image, words[source.Uint64()%uint64(len(words))]...)
			image = append(image, " \n"[source.Uint64()%8/7])
		}
	}
	return image[:size]
}

// prepare writes an artifact of the image and its data entry, compressed by the
// real tool, as a file of its own.
func prepare(ctx context.Context, dir string, image []byte, suffix, pack string) (data, mender string, err error) {
	plain := filepath.Join(dir, "plain")
	if err := writePlain(plain, "bench", artifacttest.Bytes("rootfs.ext4", image)); err != nil {
		return "", "", err
	}
	data = filepath.Join(dir, "0000.tar"+suffix)
	mender = filepath.Join(dir, "bench"+suffix+".mender")
	return data, mender, repack(ctx, plain, mender, data, suffix, pack)
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
