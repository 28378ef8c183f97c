package httpsource

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Errors that [Open] and [Source.Read] wrap.
var (
	// ErrChanged means that the file on the server is not the one that was
	// begun.
	ErrChanged = errors.New("the file changed on the server during the download")
	// ErrNoResume means that the server sends no rest of a file, or none that
	// is provably of the same file.
	ErrNoResume = errors.New("the server cannot resume a download")
	// ErrBroken means that a connection ended before the data did. It stands
	// for io.EOF and io.ErrUnexpectedEOF, which a reader of the stream would
	// take for the end of the file.
	ErrBroken = errors.New("the connection broke")
	// ErrNoLength means that the data ended where no artifact does, and that
	// nothing proves that the file does.
	ErrNoLength = errors.New("the data ended within the artifact, and the server told no length: the connection may have broken")
	ErrIdle     = errors.New("no data within the time limit")
	ErrTooSlow  = errors.New("not complete within the time limit")
	ErrRedirect = errors.New("redirect refused")
	// ErrUntrusted means that nothing trusted vouches for the server's
	// certificate.
	ErrUntrusted = errors.New("the server's certificate is not trusted")
	// ErrWrongName means that the certificate is for another host.
	ErrWrongName = errors.New("the server's certificate is for another name")
	// ErrExpired also covers a certificate from the future: the clock of the
	// device may be wrong.
	ErrExpired = errors.New("the server's certificate has expired or is not valid yet, by the clock of this device")

	errProxy    = errors.New("no usable proxy")
	errEncoding = errors.New("the server sends the file encoded")
	errLocation = errors.New("the server redirects to something that is not a valid URL")
	errClosed   = errors.New("download is closed")
)

// StatusError is an answer with a status that is not the file.
type StatusError struct {
	Code int
	wait time.Duration // that the server asks for, 0 if it does not
}

func statusError(resp *http.Response) *StatusError {
	e := &StatusError{Code: resp.StatusCode}
	// The form with a date is left out: the clock of a device may be wrong.
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		e.wait = time.Duration(n) * time.Second
	}
	return e
}

// Error names the status, and for common ones what it means here.
func (e *StatusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("status %d %s", e.Code, http.StatusText(e.Code)))
	switch e.Code {
	case http.StatusUnauthorized:
		return text + ": user and password are missing or not accepted"
	case http.StatusForbidden:
		return text + ": the server does not give the file to this device"
	case http.StatusNotFound:
		return text + ": there is no such file on the server"
	case http.StatusProxyAuthRequired:
		return text + ": user and password for the proxy are missing or not accepted"
	}
	return text
}

// temporary reports whether the same request may be answered otherwise later.
func (e *StatusError) temporary() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Code >= http.StatusInternalServerError
}

// proxyStatusError is a proxy's refusal to connect to the server.
type proxyStatusError struct {
	host string // of the proxy, with its port
	code int
}

func (e *proxyStatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the proxy %s answers: %d %s", e.host, e.code, http.StatusText(e.code)))
}

// proxyError is a failure to reach a proxy.
type proxyError struct {
	host  string // of the proxy, with its port
	cause error
}

func (e *proxyError) Error() string { return fmt.Sprintf("proxy %s: %v", e.host, e.cause) }
func (e *proxyError) Unwrap() error { return e.cause }

// blameProxy puts the name of the proxy before what it, and not the server,
// failed with.
func (s *Source) blameProxy(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "proxyconnect" {
		return err
	}
	cause := op.Err
	if certificateFault(cause) == nil { // those words are about the server
		cause = plain(cause)
	}
	return &proxyError{s.proxy, cause}
}

// isFinal reports whether an attempt failed with something that another one
// cannot change, or must not.
func isFinal(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return !status.temporary()
	}
	if refusal, ok := errors.AsType[*proxyStatusError](err); ok {
		return refusal.code == http.StatusForbidden || refusal.code == http.StatusProxyAuthRequired
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	for _, final := range []error{ErrChanged, ErrNoResume, ErrRedirect, errProxy, errEncoding} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// describe puts the URL and the position before an error.
func (s *Source) describe(err error) error {
	where := Redact(s.url)
	if s.pos > 0 {
		where = fmt.Sprintf("%s: at byte %d", where, s.pos)
	}
	return fmt.Errorf("download %s: %w", where, err)
}

// Redact returns a URL for people: without user, password, query and fragment,
// which may be secret, and cut to 256 bytes.
func Redact(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return cutText(shown.String())
}

// maxText bounds foreign text in errors, in bytes.
const maxText = 256

func cutText(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// plainError is an error in other words.
type plainError struct {
	text  string
	cause error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.cause }

// plain returns what a request or a read failed with in clear words, without
// what may be secret in it, and not longer than maxText. It still wraps err.
func plain(err error) error {
	inner := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		inner = u.Err // without the URL, whose query may be a token
	}
	if p, ok := errors.AsType[*proxyError](err); ok {
		return &plainError{cutText(p.Error()), p}
	}
	text := inner.Error()
	sentinel := certificateFault(err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrBroken
	case sentinel != nil:
		text = fmt.Sprintf("%v: %s", sentinel, text)
		err = errors.Join(sentinel, err)
	case isDNS && dns.IsNotFound:
		text = fmt.Sprintf("host %.64q is not known to the name servers", dns.Name)
	case strings.Contains(text, "Location header"): // it quotes a URL
		return errLocation
	}
	return &plainError{cutText(text), err}
}

// certificateFault returns the sentinel for what is wrong with the server's
// certificate, nil if nothing is.
func certificateFault(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ErrUntrusted
	}
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return ErrUntrusted
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return ErrWrongName
	}
	if c, ok := errors.AsType[x509.CertificateInvalidError](err); ok && c.Reason == x509.Expired {
		return ErrExpired
	}
	return nil
}
