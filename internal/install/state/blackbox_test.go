package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlackBox(t *testing.T) {
	dir := t.TempDir()
	if got, err := ReadBlackBox(dir); got != nil || err != nil {
		t.Errorf("ReadBlackBox = %v, %v, want none", got, err)
	}
	want := []Stage{
		{Name: StageArmed, ManifestDigest: "d", BootID: "1", Crashes: []string{"dmesg@1"}, CrashesKnown: true},
		{Name: StageStarted, ManifestDigest: "d", BootID: "2"},
		{Name: StageFailed, Detail: "10-db: exit status 7\nno database", ManifestDigest: "d", BootID: "2"},
	}
	if err := StartBlackBox(dir, want[0]); err != nil {
		t.Fatal(err)
	}
	for _, s := range want[1:] {
		if err := AppendBlackBox(dir, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadBlackBox(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadBlackBox (-want +got):\n%s", diff)
	}
	if err := StartBlackBox(dir, want[1]); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadBlackBox(dir); len(got) != 1 || err != nil {
		t.Errorf("ReadBlackBox = %v, %v, want the new trial's stage alone", got, err)
	}
	for range 2 {
		if err := RemoveBlackBox(dir); err != nil {
			t.Errorf("RemoveBlackBox: %v", err)
		}
	}
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("%v is left, %v", entries, err)
	}
}

// TestBlackBoxCut: whatever part of the last line a power cut leaves, the
// earlier stages stay, and so does the one after it.
func TestBlackBoxCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, blackBoxName)
	first, second, third := Stage{Name: StageStarted}, Stage{Name: StageSettled, Detail: "note"}, Stage{Name: StageGaveUp}
	line, err := second.line()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(line) + 2 {
		if err := StartBlackBox(dir, first); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := append(whole, append(line, '\n')[:n]...)
		if err := os.WriteFile(path, cut, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := AppendBlackBox(dir, third); err != nil {
			t.Fatal(err)
		}
		want := []Stage{first, third}
		if n >= len(line) {
			want = []Stage{first, second, third}
		}
		got, err := ReadBlackBox(dir)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("cut after %d bytes: %v (-want +got):\n%s", n, err, diff)
		}
	}
}

func TestBlackBoxIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := Stage{Name: StageFailing, Detail: strings.Repeat("\x00", 1<<20)}
	full := 0
	for range 1000 {
		if err := AppendBlackBox(dir, s); err != nil {
			full++
		}
	}
	info, err := os.Stat(filepath.Join(dir, blackBoxName))
	if err != nil || full == 0 || info.Size() > maxBlackBox+maxStageLine {
		t.Errorf("%d stages refused, %d bytes, %v", full, info.Size(), err)
	}
	got, err := ReadBlackBox(dir)
	if err != nil || len(got) != 1000-full {
		t.Errorf("ReadBlackBox has %d stages, %v, want %d", len(got), err, 1000-full)
	}
	if err := StartBlackBox(dir, Stage{Name: StageArmed, Crashes: []string{strings.Repeat("x", maxStageLine)}}); err == nil {
		t.Error("a stage that is too long is accepted")
	}
}
