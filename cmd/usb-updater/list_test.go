package main

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEscapeJSON(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", `{"a": "é日😀"}`, `{"a": "é日😀"}`},
		{"delete and C1", "\"\x7f\u009b\"", `"\u007f\u009b"`},
		{"right to left", "\"\u202e\"", `"\u202e"`},
		{"tag beyond 16 bits", "\"\U000e0041\"", `"\udb40\udc41"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(escapeJSON([]byte(tt.in)))
			if got != tt.want {
				t.Errorf("escapeJSON(%q) = %q, want %q", tt.in, got, tt.want)
			}
			var before, after any
			if err := json.Unmarshal([]byte(tt.in), &before); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(got), &after); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the document changes (-before +after):\n%s", diff)
			}
		})
	}
}
