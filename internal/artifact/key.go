package artifact

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

const (
	minRSABits = 2048
	maxRSABits = 16384
	// rawECDSASize is the length of r and s, 32 bytes each, big-endian.
	rawECDSASize = 64
)

// Key is a public key that artifacts may be signed with. Only [ParseKey] makes
// usable ones; the zero value verifies nothing.
type Key struct {
	name  string
	rsa   *rsa.PublicKey
	ecdsa *ecdsa.PublicKey
}

// ParseKey reads the first block of a PEM file: PUBLIC KEY (PKIX) or RSA PUBLIC
// KEY (PKCS#1), with an RSA key of 2048 bits or more or an ECDSA key on P-256.
// Anything else is an error, and the caller must then refuse to install: going
// on without the key would switch verification off. The name says in
// [Header.VerifiedBy] which key it was.
// (source: mender-artifact, signer.go; mender 5.x, crypto.cpp)
func ParseKey(name string, text []byte) (*Key, error) {
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("parse key %s: %w", quote(name), err)
	}
	k.name = name
	return k, nil
}

func parseKey(text []byte) (*Key, error) {
	if len(text) > maxKeySize {
		return nil, fmt.Errorf("%d bytes, limit %d", len(text), maxKeySize)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	switch block.Type {
	case "PUBLIC KEY":
		return parsePKIX(block.Bytes)
	case "RSA PUBLIC KEY":
		return parsePKCS1(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block %s, want a public key", quote(block.Type))
	}
}

// Name returns the name that was given to [ParseKey].
func (k *Key) Name() string { return k.name }

// verify reports whether sig is this key's signature over message: PKCS #1 v1.5
// for RSA; r and s or their strict DER form for ECDSA; SHA-256 for both.
func (k *Key) verify(message, sig []byte) bool {
	digest := sha256.Sum256(message)
	switch {
	case k == nil:
		return false
	case k.rsa != nil:
		return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, digest[:], sig) == nil
	case k.ecdsa != nil && len(sig) == rawECDSASize:
		r := new(big.Int).SetBytes(sig[:rawECDSASize/2])
		s := new(big.Int).SetBytes(sig[rawECDSASize/2:])
		return ecdsa.Verify(k.ecdsa, digest[:], r, s)
	case k.ecdsa != nil:
		return ecdsa.VerifyASN1(k.ecdsa, digest[:], sig)
	default:
		return false
	}
}

// verifySignature checks the content of manifest.sig. With no keys only its
// form counts. It returns the name of the key that verified.
func verifySignature(keys []*Key, message, text []byte) (string, error) {
	// Decode skips line breaks, which base64(1) puts there.
	sig, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return "", fault(Signature, "signature is not base64: %w", err)
	}
	if len(keys) == 0 {
		return "", nil
	}
	for _, k := range keys {
		if k.verify(message, sig) {
			return k.name, nil
		}
	}
	return "", fault(Signature, "signature does not verify with any of %d configured keys", len(keys))
}
