package httpsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Source is a file on a server. It is for one goroutine.
type Source struct {
	opts   Options
	client *http.Client
	url    *url.URL
	ctx    context.Context // of the whole download
	cancel context.CancelCauseFunc
	limit  timer  // of the whole download
	proxy  string // host and port of the last request's, "" for none

	answer *answer   // nil while there is no connection
	size   int64     // of the file in bytes, -1 if unknown
	valid  validator // of the first answer

	pos      int64  // bytes that were read
	tail     []byte // the last of them, at most tailSize
	failures int    // since there was progress
	failedAt int64  // pos at the last failure
	endedAt  int64  // pos at the last end that nothing proved, -1 before the first
	err      error  // how it ended
}

// Parse reads a URL that [Open] accepts. A port alone is none: Go would take this
// machine for the host.
func Parse(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		// The cause stays out: it may quote a part of the password.
		return nil, errors.New("download: not a valid http or https URL")
	}
	return u, nil
}

// Open asks the server for the file at rawURL, whose scheme is http or https,
// and returns when its answer begins. It does not retry: whoever made a mistake
// in the URL learns of it at once. The end of ctx ends the download, with the
// cause of ctx. The caller closes the source.
func Open(ctx context.Context, rawURL string, opts Options) (*Source, error) {
	u, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	s := &Source{opts: opts, url: u, size: -1, endedAt: -1}
	if s.client, err = s.newClient(); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.limit = opts.afterFunc(opts.Total, func() { s.cancel(ErrTooSlow) })
	if err := s.begin(); err != nil {
		err = s.describe(err)
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// newClient makes a client for one download.
func (s *Source) newClient() (*http.Client, error) {
	tlsConfig, err := s.opts.Trust.config()
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		Proxy:                  s.proxyFor,
		OnProxyConnectResponse: checkConnect,
		DialContext:            (&net.Dialer{Timeout: dialLimit}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    handshakeLimit,
		DisableKeepAlives:      true, // one answer for each connection
		DisableCompression:     true, // offsets count what the server stores
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         readBuffer,
		WriteBufferSize:        writeBuffer,
		Protocols:              protocols,
	}
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}, nil
}

// proxyFor returns the proxy for a request, and notes it for errors. It is
// called while the request is sent, not beside it.
func (s *Source) proxyFor(r *http.Request) (*url.URL, error) {
	s.proxy = ""
	if s.opts.Proxy == nil {
		return nil, nil
	}
	u, err := s.opts.Proxy(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProxy, err)
	}
	if u != nil {
		s.proxy = u.Host
	}
	return u, nil
}

// checkConnect tells a proxy's refusal to connect from an answer of the server.
func checkConnect(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyStatusError{proxy.Host, resp.StatusCode}
}

// checkRedirect keeps a download that began with a verified server from
// ending with somebody else.
func checkRedirect(r *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d", ErrRedirect, maxRedirects)
	case r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return fmt.Errorf("%w: to %.64q, which is neither http nor https", ErrRedirect, r.URL.Scheme)
	case r.URL.Hostname() == "":
		return fmt.Errorf("%w: to a URL without a host", ErrRedirect)
	case last.URL.Scheme == "https" && r.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to http, which is not safe", ErrRedirect)
	}
	// User and password of the URL are for its server, however a Location names it.
	if first := via[0].URL; r.URL.User == nil && r.URL.Scheme == first.Scheme && strings.EqualFold(r.URL.Host, first.Host) {
		r.URL.User = first.User
	}
	r.Header.Del("Referer") // it would hand the query, often a token, to another server
	return nil
}

// Size returns the size of the file in bytes, -1 if the server has not told.
func (s *Source) Size() int64 { return s.size }

// Read reads on, over breaks of the connection. An error other than [io.EOF]
// is final. It wraps what the last attempt failed with, or the cause of the
// context that was given to [Open].
func (s *Source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.err == nil {
		if s.size >= 0 {
			if s.pos == s.size {
				s.err = io.EOF
				break
			}
			p = p[:min(int64(len(p)), s.size-s.pos)]
		}
		n, err := s.answer.read(p)
		switch {
		case n > 0: // an error comes again with the next read
			s.took(p[:n])
			return n, nil
		case errors.Is(err, io.EOF) && s.size < 0:
			s.err = s.end()
		case errors.Is(err, io.EOF):
			s.err = s.resume(ErrBroken)
		case err != nil:
			s.err = s.resume(err)
		}
	}
	return 0, s.err
}

// end is at the end of data whose length is unknown. Where only the end of the
// connection ends it, and it cannot be an artifact's, it is a break. One that
// comes again at the same place is none that time heals.
func (s *Source) end() error {
	last := s.tail[max(0, len(s.tail)-endSize):]
	complete := len(last) == endSize && len(bytes.Trim(last, "\x00")) == 0
	switch {
	case complete || s.answer.chunked():
		return io.EOF
	case s.pos == s.endedAt:
		return s.describe(ErrNoLength)
	}
	s.endedAt = s.pos
	return s.resume(ErrNoLength)
}

// took counts what was read, and keeps the end of it.
func (s *Source) took(p []byte) {
	s.pos += int64(len(p))
	s.tail = append(s.tail, p[max(0, len(p)-tailSize):]...)
	if over := len(s.tail) - tailSize; over > 0 {
		s.tail = s.tail[:copy(s.tail, s.tail[over:])]
	}
}

// resume takes the download up again after a break.
func (s *Source) resume(cause error) error {
	s.hangUp()
	if s.pos-s.failedAt >= progress {
		s.failures = 0
	}
	s.failedAt = s.pos
	for s.failures++; ; s.failures++ {
		switch {
		case s.ctx.Err() != nil:
			return s.describe(context.Cause(s.ctx))
		case isFinal(cause):
			return s.describe(cause)
		case s.failures > s.opts.Retries:
			return s.describe(fmt.Errorf("tried maximum amount of times (%d): %w", s.opts.Retries, cause))
		}
		wait := s.opts.wait(s.failures)
		if status, ok := errors.AsType[*StatusError](cause); ok {
			wait = max(wait, min(status.wait, maxWait))
		}
		s.opts.Report(Retry{Err: cause, Offset: s.pos, Attempt: s.failures, Of: s.opts.Retries, Wait: wait})
		s.opts.sleep(s.ctx, wait)
		if s.ctx.Err() != nil {
			continue
		}
		if cause = s.again(); cause == nil {
			return nil
		}
		s.hangUp()
	}
}

// begin sends the first request.
func (s *Source) begin() error {
	if err := s.send(nil); err != nil {
		return err
	}
	resp := s.answer.resp
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	s.size = resp.ContentLength
	s.valid = validatorOf(resp.Header)
	return checkEncoding(resp.Header)
}

// again sends a request for the rest, from a little before the position, and
// reads up to the position.
func (s *Source) again() error {
	from := s.pos - int64(len(s.tail))
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-", from)}}
	if s.valid.strong != "" {
		header.Set("If-Range", s.valid.strong)
	}
	if err := s.send(header); err != nil {
		return err
	}
	at, err := s.checkRest(s.answer.resp, from)
	if err != nil {
		return err
	}
	var buf [tailSize]byte
	for at < from {
		n, err := s.answer.readFull(buf[:min(from-at, tailSize)])
		if err != nil {
			return err
		}
		at += int64(n)
	}
	n, err := s.answer.readFull(buf[:len(s.tail)])
	if err != nil {
		return err
	}
	if !bytes.Equal(buf[:n], s.tail) {
		return fmt.Errorf("%w: its bytes before %d differ", ErrChanged, s.pos)
	}
	return nil
}

// Close ends the download.
func (s *Source) Close() error {
	if s.err == nil {
		s.err = errClosed
	}
	s.limit.Stop()
	s.hangUp()
	s.cancel(nil)
	return nil
}
