package artifacttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
)

// sign returns the content of manifest.sig: PKCS #1 v1.5 for RSA; for ECDSA r
// and s of 32 bytes each, the only form that clients before 4.0 know.
func sign(key crypto.Signer, manifest []byte) ([]byte, error) {
	digest := sha256.Sum256(manifest)
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		if sig, err = rawSignature(sig); err != nil {
			return nil, err
		}
	}
	return base64.StdEncoding.AppendEncode(nil, sig), nil
}

func rawSignature(der []byte) ([]byte, error) {
	const size = 32
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	if sig.R.BitLen() > 8*size || sig.S.BitLen() > 8*size {
		return nil, fmt.Errorf("ECDSA key is not on P-256")
	}
	raw := make([]byte, 2*size)
	sig.R.FillBytes(raw[:size])
	sig.S.FillBytes(raw[size:])
	return raw, nil
}
