package image

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
)

// planContext keeps a plan's signature from ever being taken for a manifest's, and the other way round.
const planContext = "imgbuild plan v1\x00"

// SignPlan returns the Ed25519 signature (RFC 8032) of a plan's bytes. The key is a server's own, never one of releases.
func SignPlan(plan []byte, key PrivateKey) []byte {
	return ed25519.Sign(key.k, append([]byte(planContext), plan...))
}

// VerifyPlan checks a plan's bytes against the server's key.
func VerifyPlan(plan, signature []byte, key PublicKey) error {
	if len(signature) != ed25519.SignatureSize || len(key.k) != ed25519.PublicKeySize || !ed25519.Verify(key.k, append([]byte(planContext), plan...), signature) {
		return errors.New("check plan: it was not signed by the server that this machine was booted by; boot it again")
	}
	return nil
}

// Text returns the key as one word, for a kernel's arguments: base64url (RFC 4648, 5) of its 32 bytes, without padding.
func (p PublicKey) Text() string { return base64.RawURLEncoding.EncodeToString(p.k) }

// ParsePublicKeyText reads what Text returns.
func ParsePublicKeyText(s string) (PublicKey, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("read public key %q: it is not the base64url of %d bytes", s, ed25519.PublicKeySize)
	}
	return PublicKey{ed25519.PublicKey(b)}, nil
}
