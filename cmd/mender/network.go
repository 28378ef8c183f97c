package main

import (
	"context"
	"errors"
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
	if u, err := url.Parse(rawURL); err == nil { // otherwise Open says so
		p.log.Info().Msgf("Performing remote update from: [%s].", httpsource.Redact(u))
	}
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
// it, or with spaces, as mender-update 5 wants it.
func environmentProxy() (func(*http.Request) (*url.URL, error), error) {
	var undo []func() error
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		list, ok := os.LookupEnv(name)
		if !ok || !strings.Contains(list, " ") {
			continue
		}
		if err := os.Setenv(name, strings.Join(strings.Fields(strings.ReplaceAll(list, ",", " ")), ",")); err != nil {
			return nil, err
		}
		undo = append(undo, func() error { return os.Setenv(name, list) })
	}
	// The first call reads the environment for all that follow. State scripts
	// get the variables as they were.
	_, _ = http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "http", Host: "localhost"}})
	var err error
	for _, f := range undo {
		err = errors.Join(err, f())
	}
	return http.ProxyFromEnvironment, err
}
