package bootenv

import (
	"encoding/json"
	"testing"
)

// FuzzAnswer checks that no answer of a program panics, and that what is
// accepted is JSON that means the same to another decoder.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"booted":"A","phase":"steady"}`))
	f.Add([]byte(` {"phase":"trial","degraded":["a","b"],"booted":"B"}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := decodeAnswer(in)
		if err != nil {
			return
		}
		var other map[string]any
		if err := json.Unmarshal(in, &other); err != nil {
			t.Fatalf("accepted, but not JSON: %v", err)
		}
		if other["booted"] != a.booted.String() || other["phase"] != a.phase.String() || len(a.degraded) > maxRemarks {
			t.Fatalf("decodeAnswer(%q) = %+v, another decoder says %v", in, a, other)
		}
	})
}
