package httpsource

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// Defaults of [Options].
const (
	// DefaultRetries is Mender's (source: Mender client 5, RetryDownloadCount).
	DefaultRetries = 10
	DefaultIdle    = time.Minute
	DefaultTotal   = 24 * time.Hour
)

const (
	firstWait = time.Second // back-off after the first break; it doubles with each
	maxWait   = time.Minute // and ends here

	// progress is what must be read after a break for the retries to be counted
	// anew, in bytes. Less would let a server that sends a byte for each
	// connection keep us busy until the total limit.
	progress = 1 << 20

	// tailSize is how much is read again after a break, to compare it, in bytes.
	tailSize = 4 << 10

	// endSize is the least that ends each artifact, in bytes: the two blocks of
	// zeros behind a tar archive.
	endSize = 1 << 10

	readBuffer   = 64 << 10 // of a connection, in bytes
	writeBuffer  = 4 << 10
	maxHeader    = 64 << 10 // of a response, in bytes
	maxValidator = 256      // of an ETag or date that is sent back, in bytes
	maxRedirects = 10

	dialLimit      = 30 * time.Second
	handshakeLimit = 30 * time.Second
)

// Options says how to reach a server. The zero value verifies servers against
// the system's certificates and uses no proxy.
type Options struct {
	Trust Trust
	// Proxy returns the proxy for a request, nil for none. Its errors are
	// printed: they must not hold a password. Nil is no proxy.
	Proxy func(*http.Request) (*url.URL, error)
	// Retries bounds how often a broken download is taken up again without
	// progress. 0 is DefaultRetries, less is never.
	Retries int
	// Idle bounds the wait for an answer and for each piece of data. 0 is
	// DefaultIdle.
	Idle time.Duration
	// Total bounds the time from Open to the last byte, including what the
	// reader does in between. 0 is DefaultTotal.
	Total time.Duration
	// Report hears of breaks that are retried. Optional.
	Report func(Retry)

	// Replaced by tests.
	sleep     func(context.Context, time.Duration)
	afterFunc func(time.Duration, func()) timer
	random    func() float64 // from 0 to 1
}

// Retry is a break after which the download is taken up again.
type Retry struct {
	Err     error
	Offset  int64         // bytes that were read
	Attempt int           // 1-based
	Of      int           // attempts
	Wait    time.Duration // until the attempt
}

// timer is what is used of a [time.Timer].
type timer interface{ Stop() bool }

func (o Options) withDefaults() Options {
	switch {
	case o.Retries == 0:
		o.Retries = DefaultRetries
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	if o.Total == 0 {
		o.Total = DefaultTotal
	}
	if o.Report == nil {
		o.Report = func(Retry) {}
	}
	if o.sleep == nil {
		o.sleep = sleep
	}
	if o.afterFunc == nil {
		o.afterFunc = func(d time.Duration, f func()) timer { return time.AfterFunc(d, f) }
	}
	if o.random == nil {
		o.random = rand.Float64
	}
	return o
}

// sleep waits, at most until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// wait returns the pause before an attempt, 1-based. The random half keeps a
// fleet of devices from coming back to a server all at once.
func (o Options) wait(attempt int) time.Duration {
	d := maxWait
	if shift := attempt - 1; shift < 6 { // 1 s << 6 is past the limit
		d = min(firstWait<<shift, maxWait)
	}
	return d/2 + time.Duration(o.random()*float64(d/2))
}
