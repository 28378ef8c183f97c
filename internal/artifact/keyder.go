package artifact

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// This file reads the two key types that are supported. crypto/x509 reads many
// more, and half a MiB of certificates with them.

// subjectPublicKeyInfo is a key with its type (source: RFC 5280, section
// 4.1.2.7).
type subjectPublicKeyInfo struct {
	Algorithm struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	PublicKey asn1.BitString
}

// rsaPublicKey is the content of a PKCS#1 key (source: RFC 8017, appendix A.1.1).
type rsaPublicKey struct {
	N *big.Int
	E int
}

// Types of keys, and the one curve (sources: RFC 8017, appendix A.1; RFC 5480,
// sections 2.1.1 and 2.1.1.1).
func oidRSA() asn1.ObjectIdentifier  { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} }
func oidEC() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} }
func oidP256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7} }

func parsePKIX(der []byte) (*Key, error) {
	var info subjectPublicKeyInfo
	if err := unmarshal(der, &info); err != nil {
		return nil, err
	}
	if info.PublicKey.BitLength%8 != 0 {
		return nil, errors.New("key is not a whole number of bytes")
	}
	parameters := info.Algorithm.Parameters.FullBytes
	switch {
	case info.Algorithm.Algorithm.Equal(oidRSA()):
		if len(parameters) != 0 && string(parameters) != string(asn1.NullBytes) {
			return nil, errors.New("RSA key with parameters")
		}
		return parsePKCS1(info.PublicKey.Bytes)
	case info.Algorithm.Algorithm.Equal(oidEC()):
		var curve asn1.ObjectIdentifier
		if err := unmarshal(parameters, &curve); err != nil {
			return nil, fmt.Errorf("ECDSA key: curve: %w", err)
		}
		if !curve.Equal(oidP256()) {
			return nil, fmt.Errorf("ECDSA key on curve %v, want P-256", curve)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), info.PublicKey.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ECDSA key: %w", err)
		}
		return &Key{ecdsa: public}, nil
	default:
		return nil, fmt.Errorf("key type %v, want RSA or ECDSA", info.Algorithm.Algorithm)
	}
}

func parsePKCS1(der []byte) (*Key, error) {
	var public rsaPublicKey
	if err := unmarshal(der, &public); err != nil {
		return nil, err
	}
	if public.N.Sign() <= 0 || public.E < 3 || public.E%2 == 0 || public.E > 1<<31-1 {
		return nil, errors.New("RSA key with an impossible modulus or exponent")
	}
	if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("RSA key of %d bits, want %d to %d", bits, minRSABits, maxRSABits)
	}
	return &Key{rsa: &rsa.PublicKey{N: public.N, E: public.E}}, nil
}

// unmarshal decodes one value that must be all of der.
func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = errors.New("asn1: bytes behind the key")
	}
	return err
}
