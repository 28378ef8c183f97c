// Command bench measures. Without -install it compares what verifying an
// artifact costs with what the tools everybody knows take to decompress the
// same bytes: zcat, zstd -dc, xz -dc and, for gzip, the standard library of Go.
// With it, as root, it measures whole installs on a block device, with -peers
// next to other programs' (docs/performance.md tells how and what it says):
//
//	go run ./test/bench [-size MiB] [-rounds N] [-dir DIR]
//	go run ./test/bench -install [-peers LIST] [-media LIST] [-codecs LIST] [-states LIST] [-cpus N] ...
//
// The contestants of the decoding table read the same file and throw the content
// away. They take turns, round by round, so that a busy machine is busy for all
// of them, and the fastest round of each counts. Only ours verifies: it computes
// a SHA-256 of the image and reads a tar in a tar, so that a ratio of 1 would be
// a gift.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	o := installOptions{out: os.Stdout}
	size := flag.Int64("size", 64, "size of the image in MiB")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds, of which the fastest counts, or the median with -install")
	flag.StringVar(&o.dir, "dir", "", "directory for the files, a temporary one by default; in memory with -install")
	whole := flag.Bool("install", false, "measure whole installs, which needs root")
	flag.StringVar(&o.cache, "cache", ".cache/bench", "directory where images and artifacts are kept")
	flag.StringVar(&o.bin, "bin", "bin", "directory of the programs to install with")
	flag.StringVar(&o.peer, "peer", "test/bench/peer", "program that runs other programs")
	peers := flag.String("peers", "", "other programs to install with, too, where they are there: a list, or 1 for all")
	flag.IntVar(&o.cpus, "cpus", 0, "pin the programs to the first CPUs, this many; 0 to all")
	media := flag.String("media", "ram", "media to install on: ram, sd20, sd20z, emmc60")
	codecs := flag.String("codecs", "gzip,none,zstd,xz", "compressions to install")
	states := flag.String("states", "fresh,prev", "what the slot holds: fresh, nothing that is equal; prev, the release before")
	flag.Parse()
	o.size = *size * mib
	o.media, o.codecs, o.states = strings.Split(*media, ","), strings.Split(*codecs, ","), strings.Split(*states, ",")
	if *peers != "" {
		o.peers = strings.Split(*peers, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	bench := func() error { return run(ctx, o.out, o.size, o.rounds, o.dir) }
	if *whole {
		bench = func() error { return runInstall(ctx, o) }
	}
	err := bench()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // main
	}
}
