package httpsource

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificate is one that a test made.
type certificate struct {
	cert     *x509.Certificate
	key      *ecdsa.PrivateKey
	certFile string
	keyFile  string
}

func (c certificate) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}
}

// issue makes a certificate for 127.0.0.1, signed by issuer, or by itself if
// that is nil.
func issue(t *testing.T, issuer *certificate, change func(*x509.Certificate)) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.certFile = writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	c.keyFile = writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	return c
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	c.Subject.CommonName = "test authority"
	c.IPAddresses = nil
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func serveTLS(t *testing.T, config *tls.Config, steps ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(s.handler(steps))
	s.TLS = config
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	want := content(10000)
	ca := issue(t, nil, authority)
	good := issue(t, &ca, nil)
	own := issue(t, nil, nil)
	otherCA := issue(t, nil, authority)
	otherName := issue(t, &ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.invalid"} })
	expired := issue(t, &ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := issue(t, &ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	tests := []struct {
		name   string
		server certificate
		max    uint16 // TLS version
		trust  Trust
		want   error
		text   string // "": works
	}{
		{"authority", good, 0, Trust{ServerCertificate: ca.certFile}, nil, ""},
		{"the server's own", own, 0, Trust{ServerCertificate: own.certFile}, nil, ""},
		{"TLS 1.2", good, tls.VersionTLS12, Trust{ServerCertificate: ca.certFile}, nil, ""},
		{"TLS 1.1", good, tls.VersionTLS11, Trust{ServerCertificate: ca.certFile}, nil, "protocol version"},
		{"TLS 1.1 unverified", good, tls.VersionTLS11, Trust{SkipVerify: true}, nil, "protocol version"},
		{"nothing trusted", good, 0, Trust{}, ErrUntrusted, "certificate"},
		{"another authority", good, 0, Trust{ServerCertificate: otherCA.certFile}, ErrUntrusted, "certificate"},
		{"another name", otherName, 0, Trust{ServerCertificate: ca.certFile}, ErrWrongName, "certificate"},
		{"expired", expired, 0, Trust{ServerCertificate: ca.certFile}, ErrExpired, "expired"},
		{"not valid yet", early, 0, Trust{ServerCertificate: ca.certFile}, ErrExpired, "not valid yet"},
		{"not verified", expired, 0, Trust{SkipVerify: true}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts, slept := test()
			opts.Trust = tt.trust
			s := serveTLS(t, &tls.Config{
				Certificates: []tls.Certificate{tt.server.pair()},
				MinVersion:   tls.VersionTLS10, MaxVersion: tt.max,
			}, cut(5000, file(want)), file(want))
			got, err := read(t, s.URL, opts)
			if tt.text == "" {
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes, error %v", len(got), err)
				}
				return
			}
			wantError(t, err, tt.want, tt.text)
			if len(got) != 0 || len(*slept) != 0 {
				t.Errorf("got %d bytes, slept %v, want neither", len(got), *slept)
			}
		})
	}
}

// TestTrustFiles: a file that cannot be used is an error, also for a server
// that needs none.
func TestTrustFiles(t *testing.T) {
	a, b := issue(t, nil, nil), issue(t, nil, nil)
	text := writeFile(t, "not PEM")
	missing := filepath.Join(t.TempDir(), "none.pem")
	locked := writeFile(t, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
	large := writeFile(t, string(make([]byte, maxCertFile+1)))
	for _, tt := range []struct {
		name  string
		trust Trust
		text  string
	}{
		{"missing", Trust{ServerCertificate: missing}, missing},
		{"missing, not verified", Trust{ServerCertificate: missing, SkipVerify: true}, missing},
		{"directory", Trust{ServerCertificate: t.TempDir()}, "is a directory"},
		{"no PEM", Trust{ServerCertificate: text}, "no certificate"},
		{"a key", Trust{ServerCertificate: a.keyFile}, "no certificate"},
		{"large", Trust{ServerCertificate: large}, "larger than"},
		{"no client key", Trust{ClientCertificate: a.certFile}, "only one is given"},
		{"no client certificate", Trust{ClientKey: a.keyFile}, "only one is given"},
		{"client certificate missing", Trust{ClientCertificate: missing, ClientKey: a.keyFile}, missing},
		{"client key missing", Trust{ClientCertificate: a.certFile, ClientKey: missing}, missing},
		{"another client key", Trust{ClientCertificate: a.certFile, ClientKey: b.keyFile}, "does not match"},
		{"passphrase", Trust{ClientCertificate: a.certFile, ClientKey: locked}, "passphrase"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts, _ := test()
			opts.Trust = tt.trust
			s := serve(t, file(nil))
			_, err := read(t, s.URL, opts)
			wantError(t, err, nil, tt.text)
			if n := len(s.headers("Range")); n != 0 {
				t.Errorf("%d requests, want none", n)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	want := content(10000)
	ca := issue(t, nil, authority)
	srv := issue(t, &ca, nil)
	us := issue(t, &ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{srv.pair()}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
	opts, _ := test()
	opts.Retries = 1
	opts.Trust = Trust{ServerCertificate: ca.certFile, ClientCertificate: us.certFile, ClientKey: us.keyFile}
	got, err := read(t, serveTLS(t, config, cut(5000, file(want)), file(want)).URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	opts.Trust.ClientCertificate, opts.Trust.ClientKey = "", ""
	_, err = read(t, serveTLS(t, config, file(want)).URL, opts)
	wantError(t, err, nil, "certificate required")
}

// TestNoDowngrade: what began verified must not go on in the clear.
func TestNoDowngrade(t *testing.T) {
	want := content(1000)
	own := issue(t, nil, nil)
	config := &tls.Config{Certificates: []tls.Certificate{own.pair()}, MinVersion: tls.VersionTLS12}
	open := serve(t, file(want))
	secure := serveTLS(t, config, file(want))
	to := func(url string) http.HandlerFunc { return raw(302, nil, "Location: "+url) }
	opts, _ := test()
	opts.Trust.ServerCertificate = own.certFile

	_, err := read(t, serveTLS(t, config, to(open.URL)).URL, opts)
	wantError(t, err, ErrRedirect, "from https to http")
	if n := len(open.headers("Range")); n != 0 {
		t.Errorf("%d requests in the clear, want none", n)
	}
	got, err := read(t, serve(t, to(secure.URL)).URL, opts)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("from http to https: got %d bytes, error %v", len(got), err)
	}
}

func TestPlainServer(t *testing.T) {
	opts, _ := test()
	s := serve(t, file(nil))
	_, err := read(t, "https"+s.URL[len("http"):], opts)
	wantError(t, err, nil, "HTTP response to HTTPS client")
}
