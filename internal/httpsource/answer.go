package httpsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is the server's answer to one request.
type answer struct {
	resp   *http.Response
	ctx    context.Context // of the request; its end ends a read that waits
	cancel context.CancelCauseFunc
	watch  func() timer
}

// send sends a request with the given headers, and returns when the answer
// begins.
func (s *Source) send(header http.Header) error {
	a := &answer{}
	a.ctx, a.cancel = context.WithCancelCause(s.ctx)
	a.watch = func() timer { return s.opts.afterFunc(s.opts.Idle, func() { a.cancel(ErrIdle) }) }
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		a.cancel(nil)
		return plain(err)
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "usb-updater")
	idle := a.watch()
	a.resp, err = s.client.Do(req) //nolint:bodyclose // hangUp closes it
	idle.Stop()
	if err != nil {
		err = a.why(s.blameProxy(err))
		a.cancel(nil)
		return err
	}
	s.answer = a
	return nil
}

// read reads a part of the body. It waits no longer than the idle limit: the
// time in which the caller does something else does not count.
func (a *answer) read(p []byte) (int, error) {
	idle := a.watch()
	n, err := a.resp.Body.Read(p)
	idle.Stop()
	if err != nil {
		err = a.why(err)
	}
	return n, err
}

// why returns the reason of a failure. That of a request that was ended is why
// it was ended. The end of the data stays as it is.
func (a *answer) why(err error) error {
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case err == io.EOF: //nolint:errorlint // readers return it bare; a wrapped one is a failure
		return err
	}
	return plain(err)
}

// chunked reports whether the body tells its own end.
func (a *answer) chunked() bool { return slices.Contains(a.resp.TransferEncoding, "chunked") }

// readFull fills p.
func (a *answer) readFull(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := a.read(p[n:])
		n += m
		if m > 0 {
			continue // an error comes again with the next read
		}
		if errors.Is(err, io.EOF) {
			err = ErrBroken
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// hangUp ends the current answer, if there is one.
func (s *Source) hangUp() {
	if s.answer == nil {
		return
	}
	s.answer.cancel(nil)
	_ = s.answer.resp.Body.Close() // it was only read
	s.answer = nil
}

// checkRest says at which offset of the file an answer to a request for the
// bytes from an offset begins, which may be earlier. Every doubt whether the
// file is the one that was begun is an error.
func (s *Source) checkRest(resp *http.Response, from int64) (int64, error) {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, s.refusedRange(resp.Header, from)
	default:
		return 0, statusError(resp)
	}
	if err := checkEncoding(resp.Header); err != nil {
		return 0, err
	}
	valid := validatorOf(resp.Header)
	if valid.differs(s.valid) {
		return 0, fmt.Errorf("%w: it has another ETag or date", ErrChanged)
	}
	if resp.StatusCode == http.StatusOK {
		if err := s.checkTotal(resp.ContentLength); err != nil {
			return 0, err
		}
		// With from = 0 all that was read is compared, which is proof enough.
		if from > 0 && !valid.same(s.valid) {
			return 0, fmt.Errorf("%w: it sends the whole file, and no ETag that proves it to be the same", ErrNoResume)
		}
		// Without a length now, the one that was told before holds.
		if s.size < 0 {
			s.size = resp.ContentLength
		}
		return 0, nil
	}
	r, err := parseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoResume, err)
	}
	if err := s.checkTotal(r.total); err != nil {
		return 0, err
	}
	switch {
	case r.first > from:
		return 0, fmt.Errorf("%w: it sends bytes from %d, wanted from %d", ErrNoResume, r.first, from)
	case resp.ContentLength >= 0 && resp.ContentLength != r.last-r.first+1:
		return 0, fmt.Errorf("%w: Content-Length %d does not fit bytes %d to %d", ErrNoResume, resp.ContentLength, r.first, r.last)
	}
	if s.size < 0 {
		s.size = r.total
	}
	if s.size < 0 {
		// The end of the range could not be told from the end of the file.
		return 0, fmt.Errorf("%w: it does not tell the length of the file", ErrNoResume)
	}
	return r.first, nil
}

// checkTotal compares the length of the file that an answer tells, -1 if it
// tells none, with what is known of it. An answer may be framed otherwise than
// the one before.
func (s *Source) checkTotal(total int64) error {
	switch {
	case total < 0:
		return nil
	case total < s.pos:
		return fmt.Errorf("%w: it has become shorter than %d bytes", ErrChanged, s.pos)
	case s.size >= 0 && total != s.size:
		return fmt.Errorf("%w: its length was %d bytes and is %d", ErrChanged, s.size, total)
	}
	return nil
}

// refusedRange says what an answer means that refuses the range from an offset:
// that the file changed, if its length says so (source: RFC 9110, section
// 15.5.17).
func (s *Source) refusedRange(h http.Header, from int64) error {
	if total, ok := parseUnsatisfied(h.Get("Content-Range")); ok {
		if err := s.checkTotal(total); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: it refuses the range from byte %d", ErrNoResume, from)
}

// checkEncoding refuses what would have to be decoded first: offsets count the
// bytes that the server sends.
func checkEncoding(h http.Header) error {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return fmt.Errorf("%w: %.64q", errEncoding, e)
	}
	return nil
}

// validator is what a server tells of a version of a file.
type validator struct {
	etag, modified string
	// strong is the one of them that If-Range may be asked with: it changes
	// whenever a byte does. "" if neither is.
	strong string
}

func validatorOf(h http.Header) validator {
	v := validator{etag: h.Get("ETag"), modified: h.Get("Last-Modified")}
	if len(v.etag) > maxValidator {
		v.etag = ""
	}
	if len(v.modified) > maxValidator {
		v.modified = ""
	}
	switch {
	case len(v.etag) > 2 && v.etag[0] == '"' && v.etag[len(v.etag)-1] == '"':
		v.strong = v.etag
	case v.etag == "" && settled(v.modified, h.Get("Date")):
		v.strong = v.modified
	}
	return v
}

// settled reports whether a file that was modified at one time could not have
// been modified once more in the same second when the server told so (source:
// RFC 9110, section 8.8.2.2).
func settled(modified, date string) bool {
	m, err := http.ParseTime(modified)
	if err != nil {
		return false
	}
	d, err := http.ParseTime(date)
	return err == nil && d.Sub(m) >= time.Second
}

// differs reports whether two answers are of different versions. An ETag
// decides alone: a copy may have another date.
func (v validator) differs(w validator) bool {
	if v.etag != "" && w.etag != "" {
		return v.etag != w.etag
	}
	return v.modified != "" && w.modified != "" && v.modified != w.modified
}

// same reports whether two answers are provably of the same version.
func (v validator) same(w validator) bool { return v.strong != "" && v.strong == w.strong }

// contentRange is the header of that name. Offsets are in bytes, last is
// inclusive, total is -1 if unknown.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads "bytes FIRST-LAST/TOTAL" (source: RFC 9110, section
// 14.4).
func parseContentRange(v string) (contentRange, error) {
	bad := fmt.Errorf("Content-Range %.64q is not a range of bytes", v)
	unit, rest, _ := strings.Cut(v, " ")
	span, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 || !strings.EqualFold(unit, "bytes") {
		return contentRange{}, bad
	}
	r := contentRange{total: -1}
	fields := []struct {
		text string
		into *int64
	}{{first, &r.first}, {last, &r.last}, {total, &r.total}}
	if total == "*" {
		fields = fields[:2]
	}
	for _, f := range fields {
		n, err := strconv.ParseUint(f.text, 10, 63)
		if err != nil || f.text[0] == '+' {
			return contentRange{}, bad
		}
		*f.into = int64(n)
	}
	if r.last < r.first || r.total >= 0 && r.last >= r.total {
		return contentRange{}, bad
	}
	return r, nil
}

// parseUnsatisfied reads "bytes */TOTAL", which goes with the refusal of a range.
func parseUnsatisfied(v string) (int64, bool) {
	unit, rest, _ := strings.Cut(v, " ")
	total, ok := strings.CutPrefix(rest, "*/")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return 0, false
	}
	n, err := strconv.ParseUint(total, 10, 63)
	return int64(n), err == nil
}
