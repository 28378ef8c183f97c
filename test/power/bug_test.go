package main

import (
	"bytes"
	"path/filepath"
	"testing"
)

// TestBugsFollowTheSource: the place that a bug changes is there.
func TestBugsFollowTheSource(t *testing.T) {
	for name, b := range bugs {
		if n := bytes.Count(readFile(t, filepath.Join("../..", b.file)), []byte(b.old)); n != 1 {
			t.Errorf("bug %s: %s has the place to change %d times, want once", name, b.file, n)
		}
	}
}
