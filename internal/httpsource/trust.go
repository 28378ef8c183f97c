package httpsource

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxCertFile bounds a file of certificates or of a key, in bytes. The bundle
// of all public authorities has about 250 KiB.
const maxCertFile = 4 << 20

// Trust says which servers are trusted, and who we are to them. Files are PEM.
// One that is named and cannot be used is an error, never less verification.
type Trust struct {
	// ServerCertificate is a file of certificates that are trusted besides the
	// system's: of authorities, or of servers themselves. "" is none.
	ServerCertificate string
	// SkipVerify turns the verification of servers off.
	SkipVerify bool
	// ClientCertificate and ClientKey are shown to servers that ask for them.
	// They come together or not at all.
	ClientCertificate, ClientKey string
}

func (t Trust) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipVerify}
	if t.ServerCertificate != "" {
		b, err := readPEM(t.ServerCertificate)
		if err != nil {
			return nil, fmt.Errorf("server certificate: %w", err)
		}
		// Without a pool of the system, the file alone is trusted.
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("server certificate %s: holds no certificate in PEM form", t.ServerCertificate)
		}
	}
	switch {
	case t.ClientCertificate == "" && t.ClientKey == "":
		return c, nil
	case t.ClientCertificate == "" || t.ClientKey == "":
		return nil, errors.New("client certificate: certificate and key are needed, only one is given")
	}
	cert, err := readPEM(t.ClientCertificate)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	key, err := readPEM(t.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("client key: %w", err)
	}
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return nil, fmt.Errorf("client key %s: is protected by a passphrase, which is not supported", t.ClientKey)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", t.ClientCertificate, t.ClientKey, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxCertFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCertFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxCertFile)
	}
	return b, nil
}
