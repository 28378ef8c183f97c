// Command bench compares what verifying an artifact costs with what the tools
// everybody knows take to decompress the same bytes: zcat, zstd -dc, xz -dc and,
// for gzip, the standard library of Go. It prints a table:
//
//	go run ./test/bench [-size MiB] [-rounds N] [-dir DIR]
//	go run ./test/bench -install [-size MiB] [-rounds N] [-dir DIR] [-bin DIR] [-codecs LIST] [-peers]
//
// With -install it measures whole installs on a loop device instead: see
// install.go.
//
// All contestants read the same file and throw the content away. They take
// turns, round by round, so that a busy machine is busy for all of them, and the
// fastest round of each counts. Only ours verifies: it computes a SHA-256 of the
// image and reads a tar in a tar, so that a ratio of 1 would be a gift.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

func main() {
	size := flag.Int64("size", 64, "size of the image in MiB")
	rounds := flag.Int("rounds", 5, "rounds, of which the fastest counts, or the median with -install")
	whole := flag.Bool("install", false, "measure whole installs, which needs root; use a -dir in memory")
	bin := flag.String("bin", "bin", "directory of the programs to install with")
	codecs := flag.String("codecs", "none,gzip,zstd,xz", "compressions to install")
	peers := flag.Bool("peers", false, "install with other programs, too, where they are there")
	dir := flag.String("dir", "", "directory for the files, a temporary one by default")
	flag.Parse()
	ctx := context.Background()
	bench := func() error { return run(ctx, os.Stdout, *size<<20, *rounds, *dir) }
	if *whole {
		bench = func() error {
			return runInstall(ctx, os.Stdout, *size<<20, *rounds, *dir, *bin, strings.Split(*codecs, ","), *peers)
		}
	}
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // main
	}
}

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

// prepare writes the data archive, compressed by the real tool, and an artifact
// with the same bytes as its data entry.
func prepare(ctx context.Context, dir string, image []byte, suffix, pack string) (data, mender string, err error) {
	var plain bytes.Buffer
	spec := artifacttest.Spec{Name: "bench", Compression: "none", Files: []artifacttest.File{artifacttest.Bytes("rootfs.ext4", image)}}
	if err := artifacttest.Write(&plain, spec); err != nil {
		return "", "", err
	}
	whole, archive, err := repack(plain.Bytes(), suffix, func(b []byte) ([]byte, error) {
		if pack == "" {
			return b, nil
		}
		args := strings.Fields(pack)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin = bytes.NewReader(b)
		return cmd.Output()
	})
	if err != nil {
		return "", "", err
	}
	data = filepath.Join(dir, "0000.tar"+suffix)
	mender = filepath.Join(dir, "bench"+suffix+".mender")
	if err := os.WriteFile(data, archive, 0o600); err != nil {
		return "", "", err
	}
	return data, mender, os.WriteFile(mender, whole, 0o600)
}
