package artifact

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fuzzDocument checks one kind of JSON document. What read makes of an accepted
// document must not depend on how it is spelled: written anew, with the keys in
// another order and without escapes and blanks, it says the same.
func fuzzDocument[T any](f *testing.F, read func([]byte) (T, error), seeds ...string) {
	f.Helper()
	for _, s := range append(seeds, `{}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, "\ufeff{}", strings.Repeat(`{"a":`, 40)) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := read(in)
		if err != nil {
			mustBeFault(t, err)
			return
		}
		var tree any
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		if err := d.Decode(&tree); err != nil {
			t.Fatalf("accepted, but not JSON: %v", err)
		}
		out, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(out)
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Fatalf("written anew: %v\n%s", err, diff)
		}
	})
}

func FuzzVersion(f *testing.F) {
	fuzzDocument(f, parseVersion, `{"format":"mender","version":3}`, `{"format":"mender","version":2}`,
		`{"format":"mender","version":1}`, `{"version":3e0,"format":"mender"}`)
}

// FuzzHeaderInfo checks both versions; what is accepted names an artifact and at
// least one device type.
func FuzzHeaderInfo(f *testing.F) {
	read := func(version int) func(in []byte) (*Header, error) {
		return func(in []byte) (*Header, error) {
			h := &Header{FormatVersion: version, Depends: map[string][]string{}}
			if err := h.setInfo(in); err != nil {
				return nil, err
			}
			if h.Name == "" || len(h.DeviceTypes) == 0 || h.MatchesDevice("") || h.Empty == (h.PayloadType != "") ||
				strings.ContainsAny(h.PayloadType, "/\x00") || h.PayloadType == ".." {
				panic("accepted: " + string(in))
			}
			h.HeaderInfo = nil
			return h, nil
		}
	}
	fuzzDocument(f, func(in []byte) ([2]*Header, error) {
		h3, err := read(3)(in)
		if err == nil {
			return [2]*Header{h3, nil}, nil
		}
		h2, err := read(2)(in)
		return [2]*Header{nil, h2}, err
	}, goodInfo, goodInfo2, moduleInfo, emptyInfo,
		strings.Replace(goodInfo, `"device_type"`, `"artifact_name":["a","b"],"artifact_group":["g"],"device_type"`, 1),
		strings.Replace(goodInfo, `"rootfs-image"`, `"../sh"`, 1), strings.Replace(goodInfo, `"rel-1"`, `"a\u0000"`, 1))
}

// FuzzTypeInfo checks type-info for each kind of payload. What is accepted never
// speaks of what header-info is there for.
func FuzzTypeInfo(f *testing.F) {
	fuzzDocument(f, func(in []byte) ([]*Header, error) {
		var all []*Header
		var first error
		for _, h := range []*Header{
			{FormatVersion: 3, PayloadType: RootfsImage},
			{FormatVersion: 3, PayloadType: "app"},
			{FormatVersion: 3, Empty: true},
			{FormatVersion: 2, PayloadType: RootfsImage},
		} {
			h.Depends = map[string][]string{"device_type": {"set by header-info"}}
			err := h.setTypeInfo(in)
			if err != nil && first == nil {
				first = err
			}
			if err != nil {
				continue
			}
			_, named := h.Provides["artifact_name"]
			if h.Depends["device_type"][0] != "set by header-info" || named {
				panic("accepted: " + string(in))
			}
			h.TypeInfo = nil
			all = append(all, h)
		}
		if len(all) > 0 {
			first = nil
		}
		return all, first
	}, goodTypeInfo, `{"type":""}`, `{"type":"app","artifact_depends":{"a":"b","c":["d","e"]}}`, `{"type":null}`,
		`{"type":"","artifact_depends":{"device_type":"x"}}`, `{"type":"","artifact_provides":{"artifact_name":"x"}}`,
		`{"type":"","clears_artifact_provides":[]}`)
}

func FuzzMetaData(f *testing.F) {
	fuzzDocument(f, func(in []byte) (bool, error) {
		if len(in) == 0 {
			return false, malformed("an empty one is no document, and legal")
		}
		h := &Header{FormatVersion: 3, PayloadType: "app", MetaData: in}
		return true, h.checkFiles(nil)
	}, `{"mode":"644"}`, `{"a":[1,2.5e-3,null,true,{"b":"\ud83d\ude00"}]}`, `{"a":`+strings.Repeat("9", 70)+`}`)
}

// FuzzFiles checks the list of version 2: it names the one file of the manifest.
func FuzzFiles(f *testing.F) {
	fuzzDocument(f, func(in []byte) (bool, error) {
		h := &Header{FormatVersion: 2, PayloadType: RootfsImage, Files: []ManifestFile{{Name: "rootfs.ext4"}}}
		return true, h.checkFiles(in)
	}, `{"files":["rootfs.ext4"]}`, `{"files":["rootfs.ext4","b"]}`, `{"files":[]}`, `{"files":"rootfs.ext4"}`)
}
