package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommitProvides(t *testing.T) {
	old := Record{
		ArtifactName: "release-1", ArtifactGroup: "old-group", Installed: "0123",
		Provides: map[string]string{"rootfs-image.version": "1", "rootfs-image.app.version": "1", "module.version": "1"},
	}
	type kv = map[string]string
	tests := []struct {
		name string
		in   Pending
		want Record // without Installed
	}{
		{
			"no clears: all goes",
			Pending{ArtifactName: "release-2", Provides: kv{"rootfs-image.version": "2"}},
			Record{ArtifactName: "release-2", Provides: kv{"rootfs-image.version": "2"}},
		},
		{
			"no clears, no provides",
			Pending{ArtifactName: "release-2"},
			Record{ArtifactName: "release-2", Provides: kv{}},
		},
		{
			"empty clears: all stays",
			Pending{ArtifactName: "release-2", HasClears: true, Provides: kv{"new": "2"}},
			Record{ArtifactName: "release-2", ArtifactGroup: "old-group", Provides: kv{
				"rootfs-image.version": "1", "rootfs-image.app.version": "1", "module.version": "1", "new": "2",
			}},
		},
		{
			"a star matches dots",
			Pending{ArtifactName: "release-2", HasClears: true, ClearsProvides: []string{"rootfs-image.*"}, Provides: kv{"rootfs-image.version": "2"}},
			Record{ArtifactName: "release-2", ArtifactGroup: "old-group", Provides: kv{"rootfs-image.version": "2", "module.version": "1"}},
		},
		{
			"clears match the group",
			Pending{ArtifactName: "release-2", HasClears: true, ClearsProvides: []string{"artifact_group", "*"}},
			Record{ArtifactName: "release-2", Provides: kv{}},
		},
		{
			"group of its own",
			Pending{ArtifactName: "release-2", ArtifactGroup: "new-group", HasClears: true, ClearsProvides: []string{"*"}},
			Record{ArtifactName: "release-2", ArtifactGroup: "new-group", Provides: kv{}},
		},
		{
			"no name keeps the old one",
			Pending{Provides: kv{"a": "b"}},
			Record{ArtifactName: "release-1", Provides: kv{"a": "b"}},
		},
		{
			"name and group are no provides",
			Pending{ArtifactName: "release-2", Provides: kv{"artifact_name": "x", "artifact_group": "x", "a": "b"}},
			Record{ArtifactName: "release-2", Provides: kv{"a": "b"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Installed = "0123"
			if diff := cmp.Diff(tt.want, old.CommitProvides(tt.in), ignoreForeign); diff != "" {
				t.Error(diff)
			}
		})
	}
	if len(old.Provides) != 3 {
		t.Error("CommitProvides changed the old record")
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, key string
		want         bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.bc", false},
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "a.b.c", true},
		{"a.*", "a.", true},
		{"a.*", "a", false},
		{"*.version", "rootfs-image.app.version", true},
		{"*.version", "version", false},
		{"*-much-longer-suffix", "key", false},
		{"much-longer-prefix-*", "key", false},
		{"ab*ba", "aba", false}, // prefix and suffix overlap
		{"ab*ba", "abba", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"a*b*b", "ab", false},
		{"**", "a", true},
		{"*a*", "bab", true},
		{"*a*", "bbb", false},
		{"a?c", "abc", false},
		{"[ab]", "a", false},
		{"a*", "A", false},
	}
	for _, tt := range tests {
		if got := matches(tt.pattern, tt.key); got != tt.want {
			t.Errorf("matches(%q, %q) = %v, want %v", tt.pattern, tt.key, got, tt.want)
		}
	}
}
