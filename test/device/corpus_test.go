//go:build device

package device

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/install/state"
	"github.com/usb-updater/usb-updater/test/sim"
)

// corpus is a directory with expect.tsv, which says of each artifact in it
// whether a device installs it, and provides.jsonl, which says what the device
// then provides.
type corpus struct {
	dir      string
	slotSize int64
	provides map[string]string            // of the device, before
	after    map[string]map[string]string // of the device after the commit, by artifact
	rows     []map[string]string          // of expect.tsv, by column
}

func openCorpus(t *testing.T, dir string) *corpus {
	t.Helper()
	c := &corpus{dir: dir, after: map[string]map[string]string{}}
	decode(t, c.read(t, "device/provides.json"), &c.provides)
	for line := range bytes.Lines(c.read(t, "device/params")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "part_size="); ok {
			var err error
			if c.slotSize, err = strconv.ParseInt(v, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	for line := range bytes.Lines(c.read(t, "provides.jsonl")) {
		var row struct {
			File     string            `json:"file"`
			Provides map[string]string `json:"provides_after_commit"`
		}
		decode(t, line, &row)
		c.after[row.File] = row.Provides
	}
	lines := bufio.NewScanner(bytes.NewReader(c.read(t, "expect.tsv")))
	lines.Buffer(nil, mib)
	var columns []string
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if columns == nil {
			columns = fields
			continue
		}
		row := map[string]string{}
		for i, name := range columns {
			row[name] = fields[i]
		}
		c.rows = append(c.rows, row)
	}
	if err := lines.Err(); err != nil || len(c.rows) == 0 {
		t.Fatalf("expect.tsv: %d rows, error %v", len(c.rows), err)
	}
	return c
}

func (c *corpus) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// TestCorpusOnBlockDevices installs every artifact of a corpus on a loop device
// with the real program. What must be refused before it is written leaves each
// byte of the slot as it was; whatever is refused leaves boot environment,
// record and scripts as they were; what must be accepted is on the slot and,
// after the commit, is what the device provides.
//
// ARTIFACT_CORPUS is the directory of the corpus.
func TestCorpusOnBlockDevices(t *testing.T) {
	need(t)
	dir := os.Getenv("ARTIFACT_CORPUS")
	if dir == "" {
		t.Skip("ARTIFACT_CORPUS does not name a corpus directory")
	}
	c := openCorpus(t, dir)
	d, err := sim.New(filepath.Join(t.TempDir(), "device"), sim.Options{SlotSize: c.slotSize, Loop: true, DeviceType: deviceType})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	tally := map[string]int{}
	for _, row := range c.rows {
		t.Run(strings.TrimSuffix(row["file"], ".mender"), func(t *testing.T) {
			c.reset(t, d, row)
			switch {
			case row["verdict"] != "valid":
				c.refuse(t, d, row)
			case row["ptype"] == "rootfs-image":
				c.accept(t, d, row)
			default:
				c.acceptOther(t, d, row)
			}
			tally[row["verdict"]+" "+row["phase"]]++
		})
	}
	t.Logf("rows: %v", tally)
}

// reset makes the device what the corpus is made for: its type, its keys, its
// provides, an old system in the running slot and a pattern in the other one.
func (c *corpus) reset(t *testing.T, d *sim.Device, row map[string]string) {
	t.Helper()
	pattern := bytes.Repeat([]byte{0xa5}, int(c.slotSize))
	if sum(t, d.Slot(3), c.slotSize) != fmt.Sprintf("%x", sha256.Sum256(pattern)) {
		put(t, d.Slot(3), pattern)
	}
	conf := map[string]any{"RootfsPartA": "/dev/mmcblk0p2", "RootfsPartB": "/dev/mmcblk0p3"}
	var keys []string
	for name := range strings.SplitSeq(row["key"], ",") {
		if name == "-" {
			continue
		}
		keys = append(keys, "/etc/mender/"+name)
	}
	if len(keys) > 0 {
		conf["ArtifactVerifyKeys"] = keys
	}
	confText, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"etc", "run", "var/lib/mender"} {
		if err := os.RemoveAll(filepath.Join(d.Dir, sub)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"etc/mender/mender.conf":     string(confText),
		"etc/mender/artifact_info":   "artifact_name=" + c.provides["artifact_name"] + "\n",
		"etc/fw_env.config":          sim.FwEnvConfig,
		"var/lib/mender/device_type": "device_type=" + row["device_type"] + "\n",
		"run/.keep":                  "",
	} {
		put(t, filepath.Join(d.Dir, name), []byte(content))
	}
	module := filepath.Join(d.Dir, "usr/share/mender/modules/v3/test-module")
	put(t, module, []byte(testModule))
	if err := os.Chmod(module, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range keys {
		text, err := os.ReadFile(filepath.Join(c.dir, "keys", filepath.Base(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // the corpus means it
		}
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d.Dir, name), text)
	}
	if err := d.Shipped(); err != nil {
		t.Fatal(err)
	}
	runs(t, d, 2, "boot-1")
	c.seed(t, d)
}

// testModule is the corpus device's only update module. It keeps nothing, has
// no way back and asks for no reboot.
const testModule = "#!/bin/sh\nexit 0\n"

// seed commits the provides of the corpus' device.
func (c *corpus) seed(t *testing.T, d *sim.Device) {
	t.Helper()
	r := state.Record{ArtifactName: c.provides["artifact_name"], ArtifactGroup: c.provides["artifact_group"], Provides: maps.Clone(c.provides)}
	delete(r.Provides, "artifact_name")
	delete(r.Provides, "artifact_group")
	store, err := state.Open(d.Data())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Save(r), store.Close()); err != nil {
		t.Fatal(err)
	}
}

// runs makes the slot on that partition the one that runs. What the corpus has
// for images is no system that could be started.
func runs(t *testing.T, d *sim.Device, n int, boot string) {
	t.Helper()
	put(t, filepath.Join(d.Dir, "proc/cmdline"), fmt.Appendf(nil, "root=/dev/mmcblk0p%d ro\n", n))
	put(t, filepath.Join(d.Dir, "proc/sys/kernel/random/boot_id"), []byte(boot+"\n"))
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(content)
	if info, statErr := f.Stat(); statErr == nil && info.Mode().IsRegular() {
		err = errors.Join(err, f.Truncate(int64(len(content))))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (c *corpus) refuse(t *testing.T, d *sim.Device, row map[string]string) {
	t.Helper()
	slot, env, record := sum(t, d.Slot(3), c.slotSize), printenv(t, d), provided(t, d)
	code, stderr, _ := mender(t, d, "install", filepath.Join(c.dir, row["file"]))
	if code != 1 {
		t.Fatalf("%s: exit code %d, want 1:\n%s", row["reason"], code, stderr)
	}
	if after := sum(t, d.Slot(3), c.slotSize); after != slot && row["phase"] != "end" {
		t.Errorf("%s: refused, but the slot has changed:\n%s", row["reason"], stderr)
	}
	if after := printenv(t, d); after != env {
		t.Errorf("%s: refused, but the boot environment has changed:\n%s", row["reason"], after)
	}
	if diff := cmp.Diff(record, provided(t, d)); diff != "" {
		t.Errorf("%s: refused, but the device provides other things (-before +after):\n%s", row["reason"], diff)
	}
	if left, err := filepath.Glob(filepath.Join(d.Data(), "scripts", "*")); err != nil || len(left) > 0 {
		t.Errorf("%s: refused, but scripts were left: %v %v", row["reason"], left, err)
	}
	if code, _, _ := mender(t, d, "commit"); code != 2 {
		t.Errorf("%s: commit: exit code %d, want 2", row["reason"], code)
	}
}

func (c *corpus) accept(t *testing.T, d *sim.Device, row map[string]string) {
	t.Helper()
	code, stderr, _ := mender(t, d, "install", filepath.Join(c.dir, row["file"]))
	if code != 0 {
		t.Fatalf("%s: exit code %d:\n%s", row["reason"], code, stderr)
	}
	size, err := strconv.ParseInt(row["payload_size"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := sum(t, d.Slot(3), size); got != row["payload_sha256"] {
		t.Errorf("slot: sha256 %s, want %s", got, row["payload_sha256"])
	}
	rest := make([]byte, c.slotSize-size)
	f, err := os.Open(d.Slot(3))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.ReadAt(rest, size)
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(rest, func(b byte) bool { return b != 0xa5 }); i >= 0 {
		t.Errorf("byte %d behind the image was written", i)
	}
	if err := d.SetEnv(map[string]string{"bootcount": "1"}); err != nil {
		t.Fatal(err)
	}
	runs(t, d, 3, "boot-2")
	if code, stderr, _ := mender(t, d, "commit"); code != 0 {
		t.Fatalf("commit: exit code %d:\n%s", code, stderr)
	}
	if diff := cmp.Diff(c.after[row["file"]], provided(t, d)); diff != "" {
		t.Errorf("provides after the commit (-want +got):\n%s", diff)
	}
	if got := strings.TrimSpace(command(t, filepath.Join(programs(t), "mender"), "--root", d.Dir, "show-artifact")); got != row["artifact_name"] {
		t.Errorf("show-artifact = %q, want %q", got, row["artifact_name"])
	}
}

// acceptOther installs what is no image: by the update module, or nothing but
// names. Both are permanent at once, and the slot has no part in it.
func (c *corpus) acceptOther(t *testing.T, d *sim.Device, row map[string]string) {
	t.Helper()
	slot, env := sum(t, d.Slot(3), c.slotSize), printenv(t, d)
	code, stderr, _ := mender(t, d, "install", filepath.Join(c.dir, row["file"]))
	if code != 0 {
		t.Fatalf("%s: exit code %d:\n%s", row["reason"], code, stderr)
	}
	if sum(t, d.Slot(3), c.slotSize) != slot || printenv(t, d) != env {
		t.Error("slot or boot environment have changed")
	}
	if diff := cmp.Diff(c.after[row["file"]], provided(t, d)); diff != "" {
		t.Errorf("provides (-want +got):\n%s", diff)
	}
	if code, _, _ := mender(t, d, "commit"); code != 2 {
		t.Errorf("commit: exit code %d, want 2", code)
	}
}

// provided is what show-provides prints.
func provided(t *testing.T, d *sim.Device) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(command(t, filepath.Join(programs(t), "mender"), "--root", d.Dir, "show-provides")) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		m[k] = v
	}
	return m
}
