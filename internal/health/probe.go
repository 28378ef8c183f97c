package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxResponse is how much of a response is read, in bytes.
const maxResponse = 8 << 10

// probes returns the checks that connect. Addresses are numbers, so that no
// name service can send them elsewhere.
func probes(tcp, http []string) ([]check, error) {
	var checks []check
	for _, address := range tcp {
		p := connection{title: "tcp " + address, network: "tcp", address: address}
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			p.network, p.address = "unix", path
			if !filepath.IsAbs(path) {
				return nil, fmt.Errorf("\"Health.TCP\" has %s: want an absolute path behind \"unix:\"", quote(address))
			}
		} else if err := loopback(address); err != nil {
			return nil, fmt.Errorf("\"Health.TCP\" has %s: %w", quote(address), err)
		}
		checks = append(checks, p)
	}
	for _, raw := range http {
		p, err := parsePage(raw)
		if err != nil {
			return nil, fmt.Errorf("\"Health.HTTP\" has %s: %w", quote(raw), err)
		}
		checks = append(checks, p)
	}
	return checks, nil
}

var errNotLoopback = errors.New("want a loopback address with a port, as in 127.0.0.1:80 or [::1]:80")

func loopback(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().IsLoopback() || ap.Addr().Zone() != "" || ap.Port() == 0 {
		return errNotLoopback
	}
	return nil
}

// connection is a socket that must take a connection.
type connection struct {
	title, network, address string
}

func (c connection) name() string { return c.title }

func (c connection) run(ctx context.Context) verdict {
	conn, err := c.dial(ctx)
	if err != nil {
		return wrong("%v", err)
	}
	defer conn.Close() // nothing was written
	return verdict{}
}

func (c connection) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, c.network, c.address)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err // the address is in the check's name
	}
	return conn, err
}

// page is a page that a local server must return.
type page struct {
	connection
	host, target string
}

func parsePage(raw string) (page, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return page{}, errors.New("is not a URL")
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "80")
	}
	switch {
	case u.Scheme != "http":
		return page{}, errors.New("want http://")
	case u.User != nil || u.Fragment != "":
		return page{}, errors.New("want no user name and no fragment")
	}
	if err := loopback(address); err != nil {
		return page{}, err
	}
	return page{connection{"http " + raw, "tcp", address}, u.Host, u.RequestURI()}, nil
}

// run asks for the page in HTTP/1.0 (source: RFC 1945): the response then ends
// with the connection and is neither chunked nor compressed. It is written
// here because an HTTP client would bring TLS, proxies and redirects along,
// which can lead away from the device.
func (p page) run(ctx context.Context) verdict {
	conn, err := p.dial(ctx)
	if err != nil {
		return wrong("%v", err)
	}
	defer conn.Close() // what was written is a question
	// A server that takes the connection and says nothing ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: usb-updater\r\nConnection: close\r\n\r\n", p.target, p.host); err != nil {
		return wrong("%v", opCause(err))
	}
	r := bufio.NewReader(io.LimitReader(conn, maxResponse))
	line, err := r.ReadString('\n')
	if line == "" && err != nil && !errors.Is(err, io.EOF) {
		return wrong("%v", opCause(err))
	}
	status, err := parseStatus(line)
	if err != nil {
		return wrong("%v", err)
	}
	if status >= 200 && status <= 299 {
		return verdict{} // what follows is not needed, and may never end
	}
	v := wrong("status %s", quote(strings.TrimSpace(line)))
	rest, _ := io.ReadAll(r) // as far as it comes: it only explains
	if _, body, ok := strings.Cut(strings.ReplaceAll(string(rest), "\r\n", "\n"), "\n\n"); ok {
		v.output = body[:min(len(body), maxOutput)]
	}
	return v
}

// parseStatus understands "HTTP/1.1 200 OK".
func parseStatus(line string) (int, error) {
	version, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.ParseUint(code, 10, 16)
	if err != nil || len(code) != 3 || !strings.HasPrefix(version, "HTTP/1.") {
		return 0, fmt.Errorf("the response is not HTTP: %s", quote(line))
	}
	return int(status), nil
}

func opCause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		return op.Err
	}
	return err
}
