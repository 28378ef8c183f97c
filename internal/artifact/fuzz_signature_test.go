package artifact

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
)

// FuzzSignature checks that nothing but a signature that was made for this very
// manifest is accepted. Nobody can forge one, so an accepted signature is one of
// a short list: RSA has one for each message; ECDSA has (r, s) and its mirror
// image (r, n-s), each raw or in DER.
func FuzzSignature(f *testing.F) {
	keys := testKeys()
	message := []byte("manifest\n")
	rsaSig, err := base64.StdEncoding.DecodeString(string(signed(signRSA)(message)))
	if err != nil {
		f.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(string(signed(signDER)(message)))
	if err != nil {
		f.Fatal(err)
	}
	genuine := append([][]byte{rsaSig}, ecdsaForms(f, der)...)
	for _, sig := range genuine {
		text := base64.StdEncoding.AppendEncode(nil, sig)
		f.Add(text, message)
		f.Add(text, []byte("manifest\n\n"))
		f.Add(text[:len(text)-4], message)
		f.Add(bytes.Join([][]byte{text[:40], text[40:]}, []byte("\n")), message)
		f.Add(base64.StdEncoding.AppendEncode(nil, append(bytes.Clone(sig), 0)), message)
	}
	for _, s := range []string{"", "====", "MAA=", "MAMCAQE=", "MAYCAQACAQA=", "MAYCAf8CAf8="} {
		f.Add([]byte(s), message)
	}
	parsed := []*Key{nil, {}, {rsa: &keys.rsa.PublicKey, name: "rsa"}, {ecdsa: &keys.ecdsa.PublicKey, name: "ec"}}
	f.Fuzz(func(t *testing.T, text, signedText []byte) {
		name, err := verifySignature(parsed, signedText, text)
		if err != nil {
			mustBeFault(t, err)
			if name != "" || kindOf(err) != Signature {
				t.Fatalf("key %q with %v error %v", name, kindOf(err), err)
			}
			return
		}
		sig, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil || name == "" || !bytes.Equal(signedText, message) {
			t.Fatalf("accepted for %q by key %q: %q", signedText, name, text)
		}
		for _, g := range genuine {
			if bytes.Equal(sig, g) {
				return
			}
		}
		t.Fatalf("a signature that nobody made was accepted: %x", sig)
	})
}

// ecdsaForms returns all forms of a signature that ECDSA cannot tell apart.
func ecdsaForms(f *testing.F, der []byte) [][]byte {
	f.Helper()
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		f.Fatal(err)
	}
	var forms [][]byte
	for range 2 {
		again, err := asn1.Marshal(sig)
		if err != nil {
			f.Fatal(err)
		}
		raw := make([]byte, rawECDSASize)
		sig.R.FillBytes(raw[:rawECDSASize/2])
		sig.S.FillBytes(raw[rawECDSASize/2:])
		forms = append(forms, again, raw)
		sig.S = new(big.Int).Sub(elliptic.P256().Params().N, sig.S)
	}
	return forms
}

// FuzzParseKey checks that a key that is accepted has an algorithm and a size
// that this package means to verify with.
func FuzzParseKey(f *testing.F) {
	keys := testKeys()
	for _, public := range []crypto.PublicKey{&keys.rsa.PublicKey, &keys.ecdsa.PublicKey, &keys.p384.PublicKey} {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("PUBLIC KEY", der)
	}
	f.Add("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&keys.rsa.PublicKey))
	f.Add("EC PRIVATE KEY", []byte{})
	f.Fuzz(func(t *testing.T, label string, der []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
		k, err := ParseKey("fuzz", text)
		if err != nil {
			if k != nil {
				t.Fatal("a key and an error")
			}
			return
		}
		switch {
		case k.rsa != nil && k.ecdsa == nil && k.rsa.N.BitLen() >= minRSABits:
		case k.ecdsa != nil && k.rsa == nil && k.ecdsa.Curve == elliptic.P256():
		default:
			t.Fatalf("accepted: %+v", k)
		}
		if k.verify([]byte("message"), make([]byte, rawECDSASize)) || k.verify([]byte("message"), nil) {
			t.Fatal("key verifies nothing")
		}
	})
}
