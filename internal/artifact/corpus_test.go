package artifact

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// corpusRow is one line of expect.tsv, by column name.
type corpusRow map[string]string

// corpusDevice is the device that the corpus is made for.
type corpusDevice struct {
	dir      string
	partSize int64
	provides map[string]string
}

// TestCorpus runs over a conformance corpus: a directory with expect.tsv, which
// names artifacts and says of each whether a strict reader accepts it.
func TestCorpus(t *testing.T) {
	dir := os.Getenv("ARTIFACT_CORPUS")
	if dir == "" {
		t.Skip("ARTIFACT_CORPUS does not name a corpus directory")
	}
	dev := openCorpus(t, dir)
	for _, row := range corpusRows(t, dir) {
		t.Run(strings.TrimSuffix(row["file"], ".mender"), func(t *testing.T) {
			dev.check(t, row)
		})
	}
}

func openCorpus(t *testing.T, dir string) corpusDevice {
	t.Helper()
	dev := corpusDevice{dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, "device", "provides.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &dev.provides); err != nil {
		t.Fatal(err)
	}
	b, err = os.ReadFile(filepath.Join(dir, "device", "params"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "part_size="); ok {
			if dev.partSize, err = strconv.ParseInt(v, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dev
}

func corpusRows(t *testing.T, dir string) []corpusRow {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "expect.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	var rows []corpusRow
	var columns []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if columns == nil {
			columns = fields
			continue
		}
		row := corpusRow{}
		for i, c := range columns {
			row[c] = fields[i]
		}
		rows = append(rows, row)
	}
	if err := lines.Err(); err != nil || len(rows) == 0 {
		t.Fatalf("%d rows, error %v", len(rows), err)
	}
	return rows
}

func (dev corpusDevice) check(t *testing.T, row corpusRow) {
	t.Helper()
	sum := sha256.New()
	var written int64
	err := dev.install(t, row, func(p []byte) {
		sum.Write(p)
		written += int64(len(p))
	})
	t.Logf("%s: %v", row["reason"], err)
	if row["verdict"] == "valid" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		if want := row["payload_sha256"]; want != "-" && hex.EncodeToString(sum.Sum(nil)) != want {
			t.Errorf("payload of %d bytes differs, want %s bytes", written, row["payload_size"])
		}
		return
	}
	if err == nil {
		t.Fatal("accepted")
	}
	if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
		t.Errorf("error is not one printable line: %q", err)
	}
	if row["phase"] == "pre" && written != 0 {
		t.Errorf("%d bytes written before it was refused: %v", written, err)
	}
}

// install does what a caller of this package does, up to arming.
func (dev corpusDevice) install(t *testing.T, row corpusRow, write func([]byte)) error {
	t.Helper()
	var opts Options
	for name := range strings.SplitSeq(row["key"], ",") {
		if name == "-" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dev.dir, "keys", name))
		if err != nil {
			return err
		}
		key, err := ParseKey(name, text)
		if err != nil {
			return err
		}
		opts.Keys = append(opts.Keys, key)
	}
	f, err := os.Open(filepath.Join(dev.dir, row["file"]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()

	a, err := Open(f, opts)
	if err != nil {
		return mustBeError(t, err)
	}
	if err := dev.refuses(a.Header(), row["device_type"]); err != nil {
		return err
	}
	if first, err := a.FirstFile(); errors.Is(err, ErrNoFiles) {
		if len(a.Header().Files) > 0 {
			t.Logf("no first file, but the manifest lists %d", len(a.Header().Files))
		}
	} else if err != nil {
		return mustBeError(t, err)
	} else if a.Header().PayloadType == RootfsImage && first.Size > dev.partSize {
		return fmt.Errorf("%d bytes do not fit", first.Size)
	}
	v, err := a.Copy(t.Context(), func(f File) (io.Writer, error) {
		return writerFunc(func(p []byte) (int, error) {
			if len(p) > ChunkSize {
				t.Errorf("write of %d bytes", len(p))
			}
			write(p)
			return len(p), nil
		}), nil
	})
	if err != nil {
		if v.Valid() {
			t.Error("valid proof with an error")
		}
		return mustBeError(t, err)
	}
	if !v.Valid() || v.ManifestDigest() != a.Header().ManifestDigest {
		t.Error("no valid proof without an error")
	}
	return nil
}

// refuses is a device's decision on a header.
func (dev corpusDevice) refuses(h *Header, deviceType string) error {
	if !h.MatchesDevice(deviceType) {
		return fmt.Errorf("not for device type %q", deviceType)
	}
	for k, alternatives := range h.Depends {
		if v, ok := dev.provides[k]; !ok || !slices.Contains(alternatives, v) {
			return fmt.Errorf("depends on %q", k)
		}
	}
	if !h.Empty && h.PayloadType != RootfsImage && h.PayloadType != "test-module" {
		return fmt.Errorf("no update module %q", h.PayloadType)
	}
	return nil
}

func mustBeError(t *testing.T, err error) error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Errorf("error is %T, want *Error: %v", err, err)
		return err
	}
	if e.Kind == Media {
		t.Errorf("a good medium is blamed: %v", err)
	}
	return err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
