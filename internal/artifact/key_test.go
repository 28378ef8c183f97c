package artifact

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/usb-updater/usb-updater/internal/artifact/artifacttest"
)

// signingKeys are made once: RSA keys take their time.
type signingKeys struct {
	rsa, rsa2   *rsa.PrivateKey
	ecdsa, p384 *ecdsa.PrivateKey
}

var testKeys = sync.OnceValue(func() (k signingKeys) {
	var errs [4]error
	k.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	k.rsa2, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	k.ecdsa, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, errs[3] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return k
})

func pkix(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func mustParseKey(t *testing.T, name string, public crypto.PublicKey) *Key {
	t.Helper()
	k, err := ParseKey(name, pkix(t, public))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseKey(t *testing.T) {
	keys := testKeys()
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 2046, 1), E: 65537}
	for _, tt := range []struct {
		name string
		text []byte
		want string // part of the error, "" if it is good
	}{
		{"rsa", pkix(t, &keys.rsa.PublicKey), ""},
		{"ecdsa", pkix(t, &keys.ecdsa.PublicKey), ""},
		{"text before", append([]byte("my key\n"), pkix(t, &keys.ecdsa.PublicKey)...), ""},
		{"pkcs1", pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&keys.rsa.PublicKey)}), ""},
		{"empty", nil, "no PEM block"},
		{"garbage", []byte("-----BEGIN PUBLIC KEY-----\nbm90IGEga2V5\n-----END PUBLIC KEY-----\n"), "asn1"},
		{"private key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(keys.rsa)}), "want a public key"},
		{"small rsa", pkix(t, small), "RSA key of 2047 bits"},
		{"other curve", pkix(t, &keys.p384.PublicKey), "want P-256"},
		{"ed25519", pkix(t, edPublic), "want RSA or ECDSA"},
		{"long", make([]byte, maxKeySize+1), "limit"},
	} {
		k, err := ParseKey(tt.name, tt.text)
		switch {
		case tt.want == "":
			if err != nil || k.Name() != tt.name {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err == nil || k != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.name):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// signed returns a hook for parts that puts sig, base64-encoded, into
// manifest.sig.
func signed(sig func(digest []byte) ([]byte, error)) func([]byte) []byte {
	return func(manifest []byte) []byte {
		digest := sha256.Sum256(manifest)
		b, err := sig(digest[:])
		if err != nil {
			panic(err)
		}
		return base64.StdEncoding.AppendEncode(nil, b)
	}
}

func signRSA(digest []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(nil, testKeys().rsa, crypto.SHA256, digest)
}

func signDER(digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, testKeys().ecdsa, digest)
}

func signRaw(digest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, testKeys().ecdsa, digest)
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
}

func TestSignature(t *testing.T) {
	keys := testKeys()
	rsaKey := mustParseKey(t, "rsa", &keys.rsa.PublicKey)
	rsaOther := mustParseKey(t, "other", &keys.rsa2.PublicKey)
	ecKey := mustParseKey(t, "ec", &keys.ecdsa.PublicKey)

	for _, tt := range []struct {
		name string
		sign func([]byte) []byte
		keys []*Key
		want string // name of the key
	}{
		{"rsa", signed(signRSA), []*Key{rsaKey}, "rsa"},
		{"ecdsa raw", signed(signRaw), []*Key{ecKey}, "ec"},
		{"ecdsa DER", signed(signDER), []*Key{ecKey}, "ec"},
		{"third key", signed(signRSA), []*Key{ecKey, rsaOther, rsaKey}, "rsa"},
		{"no key configured", signed(signRSA), nil, ""},
		{"wrapped base64", func(m []byte) []byte {
			b := signed(signRSA)(m)
			return append(append(append(b[:76:76], '\r', '\n'), b[76:]...), '\n')
		}, []*Key{rsaKey}, "rsa"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := rootfsParts()
			p.sign = tt.sign
			h := mustRead(t, p.build(), Options{Keys: tt.keys}).header
			if !h.Signed || h.VerifiedBy != tt.want {
				t.Errorf("signed %v, verified by %q, want %q", h.Signed, h.VerifiedBy, tt.want)
			}
		})
	}
	if h := mustRead(t, rootfsParts().build(), Options{}).header; h.Signed || h.VerifiedBy != "" {
		t.Errorf("unsigned artifact: signed %v, verified by %q", h.Signed, h.VerifiedBy)
	}
}

func TestDamageSignature(t *testing.T) {
	keys := testKeys()
	good := []*Key{mustParseKey(t, "rsa", &keys.rsa.PublicKey), mustParseKey(t, "ec", &keys.ecdsa.PublicKey)}
	sign := func(f func([]byte) []byte) func(*parts) { return func(p *parts) { p.sign = f } }
	fixed := func(s string) func(*parts) { return sign(func([]byte) []byte { return []byte(s) }) }
	der := func(r, s *big.Int) func(*parts) {
		return sign(signed(func([]byte) ([]byte, error) { return asn1.Marshal(struct{ R, S *big.Int }{r, s}) }))
	}
	const bad = "does not verify"
	runDamage(t, []damage{
		{name: "unsigned", spoil: func(*parts) {}, kind: Signature, want: "expecting signed artifact, but no signature file found"},
		{name: "empty", spoil: fixed(""), kind: Signature, want: bad},
		{name: "not base64", spoil: fixed("!!!!"), kind: Signature, want: "not base64"},
		{name: "only padding", spoil: fixed("===="), kind: Signature, want: "not base64"},
		{name: "other base64 of the same bytes", spoil: sign(func(m []byte) []byte {
			b := signed(signRaw)(m) // 64 bytes: four bits of the last digit are unused
			b[len(b)-3]++
			return b
		}), kind: Signature, want: "not base64"},
		{name: "long", spoil: fixed(strings.Repeat("A", maxSignatureSize+4)), kind: Limit, want: "limit 8192"},
		{name: "other key", spoil: sign(signed(func(d []byte) ([]byte, error) {
			return rsa.SignPKCS1v15(nil, keys.rsa2, crypto.SHA256, d)
		})), kind: Signature, want: bad},
		{name: "other message", spoil: sign(func([]byte) []byte { return signed(signRSA)([]byte("other")) }), kind: Signature, want: bad},
		{name: "PSS", spoil: sign(signed(func(d []byte) ([]byte, error) {
			return rsa.SignPSS(rand.Reader, keys.rsa, crypto.SHA256, d, nil)
		})), kind: Signature, want: bad},
		{name: "zeros", spoil: sign(signed(func([]byte) ([]byte, error) { return make([]byte, rawECDSASize), nil })), kind: Signature, want: bad},
		{name: "DER zeros", spoil: der(new(big.Int), new(big.Int)), kind: Signature, want: bad},
		{name: "DER negative", spoil: der(big.NewInt(-1), big.NewInt(-1)), kind: Signature, want: bad},
		{name: "DER empty", spoil: fixed("MAA="), kind: Signature, want: bad},
		{name: "DER trailing byte", spoil: sign(signed(func(d []byte) ([]byte, error) {
			b, err := signDER(d)
			return append(b, 0), err
		})), kind: Signature, want: bad},
		{name: "manifest changed after signing", spoil: func(p *parts) {
			p.sign = signed(signRSA)
			p.outer = func(l []entry) []entry {
				lines := bytes.SplitAfter(l[1].data, []byte("\n"))
				l[1].data = bytes.Join([][]byte{lines[1], lines[0], lines[2]}, nil)
				return l
			}
		}, kind: Signature, want: bad},
	}, Options{Keys: good})

	// Without keys a signature must still be one.
	runDamage(t, []damage{{name: "no keys, not base64", spoil: fixed("!"), kind: Signature, want: "not base64"}}, Options{})
	// Keys that nobody parsed switch nothing off.
	p := rootfsParts()
	p.sign = signed(signRSA)
	for _, k := range []*Key{nil, {}} {
		if res := readAll(t.Context(), bytes.NewReader(p.build()), Options{Keys: []*Key{k}}); kindOf(res.err) != Signature {
			t.Errorf("key %v: %v", k, res.err)
		}
	}
}

// TestSigner reads what artifacttest signs.
func TestSigner(t *testing.T) {
	keys := testKeys()
	for name, signer := range map[string]crypto.Signer{"rsa": keys.rsa, "ec": keys.ecdsa} {
		b := written(t, artifacttest.Spec{
			Name: "rel", Signer: signer, Version: 2, Compression: "zstd",
			Files: []artifacttest.File{artifacttest.Bytes("f", payload)},
		})
		h := mustRead(t, b, Options{Keys: []*Key{mustParseKey(t, name, signer.Public())}}).header
		if h.VerifiedBy != name {
			t.Errorf("verified by %q, want %q", h.VerifiedBy, name)
		}
	}
}
