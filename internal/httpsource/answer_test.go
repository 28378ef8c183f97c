package httpsource

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestParseContentRange(t *testing.T) {
	bad := contentRange{-1, -1, -1}
	for in, want := range map[string]contentRange{
		"bytes 0-0/1":                       {0, 0, 1},
		"bytes 5-9/10":                      {5, 9, 10},
		"Bytes 5-9/*":                       {5, 9, -1},
		"bytes 0-9223372036854775806/*":     {0, 9223372036854775806, -1},
		"bytes 0-9223372036854775808/*":     bad,
		"bytes 5-10/10":                     bad,
		"bytes 5-4/10":                      bad,
		"bytes */10":                        bad,
		"bytes -5/10":                       bad,
		"bytes 5-/10":                       bad,
		"bytes 5-9":                         bad,
		"bytes 5-9/":                        bad,
		"bytes +5-9/10":                     bad,
		"bytes 5-9/-1":                      bad,
		"bytes  5-9/10":                     bad,
		"bytes 5-9/10 ":                     bad,
		"items 5-9/10":                      bad,
		"":                                  bad,
		"bytes 5-9/99999999999999999999999": bad,
	} {
		got, err := parseContentRange(in)
		if err != nil {
			got = bad
		}
		if got != want {
			t.Errorf("parseContentRange(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestParseUnsatisfied(t *testing.T) {
	for in, want := range map[string]int64{
		"bytes */0": 0, "Bytes */10": 10,
		"bytes */*": -1, "bytes 0-9/10": -1, "bytes */-1": -1, "bytes */+1": -1, "items */10": -1, "bytes */99999999999999999999": -1, "": -1,
	} {
		got, ok := parseUnsatisfied(in)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("parseUnsatisfied(%q) = %d, want %d", in, got, want)
		}
	}
}

// FuzzParseContentRange checks that what is accepted is a range, and the one
// that it says.
func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 0-0/*")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := parseContentRange(in)
		if err != nil {
			return
		}
		if r.first < 0 || r.last < r.first || r.total != -1 && r.total <= r.last {
			t.Fatalf("parseContentRange(%q) = %+v, which is no range", in, r)
		}
		total := "*"
		if r.total >= 0 {
			total = fmt.Sprint(r.total)
		}
		again, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", r.first, r.last, total))
		if err != nil || again != r {
			t.Fatalf("parseContentRange(%q) = %+v, and written anew %+v, %v", in, r, again, err)
		}
	})
}

func TestStrongValidator(t *testing.T) {
	const early, late = "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:01 GMT"
	for _, tt := range []struct{ etag, modified, date, want string }{
		{`"a"`, early, late, `"a"`},
		{`W/"a"`, early, late, ""},
		{`a`, early, late, ""},
		{`"`, "", "", ""},
		{`"` + strings.Repeat("a", maxValidator) + `"`, "", "", ""},
		{"", early, late, early},
		{"", early, early, ""}, // it may change again in that second
		{"", early, "", ""},
		{"", "yesterday", late, ""},
		{"", "", "", ""},
	} {
		h := http.Header{}
		h.Set("ETag", tt.etag)
		h.Set("Last-Modified", tt.modified)
		h.Set("Date", tt.date)
		if got := validatorOf(h).strong; got != tt.want {
			t.Errorf("validatorOf(%q, %q, %q).strong = %q, want %q", tt.etag, tt.modified, tt.date, got, tt.want)
		}
	}
}

func TestPlain(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "no such host", Name: "update.invalid", IsNotFound: true}, `host "update.invalid" is not known to the name servers`},
		{fmt.Errorf("bad \x1b[31m %s", strings.Repeat("é", maxText)), "bad ?[31m " + strings.Repeat("é", (maxText-10)/2) + "…"},
	} {
		if got := plain(tt.err).Error(); got != tt.want {
			t.Errorf("plain(%q) = %q, want %q", tt.err, got, tt.want)
		}
	}
}
