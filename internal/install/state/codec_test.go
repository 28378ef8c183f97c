package state

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usb-updater/usb-updater/internal/lmdb"
)

// TestReadOthers reads what other clients leave behind.
func TestReadOthers(t *testing.T) {
	one := Pending{
		Version: 1, ArtifactName: "release-2", Provides: map[string]string{"rootfs-image.version": "release-2"},
		ClearsProvides: []string{"rootfs-image.*"}, HasClears: true, PayloadTypes: []string{"rootfs-image"},
	}
	two := one
	two.Version, two.InState = 2, ArtifactCommitEnter
	bare := Pending{Version: 1, ArtifactName: "release-2", PayloadTypes: []string{"rootfs-image"}}
	tests := []struct {
		name string
		in   map[string]string
		want Record
	}{
		{
			"3.x, waiting for commit",
			map[string]string{
				"artifact-name": "release-1", "artifact-provides": `{"rootfs-image.version":"release-1"}`,
				"standalone-state": `{"Version":1,"ArtifactName":"release-2","ArtifactGroup":"",` +
					`"ArtifactTypeInfoProvides":{"rootfs-image.version":"release-2"},` +
					`"ArtifactClearsProvides":["rootfs-image.*"],"PayloadTypes":["rootfs-image"]}`,
			},
			Record{
				ArtifactName: "release-1", Provides: map[string]string{"rootfs-image.version": "release-1"},
				Pending: &one,
			},
		},
		{
			"3.x, artifact of format 2",
			map[string]string{
				"artifact-name": "release-1", "artifact-provides": "null",
				"standalone-state": `{"Version":1,"ArtifactName":"release-2","ArtifactGroup":"",` +
					`"ArtifactTypeInfoProvides":null,"PayloadTypes":["rootfs-image"]}`,
			},
			Record{ArtifactName: "release-1", Pending: &bare},
		},
		{
			"5.x, committing, with a member from the future",
			map[string]string{
				"standalone-state": `{"Version":2,"ArtifactName":"release-2","ArtifactGroup":"",` +
					`"ArtifactTypeInfoProvides":{"rootfs-image.version":"release-2"},` +
					`"ArtifactClearsProvides":["rootfs-image.*"],"PayloadTypes":["rootfs-image"],` +
					`"InState":"ArtifactCommit_Enter","Failed":false,"RolledBack":false,"Future":[1]}`,
			},
			Record{Pending: &two},
		},
		{
			"3.5, name inside of the provides",
			map[string]string{
				"artifact-name": "release-1", "artifact-group": "group",
				"artifact-provides": `{"artifact_name":"unknown","artifact_group":"old","a":"b"}`,
			},
			Record{ArtifactName: "release-1", ArtifactGroup: "group", Provides: map[string]string{"a": "b"}},
		},
		{
			"our own keys, damaged",
			map[string]string{
				"artifact-name": "release-1", "usb-updater-attempt": `{"manifest":"0123","slot":7}`,
				"usb-updater-failed": "[]", "usb-updater-result": "{", "usb-updater-installed": "0123",
			},
			Record{ArtifactName: "release-1", Installed: "0123"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			kv := map[string][]byte{}
			for k, v := range tt.in {
				kv[k] = []byte(v)
			}
			putStore(t, dir, kv, lmdb.Native())
			got, err := Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, ignoreForeign); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWritesForOthers checks the very bytes that other clients read.
func TestWritesForOthers(t *testing.T) {
	one := Pending{
		Version: 1, ArtifactName: "release-2", InState: BeforeArtifactCommitEnter, // which version 1 does not have
		Provides: map[string]string{"a": "b"}, HasClears: true, ClearsProvides: []string{"a.*"},
		PayloadTypes: []string{"rootfs-image"}, OriginalSlot: "A", TargetSlot: "B", BootID: "boot", ManifestDigest: "0123",
	}
	tests := []struct {
		name string
		in   Pending
		want string
	}{
		{
			"version 1", one,
			`{"Version":1,"ArtifactName":"release-2","ArtifactGroup":"","ArtifactTypeInfoProvides":{"a":"b"},` +
				`"ArtifactClearsProvides":["a.*"],"PayloadTypes":["rootfs-image"],"UsbUpdaterOriginalSlot":"A",` +
				`"UsbUpdaterTargetSlot":"B","UsbUpdaterBootID":"boot","UsbUpdaterManifestDigest":"0123"}`,
		},
		{
			"version 2, empty",
			Pending{Version: 2, InState: Cleanup, HasClears: true},
			`{"Version":2,"ArtifactName":"","ArtifactGroup":"","ArtifactTypeInfoProvides":{},` +
				`"ArtifactClearsProvides":[],"PayloadTypes":[],"InState":"Cleanup","Failed":false,"RolledBack":false}`,
		},
		{
			"no clears",
			Pending{Version: 1, ClearsProvides: []string{"ignored"}},
			`{"Version":1,"ArtifactName":"","ArtifactGroup":"","ArtifactTypeInfoProvides":{},"PayloadTypes":[]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := json.Marshal(encodePending(tt.in))
			if err != nil || string(b) != tt.want {
				t.Errorf("encodePending: %v\n got %s\nwant %s", err, b, tt.want)
			}
		})
	}
	kv, err := encodeRecord(Record{ArtifactName: "release-1", Provides: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"artifact-name": []byte("release-1"), "artifact-provides": []byte("{}")}
	if diff := cmp.Diff(want, kv); diff != "" {
		t.Errorf("encodeRecord writes keys of what is not there: %s", diff)
	}
}

// TestStateVersion: an update of an unknown form is an error that names the
// form, does not hide the rest, and is not lost by a Save.
func TestStateVersion(t *testing.T) {
	for pending, want := range map[string]string{
		`{"Version":3,"Something":"else"}`:                  "version 3",
		`{"Version":2,"InState":"ArtifactReboot_Enter"}`:    `version 2, "ArtifactReboot_Enter"`,
		`{"Version":2,"PayloadTypes":["app"],"InState":""}`: `version 2, ""`,
	} {
		dir := t.TempDir()
		putStore(t, dir, map[string][]byte{dbName: []byte("release-1"), dbPending: []byte(pending)}, lmdb.Native())
		s := openStore(t, dir)
		r, err := s.Load()
		if !errors.Is(err, ErrStateVersion) || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Fatalf("Load: %v, want %v: %s", err, ErrStateVersion, want)
		}
		if r.ArtifactName != "release-1" || r.Pending != nil {
			t.Errorf("record = %+v", r)
		}
		if repaired, err := s.Repair(); repaired || err != nil {
			t.Errorf("Repair = %v, %v, want nothing to do", repaired, err)
		}
		r.Result = &Result{Name: "refused"}
		save(t, s, r)
		if kv, _ := keysOf(t, dir); string(kv[dbPending]) != pending {
			t.Errorf("pending = %q, want %q", kv[dbPending], pending)
		}
		r.Pending = &Pending{Version: 1}
		save(t, s, r)
		if got := load(t, s); got.Pending == nil {
			t.Error("our own pending update was not saved")
		}
	}
}

// FuzzDecodeRecord checks that no values panic, and that what decodes survives
// a write and a read unchanged.
func FuzzDecodeRecord(f *testing.F) {
	kv, err := encodeRecord(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kv[dbProvides], kv[dbPending], kv[dbFailed])
	f.Add([]byte("null"), []byte(`{"Version":1,"ArtifactTypeInfoProvides":null}`), []byte("{}"))
	f.Fuzz(func(t *testing.T, provides, pending, failed []byte) {
		r, err := decodeRecord(map[string][]byte{dbProvides: provides, dbPending: pending, dbFailed: failed})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrStateVersion) {
				t.Fatalf("error %v", err)
			}
			return
		}
		first, err := encodeRecord(r)
		if err != nil {
			t.Skip() // a time that JSON does not allow
		}
		again, err := decodeRecord(first)
		if err != nil {
			t.Fatalf("second read: %v", err)
		}
		second, err := encodeRecord(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Error(diff)
		}
	})
}
