package httpsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const etag = `"v1"`

// content returns bytes in which no two places look alike.
func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// server answers each request with the next step; the last one stays.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []http.Header
}

func serve(t *testing.T, steps ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(s.handler(steps))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handler(steps []http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		step := steps[min(len(s.seen), len(steps)-1)]
		s.seen = append(s.seen, r.Header.Clone())
		s.mu.Unlock()
		step(w, r)
	})
}

func (s *server) headers(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var values []string
	for _, h := range s.seen {
		values = append(values, h.Get(name))
	}
	return values
}

// cutWriter ends the connection after some bytes of the body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// cut ends the connection after n bytes of what h answers.
func cut(n int, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(&cutWriter{w, n}, r) }
}

// file answers as the standard library's file server does, with the given
// headers.
func file(b []byte, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w, headers)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// raw answers with a status, headers and a body, whatever is asked for.
func raw(status int, body []byte, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		setHeaders(w, headers)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// chunked is raw without a length.
func chunked(status int, body []byte, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		setHeaders(w, headers)
		w.WriteHeader(status)
		_ = http.NewResponseController(unwrap(w)).Flush()
		_, _ = w.Write(body)
	}
}

func setHeaders(w http.ResponseWriter, headers []string) {
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		w.Header().Set(name, value)
	}
}

// test returns options that never wait, and what was slept.
func test() (Options, *[]time.Duration) {
	var slept []time.Duration
	return Options{
		sleep:     func(_ context.Context, d time.Duration) { slept = append(slept, d) },
		afterFunc: func(time.Duration, func()) timer { return never{} },
		random:    func() float64 { return 1 },
	}, &slept
}

// never is a timer that does not fire.
type never struct{}

func (never) Stop() bool { return true }

// read opens a URL and reads all of it. Reads have odd sizes.
func read(t *testing.T, rawURL string, opts Options) ([]byte, error) {
	t.Helper()
	return readUp(t, rawURL, opts, func(int) {})
}

// readUp is read that tells how many bytes it has.
func readUp(t *testing.T, rawURL string, opts Options, has func(int)) ([]byte, error) {
	t.Helper()
	s, err := Open(t.Context(), rawURL, opts)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var got []byte
	buf := make([]byte, 777)
	for {
		n, err := s.Read(buf)
		got = append(got, buf[:n]...)
		has(len(got))
		if err == io.EOF { //nolint:errorlint // that is what readers compare with
			if s.Size() >= 0 && s.Size() != int64(len(got)) {
				t.Errorf("Size() = %d, want %d", s.Size(), len(got))
			}
			return got, nil
		}
		if err != nil {
			if _, again := s.Read(buf); again.Error() != err.Error() {
				t.Errorf("read after an error: %v, want %v again", again, err)
			}
			return got, err
		}
	}
}

func wantError(t *testing.T, got, want error, text string) {
	t.Helper()
	if want != nil && !errors.Is(got, want) {
		t.Errorf("error %v, want %v", got, want)
	}
	if got == nil || !strings.Contains(got.Error(), text) {
		t.Errorf("error %v, want %q in it", got, text)
	}
	if errors.Is(got, io.EOF) || errors.Is(got, io.ErrUnexpectedEOF) {
		t.Errorf("error %v passes for the end of the file", got)
	}
}

// TestCut cuts the connection after every few bytes, for each way in which a
// server tells versions apart.
func TestCut(t *testing.T) {
	want := content(tailSize + 500)
	old := "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"
	for name, headers := range map[string][]string{
		"etag":          {"ETag: " + etag},
		"last modified": {old},
		"weak etag":     {`ETag: W/"v1"`},
		"nothing":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; n <= len(want); n += 97 {
				opts, _ := test()
				s := serve(t, cut(n, file(want, headers...)), file(want, headers...))
				got, err := read(t, s.URL, opts)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("cut after %d bytes: got %d bytes, equal %v, error %v", n, len(got), bytes.Equal(got, want), err)
				}
				s.Close()
			}
		})
	}
}

func TestRequests(t *testing.T) {
	want := content(10000)
	opts, slept := test()
	var heard []Retry
	opts.Report = func(r Retry) { heard = append(heard, r) }
	step := cut(5000, file(want, "ETag: "+etag))
	s := serve(t, step, step, step)
	got, err := read(t, s.URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, error %v", len(got), err)
	}
	// 5000, then 5000 less the tail for each request.
	if diff := cmp.Diff([]string{"", "bytes=904-", "bytes=1808-"}, s.headers("Range")[:3]); diff != "" {
		t.Errorf("Range (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"", etag, etag}, s.headers("If-Range")[:3]); diff != "" {
		t.Errorf("If-Range (-want +got):\n%s", diff)
	}
	for _, v := range s.headers("Accept-Encoding") {
		if v != "identity" {
			t.Errorf("Accept-Encoding %q, want identity", v)
		}
	}
	if want := []time.Duration{1 * time.Second, 2 * time.Second}; !slices.Equal((*slept)[:2], want) {
		t.Errorf("slept %v, want %v first", *slept, want)
	}
	first := Retry{Err: ErrBroken, Offset: 5000, Attempt: 1, Of: DefaultRetries, Wait: time.Second}
	if diff := cmp.Diff(first, heard[0], cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) || errors.Is(b, a) })); diff != "" {
		t.Errorf("Report (-want +got):\n%s", diff)
	}
}

func TestRetriesEnd(t *testing.T) {
	b := content(10000)
	opts, slept := test()
	opts.Retries = 3
	s := serve(t, cut(5000, file(b)), cut(0, file(b)))
	got, err := read(t, s.URL, opts)
	wantError(t, err, ErrBroken, "at byte 5000: tried maximum amount of times (3): the connection broke")
	if !bytes.Equal(got, b[:5000]) {
		t.Errorf("got %d bytes, want the first 5000", len(got))
	}
	if want := []time.Duration{1 * time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(*slept, want) {
		t.Errorf("slept %v, want %v", *slept, want)
	}
	opts.Retries = -1
	_, err = read(t, serve(t, cut(5000, file(b)), file(b)).URL, opts)
	wantError(t, err, ErrBroken, "(0)")
}

// TestProgress: breaks do not add up over a long download.
func TestProgress(t *testing.T) {
	want := content(5*progress + 5)
	opts, slept := test()
	opts.Retries = 1
	got, err := read(t, serve(t, cut(progress+tailSize, file(want))).URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, error %v", len(got), err)
	}
	for _, d := range *slept {
		if d != firstWait {
			t.Errorf("slept %v, want %v each time", *slept, firstWait)
		}
	}
}

// TestSameFile: whatever a server does after a break, a file is either read
// whole and right, or not.
func TestSameFile(t *testing.T) {
	b := content(10000)
	other := content(10001)[1:]
	const at = 6000
	from := at - tailSize
	tag := "ETag: " + etag
	span := func(first, last, total int) string {
		return fmt.Sprintf("Content-Range: bytes %d-%d/%d", first, last, total)
	}
	tests := []struct {
		name   string
		first  []string // headers of the first answer
		second http.HandlerFunc
		want   error // nil: resumed
		text   string
	}{
		{"same", []string{tag}, file(b, tag), nil, ""},
		{"no validator", nil, file(b), nil, ""},
		{"other etag", []string{tag}, file(b, `ETag: "v2"`), ErrChanged, "another ETag"},
		{"other weak etag", []string{`ETag: W/"1"`}, file(b, `ETag: W/"2"`), ErrChanged, "another ETag"},
		{"other date", []string{"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"}, file(b, "Last-Modified: Mon, 01 Jan 2024 00:00:01 GMT"), ErrChanged, "another ETag or date"},
		{"other date, same etag", []string{tag, "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT"}, file(b, tag, "Last-Modified: Mon, 01 Jan 2024 00:00:01 GMT"), nil, ""},
		{"other bytes, same length", nil, file(other), ErrChanged, "bytes before 6000 differ"},
		{"other bytes, same etag", []string{tag}, file(other, tag), ErrChanged, "bytes before 6000 differ"},
		{"longer", nil, file(content(10001)), ErrChanged, "length was 10000 bytes and is 10001"},
		{"shorter than the position", nil, file(b[:100]), ErrChanged, "shorter than 6000"},
		{"whole, same etag", []string{tag}, raw(200, b, tag, "Content-Length: 10000"), nil, ""},
		{"whole, no etag", nil, raw(200, b, "Content-Length: 10000"), ErrNoResume, "sends the whole file"},
		{"whole, weak etag", []string{`ETag: W/"1"`}, raw(200, b, `ETag: W/"1"`, "Content-Length: 10000"), ErrNoResume, "sends the whole file"},
		{"whole, etag only now", nil, raw(200, b, tag, "Content-Length: 10000"), ErrNoResume, "sends the whole file"},
		{"whole, same etag, other length", []string{tag}, raw(200, content(10001), tag, "Content-Length: 10001"), ErrChanged, "length was 10000 bytes and is 10001"},
		{"whole, same etag, other bytes", []string{tag}, raw(200, other, tag, "Content-Length: 10000"), ErrChanged, "bytes before 6000 differ"},
		{"range from earlier", nil, raw(206, b[from-1000:], span(from-1000, 9999, 10000)), nil, ""},
		{"range from later", nil, raw(206, b[from+1:], span(from+1, 9999, 10000)), ErrNoResume, "bytes from 1905, wanted from 1904"},
		{"no Content-Range", nil, raw(206, b[from:]), ErrNoResume, "is not a range"},
		{"several ranges", nil, raw(206, b[from:], "Content-Type: multipart/byteranges; boundary=x"), ErrNoResume, "is not a range"},
		{"wrong length of the range", nil, raw(206, b[from:], span(from, 9998, 10000), "Content-Length: 8096"), ErrNoResume, "does not fit"},
		{"encoded", []string{tag}, raw(206, b[from:], tag, span(from, 9999, 10000), "Content-Encoding: gzip"), errEncoding, `"gzip"`},
		{"whole, same etag, no length", []string{tag}, chunked(200, b, tag), nil, ""},
		{"whole, same etag, no length, other bytes", []string{tag}, chunked(200, other, tag), ErrChanged, "bytes before 6000 differ"},
		{"whole, no etag, no length", nil, chunked(200, b), ErrNoResume, "sends the whole file"},
		{"ranges refused", []string{tag}, raw(416, nil, "Content-Range: bytes */10000"), ErrNoResume, "refuses the range from byte 1904"},
		{"ranges refused, no length told", []string{tag}, raw(416, nil), ErrNoResume, "refuses the range from byte 1904"},
		{"ranges refused, longer", []string{tag}, raw(416, nil, "Content-Range: bytes */10001"), ErrChanged, "length was 10000 bytes and is 10001"},
		{"gone", nil, raw(404, nil), nil, "status 404 Not Found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts, _ := test()
			s := serve(t, cut(at, file(b, tt.first...)), tt.second)
			got, err := read(t, s.URL, opts)
			if tt.text == "" {
				if err != nil || !bytes.Equal(got, b) {
					t.Fatalf("got %d bytes, equal %v, error %v", len(got), bytes.Equal(got, b), err)
				}
				return
			}
			wantError(t, err, tt.want, tt.text)
			if !bytes.Equal(got, b[:at]) {
				t.Errorf("got %d bytes, want the first %d and no other", len(got), at)
			}
			if n := len(s.headers("Range")); n != 2 {
				t.Errorf("%d requests, want 2: such an error is final", n)
			}
		})
	}
}

// TestTemporary: what may be otherwise a little later is tried again.
func TestTemporary(t *testing.T) {
	want := content(10000)
	for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
		opts, slept := test()
		got, err := read(t, serve(t, cut(100, file(want)), raw(status, nil), raw(status, nil), file(want)).URL, opts)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("status %d: got %d bytes, error %v", status, len(got), err)
		}
		if len(*slept) != 3 {
			t.Errorf("status %d: slept %v, want three times", status, *slept)
		}
	}
}

// TestRetryAfter: a server may say how long it needs, up to the longest pause.
func TestRetryAfter(t *testing.T) {
	want := content(10000)
	for value, pause := range map[string]time.Duration{
		"7": 7 * time.Second, "1": 2 * time.Second, "60": time.Minute, "3600": time.Minute, "99999999999999999999": 2 * time.Second,
		"0": 2 * time.Second, "-5": 2 * time.Second, "soon": 2 * time.Second, "Mon, 01 Jan 2024 00:00:00 GMT": 2 * time.Second,
	} {
		for _, status := range []int{429, 503} {
			opts, slept := test()
			busy := raw(status, nil, "Retry-After: "+value)
			got, err := read(t, serve(t, cut(100, file(want)), busy, file(want)).URL, opts)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q: got %d bytes, error %v", value, len(got), err)
			}
			if want := []time.Duration{time.Second, pause}; !slices.Equal(*slept, want) {
				t.Errorf("status %d, %q: slept %v, want %v", status, value, *slept, want)
			}
		}
	}
}

// TestShortRanges: a server may send less than it was asked for.
func TestShortRanges(t *testing.T) {
	want := content(20000)
	opts, _ := test()
	short := func(w http.ResponseWriter, r *http.Request) {
		var from int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
			t.Errorf("Range %q: %v", r.Header.Get("Range"), err)
		}
		to := min(from+6000, len(want))
		raw(206, want[from:to], fmt.Sprintf("Content-Range: bytes %d-%d/%d", from, to-1, len(want)))(w, r)
	}
	got, err := read(t, serve(t, cut(3000, file(want)), short).URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
}

// TestLongRange: what a server sends past the end that it has told is not read.
func TestLongRange(t *testing.T) {
	want := content(10000)
	opts, _ := test()
	long := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-9999/10000", 5000-tailSize))
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush() // no Content-Length
		_, _ = w.Write(want[5000-tailSize:])
		_, _ = w.Write(content(1000))
	}
	got, err := read(t, serve(t, cut(5000, file(want)), long).URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
}

func TestUnknownSize(t *testing.T) {
	want := content(100000)
	plain, tagged := chunked(200, want), chunked(200, want, "ETag: "+etag)
	whole := raw(200, want, "ETag: "+etag, "Content-Length: 100000")
	opts, _ := test()
	s, err := Open(t.Context(), serve(t, plain).URL, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Size() != -1 {
		t.Errorf("Size() = %d, want -1", s.Size())
	}
	for name, steps := range map[string][]http.HandlerFunc{
		"whole":        {plain},
		"length later": {cut(50000, plain), file(want)},
		"whole later":  {cut(50000, tagged), whole},
		"never told":   {cut(50000, tagged), tagged},
		"no break":     {plain, raw(404, nil)},
	} {
		got, err := read(t, serve(t, steps...).URL, opts)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, error %v", name, len(got), err)
		}
	}
	from := 50000 - tailSize
	_, err = read(t, serve(t, cut(50000, plain), raw(206, want[from:], fmt.Sprintf("Content-Range: bytes %d-99999/*", from))).URL, opts)
	wantError(t, err, ErrNoResume, "does not tell the length")
	_, err = read(t, serve(t, cut(50000, plain), raw(206, want[from:49999], fmt.Sprintf("Content-Range: bytes %d-49998/49999", from))).URL, opts)
	wantError(t, err, ErrChanged, "shorter than 50000")
	_, err = read(t, serve(t, cut(50000, plain), cut(10, plain)).URL, opts)
	wantError(t, err, ErrNoResume, "sends the whole file")
	_, err = read(t, serve(t, cut(50000, tagged), raw(200, want[:49999], "ETag: "+etag, "Content-Length: 49999")).URL, opts)
	wantError(t, err, ErrChanged, "shorter than 50000")
	_, err = read(t, serve(t, cut(50000, tagged), raw(416, nil, "Content-Range: bytes */49999")).URL, opts)
	wantError(t, err, ErrChanged, "shorter than 50000")
}

// TestUnframed: where only the end of the connection ends the data, an end that
// cannot be the artifact's is one of the connection.
func TestUnframed(t *testing.T) {
	const unframed = "Transfer-Encoding: identity" // Go's server then tells no length
	artifact := append(content(10000), make([]byte, endSize)...)
	tag := "ETag: " + etag
	cutAt := func(n int) http.HandlerFunc { return raw(200, artifact[:n], unframed, tag) }
	for _, tt := range []struct {
		name  string
		steps []http.HandlerFunc
		want  int   // bytes
		err   error // nil: whole
		asked int
	}{
		{"whole", []http.HandlerFunc{cutAt(len(artifact))}, len(artifact), nil, 1},
		{"resumed", []http.HandlerFunc{cutAt(6000), file(artifact, tag)}, len(artifact), nil, 2},
		{"resumed twice without a length", []http.HandlerFunc{cutAt(6000), cutAt(7000), cutAt(len(artifact))}, len(artifact), nil, 3},
		{"ends there again", []http.HandlerFunc{cutAt(6000)}, 6000, ErrNoLength, 2},
		{"ends before the first block", []http.HandlerFunc{cutAt(100)}, 100, ErrNoLength, 2},
		{"empty", []http.HandlerFunc{cutAt(0)}, 0, ErrNoLength, 2},
		{"cannot resume", []http.HandlerFunc{cutAt(6000), raw(200, artifact)}, 6000, ErrNoResume, 2},
		{"the length proves the end", []http.HandlerFunc{cutAt(6000), file(artifact[:6000], tag)}, 6000, nil, 2},
		{"in chunks", []http.HandlerFunc{chunked(200, artifact[:6000])}, 6000, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts, _ := test()
			s := serve(t, tt.steps...)
			got, err := read(t, s.URL, opts)
			if !bytes.Equal(got, artifact[:tt.want]) {
				t.Errorf("got %d bytes, want the first %d", len(got), tt.want)
			}
			switch {
			case tt.err != nil:
				wantError(t, err, tt.err, "server")
			case err != nil:
				t.Error(err)
			}
			if n := len(s.headers("Range")); n != tt.asked {
				t.Errorf("%d requests, want %d", n, tt.asked)
			}
		})
	}
}

func unwrap(w http.ResponseWriter) http.ResponseWriter {
	if c, ok := w.(*cutWriter); ok {
		return c.ResponseWriter
	}
	return w
}

// stall sends some bytes and then nothing. It tells stalled, and ends with the
// request.
func stall(n int, stalled chan<- struct{}, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h(&stallWriter{w, n, func() {
			stalled <- struct{}{}
			<-r.Context().Done()
		}}, r)
	}
}

type stallWriter struct {
	http.ResponseWriter
	left int
	wait func()
}

func (s *stallWriter) Write(p []byte) (int, error) {
	if len(p) > s.left {
		_, _ = s.ResponseWriter.Write(p[:s.left])
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		s.wait()
		panic(http.ErrAbortHandler)
	}
	s.left -= len(p)
	return s.ResponseWriter.Write(p)
}

// firing is a timer that fires when something is received.
type firing struct{ stop chan struct{} }

func (f firing) Stop() bool { close(f.stop); return true }

// fireOn returns an afterFunc whose timers of the duration fire when ch says so.
func fireOn(ch <-chan struct{}, duration time.Duration) func(time.Duration, func()) timer {
	return func(d time.Duration, f func()) timer {
		if d != duration {
			return never{}
		}
		t := firing{make(chan struct{})}
		go func() {
			select {
			case <-ch:
				f()
			case <-t.stop:
			}
		}()
		return t
	}
}

func TestIdle(t *testing.T) {
	want := content(10000)
	idle := make(chan struct{}, 1)
	opts, slept := test()
	opts.afterFunc = fireOn(idle, DefaultIdle)
	// The limit passes when all is read that the server sends.
	ends := func(at ...int) func(int) {
		return func(n int) {
			if slices.Contains(at, n) {
				idle <- struct{}{}
			}
		}
	}
	ignored := make(chan struct{}, 10)
	got, err := readUp(t, serve(t, stall(5000, ignored, file(want)), file(want)).URL, opts, ends(5000))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	if len(*slept) != 1 {
		t.Errorf("slept %v, want once", *slept)
	}
	opts.Retries = 2
	_, err = readUp(t, serve(t, stall(5000, ignored, file(want))).URL, opts, ends(5000, 5904, 6808))
	wantError(t, err, ErrIdle, "(2): no data within the time limit")
	// Also before the answer.
	_, err = read(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		idle <- struct{}{}
		<-r.Context().Done()
	}).URL, opts)
	wantError(t, err, ErrIdle, "no data within the time limit")
}

func TestTotal(t *testing.T) {
	b := content(10000)
	stalled := make(chan struct{}, 1)
	opts, slept := test()
	opts.afterFunc = fireOn(stalled, DefaultTotal)
	_, err := read(t, serve(t, stall(5000, stalled, file(b)), file(b)).URL, opts)
	wantError(t, err, ErrTooSlow, "not complete within the time limit")
	if len(*slept) != 0 {
		t.Errorf("slept %v, want no retry", *slept)
	}
}

// TestCancel: the end of the context ends each wait, with its cause.
func TestCancel(t *testing.T) {
	b := content(10000)
	cause := errors.New("told to stop")
	stalled := make(chan struct{}, 1)
	silent := func(_ http.ResponseWriter, r *http.Request) {
		stalled <- struct{}{}
		<-r.Context().Done()
	}
	for name, steps := range map[string][]http.HandlerFunc{
		"before the answer":     {silent},
		"body":                  {stall(5000, stalled, file(b))},
		"answer after a break":  {cut(5000, file(b)), silent},
		"overlap after a break": {cut(5000, file(b)), stall(10, stalled, file(b))},
		"pause after a break":   {cut(5000, file(b))},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			opts, _ := test()
			if name == "pause after a break" {
				opts.sleep = func(ctx context.Context, _ time.Duration) {
					stalled <- struct{}{}
					sleep(ctx, time.Hour)
				}
			}
			go func() {
				<-stalled
				cancel(cause)
			}()
			s, err := Open(ctx, serve(t, steps...).URL, opts)
			if err == nil {
				_, err = io.Copy(io.Discard, s)
				_ = s.Close()
			}
			wantError(t, err, cause, "told to stop")
		})
	}
}

func TestClosed(t *testing.T) {
	opts, _ := test()
	s, err := Open(t.Context(), serve(t, file(content(100))).URL, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_, err = s.Read(make([]byte, 1))
	wantError(t, err, errClosed, "closed")
}

func TestOpenErrors(t *testing.T) {
	opts, slept := test()
	for _, tt := range []struct {
		name string
		step http.HandlerFunc
		want error
		text string
	}{
		{"401", raw(401, nil), nil, "status 401 Unauthorized: user and password are missing or not accepted"},
		{"403", raw(403, nil), nil, "status 403 Forbidden"},
		{"404", raw(404, nil), nil, "status 404 Not Found"},
		{"500", raw(500, nil), nil, "status 500 Internal Server Error"},
		{"599", raw(599, nil), nil, "status 599"},
		{"204", raw(204, nil), nil, "status 204 No Content"},
		{"206", raw(206, []byte("x")), nil, "status 206 Partial Content"},
		{"304", raw(304, nil), nil, "status 304 Not Modified"},
		{"encoded", raw(200, []byte("x"), "Content-Encoding: gzip"), errEncoding, `"gzip"`},
		{"redirect to a file", raw(302, nil, "Location: file:///etc/passwd"), ErrRedirect, `to "file"`},
		{"redirect to no host", raw(302, nil, "Location: http://:1/"), ErrRedirect, "without a host"},
		{"redirect to nonsense", raw(302, nil, "Location: http://secret:secret@host:x/"), errLocation, "redirects to something"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrBroken, "the connection broke"},
		{"large header", raw(200, nil, "X: "+strings.Repeat("x", 2*maxHeader)), nil, "exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read(t, serve(t, tt.step).URL+"/update.mender", opts)
			wantError(t, err, tt.want, tt.text)
			wantError(t, err, nil, "/update.mender")
			if strings.Contains(err.Error(), "secret") || len(err.Error()) > 2*maxText {
				t.Errorf("error tells too much: %v", err)
			}
		})
	}
	loop := serve(t, raw(302, nil, "Location: /"))
	_, err := read(t, loop.URL, opts)
	wantError(t, err, ErrRedirect, "more than 10")
	if n := len(loop.headers("Range")); n != 1+maxRedirects {
		t.Errorf("%d requests, want %d", n, 1+maxRedirects)
	}
	s := serve(t, file(nil))
	s.Close()
	_, err = read(t, s.URL, opts)
	wantError(t, err, nil, "connection refused")
	if len(*slept) != 0 {
		t.Errorf("slept %v, want no retry of a first request", *slept)
	}
}

func TestRedirect(t *testing.T) {
	want := content(10000)
	opts, _ := test()
	hops := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/hop", func(w http.ResponseWriter, r *http.Request) {
		if hops++; hops%10 != 0 {
			http.Redirect(w, r, "/hop?token=secret", http.StatusFound)
			return
		}
		http.Redirect(w, r, "/file", http.StatusTemporaryRedirect)
	})
	first := true
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if ref := r.Header.Get("Referer"); ref != "" {
			t.Errorf("Referer %q tells the URL that redirected", ref)
		}
		h := file(want, "ETag: "+etag)
		if first {
			h = cut(5000, h)
		}
		first = false
		h(w, r)
	})
	got, err := read(t, serve(t, mux.ServeHTTP).URL+"/hop", opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	if hops != 20 {
		t.Errorf("%d redirects, want 10 for each request", hops)
	}
}

// TestRedirectPassword: user and password of the URL go along on the server that
// they are for, and to no other.
func TestRedirectPassword(t *testing.T) {
	want := content(1000)
	opts, _ := test()
	var user, password string
	target := func(w http.ResponseWriter, r *http.Request) {
		user, password, _ = r.BasicAuth()
		file(want)(w, r)
	}
	var location string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/file" {
			target(w, r)
			return
		}
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusFound)
	})
	other := serve(t, target)
	detour := serve(t, raw(302, nil, "Location: "+s.URL+"/file"))
	host := strings.TrimPrefix(s.URL, "http://")
	for _, tt := range []struct{ name, location, user, password string }{
		{"relative", "/file", "u", "p"},
		{"absolute", s.URL + "/file", "u", "p"},
		{"absolute, with a user of its own", "http://v:q@" + host + "/file", "v", "q"},
		{"another port", other.URL, "", ""},
		{"another host", strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/file", "", ""},
		{"by way of another server", detour.URL, "u", "p"},
	} {
		location, user, password = tt.location, "none", "none"
		got, err := read(t, "http://u:p@"+host+"/", opts)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, error %v", tt.name, len(got), err)
		}
		if user != tt.user || password != tt.password {
			t.Errorf("%s: user %q, password %q, want %q and %q", tt.name, user, password, tt.user, tt.password)
		}
	}
}

// TestSecrets: no error holds what is secret in a URL.
func TestSecrets(t *testing.T) {
	opts, _ := test()
	opts.Retries = 1
	opts.Report = func(r Retry) {
		if strings.Contains(r.Err.Error(), "secret") {
			t.Errorf("report %q tells a secret", r.Err)
		}
	}
	b := content(1000)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "secret1" || password != "secret2" {
			t.Errorf("user %q, password %q, want those of the URL", user, password)
		}
		cut(100, file(b))(w, r)
	}, cut(0, file(b)))
	host := strings.TrimPrefix(s.URL, "http://")
	gone := serve(t, file(nil))
	gone.Close()
	for _, u := range []string{
		"http://secret1:secret2@" + host + "/a?token=secret3#secret4",
		strings.Replace(gone.URL, "//", "//secret1:secret2@", 1) + "/a?token=secret3",
		"http://user:sec/ret-secret@host/",
		"http://user:secret@host:port/",
		"http://%zz-secret",
		"http:///secret",
		"http://:80/secret",
		"http://user:secret@:80/",
		"http:secret",
		"ftp://secret",
	} {
		_, err := read(t, u, opts)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want one without secrets", u, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://u:p@host:8443/a%20b.mender?x=y#z": "https://host:8443/a%20b.mender",
		"http://host/" + strings.Repeat("x", 300):  "http://host/" + strings.Repeat("x", maxText-12) + "…",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := Redact(u); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestProxy(t *testing.T) {
	want := content(1000)
	opts, _ := test()
	var asked string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		file(want)(w, r)
	})
	opts.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	got, err := read(t, "http://elsewhere.invalid/update.mender", opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	if asked != "http://elsewhere.invalid/update.mender" {
		t.Errorf("the proxy was asked for %q", asked)
	}
	opts.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("http_proxy is wrong") }
	_, err = read(t, "http://elsewhere.invalid/update.mender", opts)
	wantError(t, err, errProxy, "no usable proxy: http_proxy is wrong")
}

// TestProxyFaults: what the proxy does wrong is told as the proxy's, and without
// its password.
func TestProxyFaults(t *testing.T) {
	for _, status := range []int{403, 404, 407, 502} {
		opts, slept := test()
		opts.Retries = 2
		want := 2
		if status == 403 || status == 407 {
			want = 1 // for the break before
		}
		b := content(1000)
		target := httptest.NewTLSServer(cut(100, file(b, "ETag: "+etag)))
		defer target.Close()
		opts.Trust.SkipVerify = true
		calls := 0
		proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if calls++; calls > 1 {
				w.WriteHeader(status)
				return
			}
			tunnel(t, w, target.Listener.Addr().String())
		})
		opts.Proxy = func(*http.Request) (*url.URL, error) {
			return url.Parse(strings.Replace(proxy.URL, "//", "//u:secret@", 1))
		}
		_, err := read(t, "https://elsewhere.invalid/update.mender", opts)
		text := fmt.Sprintf("the proxy %s answers: %d %s", strings.TrimPrefix(proxy.URL, "http://"), status, http.StatusText(status))
		wantError(t, err, nil, text)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v tells a secret", err)
		}
		if len(*slept) != want {
			t.Errorf("status %d: slept %v, want %d times", status, *slept, want)
		}
	}
	opts, _ := test()
	gone := serve(t, file(nil))
	gone.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for _, tt := range []struct{ proxy, text string }{
		{gone.URL, "proxy " + strings.TrimPrefix(gone.URL, "http://") + ": "},
		{secure.URL, "proxy " + strings.TrimPrefix(secure.URL, "https://") + ": "},
		{"http://proxy.invalid:3128", `proxy proxy.invalid:3128: `},
	} {
		opts.Proxy = func(*http.Request) (*url.URL, error) {
			return url.Parse(strings.Replace(tt.proxy, "//", "//u:secret@", 1))
		}
		for _, scheme := range []string{"http", "https"} {
			_, err := read(t, scheme+"://elsewhere.invalid/update.mender", opts)
			wantError(t, err, nil, ": "+tt.text)
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "proxyconnect") || errors.Is(err, ErrUntrusted) {
				t.Errorf("error %v, want one of the proxy and without secrets", err)
			}
		}
	}
}

// tunnel connects the client of a CONNECT request with an address.
func tunnel(t *testing.T, w http.ResponseWriter, addr string) {
	t.Helper()
	up, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer up.Close()
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer down.Close()
	_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(up, down) }()
	_, _ = io.Copy(down, up)
}

func TestWait(t *testing.T) {
	low, high := Options{random: func() float64 { return 0 }}, Options{random: func() float64 { return 1 }}
	for attempt, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 8: time.Minute, 1000: time.Minute,
	} {
		if got := high.wait(attempt); got != want {
			t.Errorf("wait(%d) = %v at most, want %v", attempt, got, want)
		}
		if got := low.wait(attempt); got != want/2 {
			t.Errorf("wait(%d) = %v at least, want %v", attempt, got, want/2)
		}
	}
}
