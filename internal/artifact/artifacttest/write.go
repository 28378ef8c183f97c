package artifacttest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Write writes the artifact to w. It reads every payload file twice, first for
// the checksums and the size of the compressed archive, then to write it; so it
// needs no room for the payload, neither in memory nor in a file.
func Write(w io.Writer, spec Spec) error {
	s := spec.withDefaults()
	suffix, err := suffixOf(s.Compression)
	if err != nil {
		return err
	}
	var dataSize counter
	sums, err := s.writeData(&dataSize, suffix)
	if err != nil {
		return fmt.Errorf("measure payload: %w", err)
	}
	var header bytes.Buffer
	if err := s.writeHeader(&header, suffix, sums); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	version, err := json.Marshal(map[string]any{"format": "mender", "version": s.Version})
	if err != nil {
		return err
	}
	manifest := s.manifest(version, header.Bytes(), suffix, sums)

	out := tar.NewWriter(w)
	if err := add(out, "version", version); err != nil {
		return err
	}
	if err := add(out, "manifest", manifest); err != nil {
		return err
	}
	if s.Signer != nil {
		sig, err := sign(s.Signer, manifest)
		if err != nil {
			return fmt.Errorf("sign manifest: %w", err)
		}
		if err := add(out, "manifest.sig", sig); err != nil {
			return err
		}
	}
	if err := add(out, "header.tar"+suffix, header.Bytes()); err != nil {
		return err
	}
	if err := out.WriteHeader(entry("data/0000.tar"+suffix, int64(dataSize))); err != nil {
		return err
	}
	if _, err := s.writeData(out, suffix); err != nil {
		return fmt.Errorf("write payload: %w", err)
	}
	return out.Close()
}

// manifest lists all parts in the order of mender-artifact.
func (s *Spec) manifest(version, header []byte, suffix string, sums []string) []byte {
	var b bytes.Buffer
	for i, f := range s.Files {
		fmt.Fprintf(&b, "%s  data/0000/%s\n", sums[i], f.Name)
	}
	fmt.Fprintf(&b, "%x  header.tar%s\n", sha256.Sum256(header), suffix)
	fmt.Fprintf(&b, "%x  version\n", sha256.Sum256(version))
	return b.Bytes()
}

// writeData writes the data archive and returns the files' checksums in
// hexadecimal.
func (s *Spec) writeData(w io.Writer, suffix string) ([]string, error) {
	z, err := Compressor(w, suffix)
	if err != nil {
		return nil, err
	}
	out := tar.NewWriter(z)
	var sums []string
	for _, f := range s.Files {
		sum, err := copyFile(out, f)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		sums = append(sums, sum)
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	return sums, z.Close()
}

func copyFile(out *tar.Writer, f File) (string, error) {
	r, err := f.Open()
	if err != nil {
		return "", err
	}
	if c, ok := r.(io.Closer); ok {
		defer func() { _ = c.Close() }() // it was only read
	}
	if err := out.WriteHeader(entry(f.Name, f.Size)); err != nil {
		return "", err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), r)
	if err != nil {
		return "", err
	}
	if n != f.Size {
		return "", fmt.Errorf("%d bytes, want %d", n, f.Size)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func suffixOf(compression string) (string, error) {
	switch compression {
	case "none":
		return "", nil
	case "gzip", "":
		return ".gz", nil
	case "xz":
		return ".xz", nil
	case "zstd":
		return ".zst", nil
	default:
		return "", fmt.Errorf("compression %q: want none, gzip, xz or zstd", compression)
	}
}

// Compressor returns a writer that compresses to w as an entry with this suffix
// is: ".gz", ".xz" (stored), ".zst" or "". The same input gives the same output.
// Closing it does not close w.
func Compressor(w io.Writer, suffix string) (io.WriteCloser, error) {
	switch suffix {
	case "":
		return nopCloser{w}, nil
	case ".gz":
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case ".xz":
		return newXZWriter(w), nil
	case ".zst":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	default:
		return nil, fmt.Errorf("compression suffix %q: want .gz, .xz, .zst or none", suffix)
	}
}

// entry is a tar header as mender-artifact writes it: without owner and time.
func entry(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}
}

func add(out *tar.Writer, name string, data []byte) error {
	if err := out.WriteHeader(entry(name, int64(len(data)))); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
