package state

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/usb-updater/usb-updater/internal/lmdb"
)

var ignoreForeign = cmpopts.IgnoreUnexported(Record{})

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func save(t *testing.T, s *Store, r Record) {
	t.Helper()
	if err := s.Save(r); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s *Store) Record {
	t.Helper()
	r, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// putStore writes a store as another client would leave it.
func putStore(t *testing.T, dir string, kv map[string][]byte, l lmdb.Layout) {
	t.Helper()
	b, err := lmdb.Encode(kv, l)
	if err != nil {
		t.Fatal(err)
	}
	putBytes(t, dir, b)
}

func putBytes(t *testing.T, dir string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, storeName), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t *testing.T, dir string) (map[string][]byte, lmdb.Layout) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, storeName))
	if err != nil {
		t.Fatal(err)
	}
	kv, l, err := lmdb.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return kv, l
}

func full() Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Record{
		ArtifactName: "release-1", ArtifactGroup: "group",
		Provides: map[string]string{"rootfs-image.version": "release-1"},
		Pending: &Pending{
			Version: 2, InState: ArtifactInstallEnter, ArtifactName: "release-2", ArtifactGroup: "group",
			Provides: map[string]string{"rootfs-image.version": "release-2"}, ClearsProvides: []string{"rootfs-image.*"},
			HasClears: true, PayloadTypes: []string{"rootfs-image"}, Failed: true, RolledBack: true,
			OriginalSlot: "A", TargetSlot: "B", BootID: "boot", ManifestDigest: "0123", NeedsReboot: true,
		},
		Attempt:   &Attempt{ManifestDigest: "0123", TargetSlot: "B", BootID: "boot"},
		Installed: "4567",
		Failed:    map[string]Failure{"89ab": {Name: "release-0", Attempts: 1, Reason: "no network", Time: at}},
		Known:     map[string]Known{"cdef": {Name: "release-0", Starts: 1, Broken: 2, Replaced: 3, Reason: "it broke", Seq: 4}},
		Result:    &Result{Code: 3, Name: "refused", Artifact: "release-0", Message: "failed before", Time: at},
	}
}

func TestSaveLoad(t *testing.T) {
	waiting := full()
	waiting.Pending = &Pending{
		Version: 1, ArtifactName: "release-2", Provides: map[string]string{},
		PayloadTypes: []string{"rootfs-image"}, TargetSlot: "B",
	}
	emptyClears := waiting
	p := *waiting.Pending
	p.HasClears, p.ClearsProvides = true, []string{}
	emptyClears.Pending = &p
	dir := t.TempDir()
	s := openStore(t, dir)
	for name, r := range map[string]Record{"empty": {}, "full": full(), "waiting": waiting, "empty clears": emptyClears} {
		save(t, s, r)
		if diff := cmp.Diff(r, load(t, s), ignoreForeign); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	info, err := os.Stat(filepath.Join(dir, storeName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestAbsentStore(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if diff := cmp.Diff(Record{}, load(t, s), ignoreForeign); diff != "" {
		t.Error(diff)
	}
	if repaired, err := s.Repair(); repaired || err != nil {
		t.Errorf("Repair = %v, %v, want nothing to do", repaired, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lockName {
		t.Errorf("the directory holds %v, %v, want the lock alone", entries, err)
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of an absent directory: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want %v", err, ErrLocked)
	}
	if _, err := Read(dir); err != nil {
		t.Errorf("Read beside a writer: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
}

// TestForeign checks that what is not ours survives a change of ours: keys,
// page and map size, and liblmdb's lock file.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	foreign := map[string][]byte{
		"authtoken":             []byte("token\x00\xff"),
		"state":                 []byte(`{"Version":1}`),
		"update-control-maps":   bytes.Repeat([]byte("large "), 2000),
		"usb-updater-from-1999": []byte("not of this version"),
	}
	kv := maps.Clone(foreign)
	kv[dbName] = []byte("release-1")
	layout := lmdb.Layout{WordSize: 12 - lmdb.Native().WordSize, PageSize: 16384, MapSize: 10 << 20}
	putStore(t, dir, kv, layout)
	lock := filepath.Join(dir, storeName+"-lock")
	if err := os.WriteFile(lock, []byte("liblmdb's"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	save(t, s, Record{ArtifactName: "release-2"}) // not from Load: nothing may depend on that

	got, gotLayout := keysOf(t, dir)
	want := maps.Clone(foreign)
	want[dbName] = []byte("release-2")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if gotLayout != layout { // the word size of the client that may want it back included
		t.Errorf("layout = %+v, want %+v", gotLayout, layout)
	}
	if b, err := os.ReadFile(lock); err != nil || string(b) != "liblmdb's" {
		t.Errorf("lock file = %q, %v", b, err)
	}
}

// TestSaveIsAtomic lets the write fail: the old record must still be there.
// What a power cut does is tested in package atomicfile.
func TestSaveIsAtomic(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	save(t, s, full())
	temp := filepath.Join(dir, "."+storeName+".tmp")
	if err := os.MkdirAll(filepath.Join(temp, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(Record{ArtifactName: "release-3"}); err == nil {
		t.Fatal("Save succeeded")
	}
	if diff := cmp.Diff(full(), load(t, s), ignoreForeign); diff != "" {
		t.Error(diff)
	}
}

func TestFailedIsBounded(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := Record{Failed: map[string]Failure{}}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 2 * MaxFailed {
		r.Failed[string(rune('A'+i))] = Failure{Attempts: i, Time: start.Add(time.Duration(i) * time.Hour)}
	}
	save(t, s, r)
	got := load(t, s).Failed
	if len(got) != MaxFailed {
		t.Errorf("%d failures, want %d", len(got), MaxFailed)
	}
	for digest, f := range got {
		if f.Attempts < MaxFailed {
			t.Errorf("kept failure %d %q, which is one of the oldest", f.Attempts, digest)
		}
	}
	if len(r.Failed) != 2*MaxFailed {
		t.Error("Save changed the caller's record")
	}
}

func TestCorrupt(t *testing.T) {
	// A store of the other word size, in which each test damages something.
	layout := lmdb.Native()
	layout.WordSize = 12 - layout.WordSize
	withValue := func(change ...string) []byte {
		kv, err := encodeRecord(full())
		if err != nil {
			t.Fatal(err)
		}
		kv["foreign"], kv["zzz"] = []byte("kept"), []byte("damaged by some tests")
		for i := 0; i < len(change); i += 2 {
			kv[change[i]] = []byte(change[i+1])
		}
		if len(change) > 0 {
			delete(kv, "zzz")
		}
		b, err := lmdb.Encode(kv, layout)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sound := withValue()
	damaged := bytes.Clone(sound)
	damaged[bytes.Index(damaged, []byte("zzz"))-6] = 0xff // the size of its value
	control := bytes.Clone(damaged)
	control[bytes.Index(control, []byte(dbName+"release-1"))+len(dbName)] = 0x07
	noText := bytes.Clone(damaged)
	noText[bytes.Index(noText, []byte(dbGroup+"group"))+len(dbGroup)] = 0xff
	all := full()
	all.foreign = map[string][]byte{"foreign": []byte("kept")}
	without := func(damage func(*Record)) Record {
		r := all
		damage(&r)
		return r
	}
	noName := without(func(r *Record) { r.ArtifactName = "" })
	noGroup := without(func(r *Record) { r.ArtifactGroup = "" })
	noProvides := without(func(r *Record) { r.Provides = nil })
	noPending := without(func(r *Record) { r.Pending = nil })
	tests := []struct {
		name     string
		salvaged Record
		in       []byte
	}{
		{"text", Record{}, []byte("not a database")},
		{"cut off", Record{}, sound[:2*4096]},
		{"one key is damaged", all, damaged},
		{"the name is damaged", noName, control},
		{"the group is damaged", noGroup, noText},
		{"provides is no JSON", noProvides, withValue(dbProvides, "{")},
		{"provides is a list", noProvides, withValue(dbProvides, "[]")},
		{"pending is no JSON", noPending, withValue(dbPending, "")},
		{"pending is null", noPending, withValue(dbPending, "null")},
		{"pending has another shape", noPending, withValue(dbPending, `{"Version":"1"}`)},
		{"both are no JSON", without(func(r *Record) { r.Pending, r.Provides = nil, nil }), withValue(dbPending, "", dbProvides, "")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			putBytes(t, dir, tt.in)
			s := openStore(t, dir)
			r, err := s.Load()
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("Load: %v, want %v", err, ErrCorrupt)
			}
			if diff := cmp.Diff(tt.salvaged, r, ignoreForeign); diff != "" {
				t.Errorf("Load, with the error: %s", diff)
			}
			if err := s.Save(full()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Save: %v, want %v", err, ErrCorrupt)
			}
			if repaired, err := s.Repair(); !repaired || err != nil {
				t.Fatalf("Repair = %v, %v", repaired, err)
			}
			got := load(t, s)
			if diff := cmp.Diff(tt.salvaged, got, ignoreForeign); diff != "" {
				t.Error(diff)
			}
			if !maps.EqualFunc(got.foreign, tt.salvaged.foreign, bytes.Equal) {
				t.Errorf("foreign keys: %q, want %q", got.foreign, tt.salvaged.foreign)
			}
			if _, l := keysOf(t, dir); tt.salvaged.foreign != nil && l != layout {
				t.Errorf("layout = %+v, want %+v", l, layout)
			}
			if b, err := os.ReadFile(filepath.Join(dir, brokenName)); err != nil || !bytes.Equal(b, tt.in) {
				t.Errorf("%s does not hold the damaged store: %v", brokenName, err)
			}
			if repaired, err := s.Repair(); repaired || err != nil {
				t.Errorf("second Repair = %v, %v, want nothing to do", repaired, err)
			}
		})
	}
}

// TestRepairInterrupted stops between the copy and the new store.
func TestRepairInterrupted(t *testing.T) {
	dir := t.TempDir()
	putBytes(t, dir, []byte("not a database"))
	s := openStore(t, dir)
	inTheWay := filepath.Join(dir, "."+storeName+".tmp", "x")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Repair(); err == nil {
		t.Fatal("Repair succeeded")
	}
	if _, err := s.Load(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Load: %v, want %v: the store must still ask for a repair", err, ErrCorrupt)
	}
}

// TestOversize: a file that is too large to be a store is an error, and stays.
func TestOversize(t *testing.T) {
	dir := t.TempDir()
	putBytes(t, dir, nil)
	path := filepath.Join(dir, storeName)
	if err := os.Truncate(path, lmdb.MaxFile+1); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	if _, err := s.Load(); err == nil {
		t.Error("Load succeeded")
	}
	if err := s.Save(full()); err == nil {
		t.Error("Save succeeded")
	}
	if repaired, err := s.Repair(); repaired {
		t.Errorf("Repair = %v, %v", repaired, err)
	}
}

// TestReadsNoPipe: what stands in the place of a file and is none holds nobody up.
func TestReadsNoPipe(t *testing.T) {
	for name, read := range map[string]func(dir string) error{
		storeName:   func(dir string) error { _, err := Read(dir); return err },
		historyName: func(dir string) error { _, err := ReadHistory(dir, 1); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- read(dir) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), name+": is no regular file") {
					t.Errorf("error %v, want one that names the file", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("hangs")
			}
		})
	}
}
