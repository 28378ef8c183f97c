package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/usb-updater/usb-updater/internal/device"
	"github.com/usb-updater/usb-updater/internal/httpsource"
)

// isURL tells a URL from the name of a file.
func isURL(name string) bool {
	scheme, _, ok := strings.Cut(name, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// openURL begins a download. What mender.conf says of servers is checked here,
// so that it cannot stop an install from a file.
func (p *program) openURL(ctx context.Context, d *device.Device, rawURL string) (source, error) {
	if err := d.Mender.HttpsClient.Check(); err != nil {
		return source{}, err
	}
	proxy, err := environmentProxy()
	if err != nil {
		return source{}, err
	}
	u, err := httpsource.Parse(rawURL)
	if err != nil {
		return source{}, err
	}
	p.log.Info().Msgf("Performing remote update from: [%s].", httpsource.Redact(u))
	trust := p.trust(d)
	if trust.SkipVerify {
		p.log.Warn().Msg("servers are not verified: whoever is on the way to them can replace the artifact")
	}
	s, err := httpsource.Open(ctx, rawURL, httpsource.Options{
		Trust:   trust,
		Proxy:   proxy,
		Retries: d.Mender.RetryDownloadCount,
		Report: func(r httpsource.Retry) {
			p.log.Warn().Msgf("download at byte %d: %v: attempt %d of %d to resume in %v", r.Offset, r.Err, r.Attempt, r.Of, r.Wait.Round(time.Second/10))
		},
	})
	if err != nil {
		return source{}, err
	}
	return source{s, max(s.Size(), 0)}, nil
}

// trust puts the options of the command line over the configuration.
func (p *program) trust(d *device.Device) httpsource.Trust {
	t := httpsource.Trust{ServerCertificate: p.trustedCerts, SkipVerify: p.skipVerify || d.Mender.SkipVerify}
	if t.ServerCertificate == "" && d.Mender.ServerCertificate != "" {
		t.ServerCertificate = d.Path(d.Mender.ServerCertificate)
	}
	if c := d.Mender.HttpsClient; c.Certificate != "" {
		t.ClientCertificate, t.ClientKey = d.Path(c.Certificate), d.Path(c.Key)
	}
	return t
}

// environmentProxy returns the proxies that http_proxy, https_proxy and
// no_proxy name. The last is a list with commas, as Go and most programs have
// it, or with spaces, as mender-update 5 wants it. A variable that is wrong is an
// error of the request that it is for.
func environmentProxy() (func(*http.Request) (*url.URL, error), error) {
	set, wrong := map[string]string{}, map[string]error{}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if list := os.Getenv(name); strings.Contains(list, " ") {
			set[name] = strings.Join(strings.Fields(strings.ReplaceAll(list, ",", " ")), ",")
		}
	}
	for _, scheme := range []string{"http", "https"} {
		name := scheme + "_proxy"
		if upper := strings.ToUpper(name); os.Getenv(upper) != "" {
			name = upper // it goes first
		}
		if v := os.Getenv(name); v != "" && !isProxy(v) {
			// Go would reach the server directly, or ask some other host. Which
			// requests need no proxy, it still can tell.
			set[name] = "http://wrong.invalid"
			wrong[scheme] = fmt.Errorf("%s is not the address of a proxy", name) // without it: it may hold a password
		}
	}
	if err := withEnvironment(set, func() {
		// The first call reads the environment for all that follow.
		_, _ = http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "http", Host: "localhost"}})
	}); err != nil {
		return nil, err
	}
	return func(r *http.Request) (*url.URL, error) {
		u, err := http.ProxyFromEnvironment(r)
		if u != nil && wrong[r.URL.Scheme] != nil {
			return nil, wrong[r.URL.Scheme]
		}
		return u, err
	}, nil
}

// isProxy reports whether a variable holds the URL of a proxy, or its host and
// port.
func isProxy(v string) bool {
	if !strings.Contains(v, "://") {
		v = "http://" + v
	}
	u, err := url.Parse(v)
	if err != nil || u.Hostname() == "" {
		return false
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return true
	}
	return false
}

// withEnvironment runs do with other values of variables. State scripts get them
// as they were.
func withEnvironment(set map[string]string, do func()) error {
	was := map[string]string{}
	var err error
	for name, value := range set {
		was[name] = os.Getenv(name)
		err = errors.Join(err, os.Setenv(name, value))
	}
	if err == nil {
		do()
	}
	for name, value := range was {
		err = errors.Join(err, os.Setenv(name, value))
	}
	return err
}
