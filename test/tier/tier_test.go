package tier

import (
	"runtime"
	"testing"
)

// recorder is a test that notes how it ended.
type recorder struct {
	testing.TB

	how string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(string, ...any) {
	r.how = "skipped"
	runtime.Goexit()
}

func (r *recorder) Fatalf(string, ...any) {
	r.how = "failed"
	runtime.Goexit()
}

func TestNeed(t *testing.T) {
	for _, tt := range []struct{ name, require, thing, want string }{
		{"there", "device", "go", "ran"},
		{"path", "device", "/proc/self", "ran"},
		{"no such program", "", "no-such-program", "skipped"},
		{"no such path", "", "/no/such/path", "skipped"},
		{"another tier is required", "vm", "no-such-program", "skipped"},
		{"a word that holds the tier's", "devices", "no-such-program", "skipped"},
		{"required", "device", "no-such-program", "failed"},
		{"required, in a list", "vm,device", "/no/such/path", "failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("REQUIRE", tt.require)
			r := &recorder{TB: t, how: "ran"}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Device.Need(r, "go", tt.thing)
			}()
			<-done
			if r.how != tt.want {
				t.Errorf("Need(%q) with REQUIRE=%q: %s, want %s", tt.thing, tt.require, r.how, tt.want)
			}
		})
	}
}
