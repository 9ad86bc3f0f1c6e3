package image

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// The signature file is two lines of text: a comment with the key's ID, and the base64 of an Ed25519 signature
// (RFC 8032) over the context below followed by the manifest's bytes. The context keeps a manifest's signature from
// ever being taken for one over something else.
const (
	sigContext = "imgbuild manifest v1\x00"
	sigComment = "untrusted comment: imgbuild manifest, key "
)

// ErrSignature is returned when a manifest was not signed by any of the trusted keys.
var ErrSignature = errors.New("the manifest's signature was not made by a key that this program trusts")

// PrivateKey signs releases.
type PrivateKey struct{ k ed25519.PrivateKey }

// PublicKey verifies releases.
type PublicKey struct{ k ed25519.PublicKey }

// GenerateKey makes a new key from the system's random source.
func GenerateKey() (PrivateKey, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return PrivateKey{k}, nil
}

// Public returns the key that verifies what p signs.
func (p PrivateKey) Public() PublicKey { return PublicKey{p.k.Public().(ed25519.PublicKey)} }

// Marshal returns the key as PKCS #8 PEM (RFC 5958), readable by openssl.
func (p PrivateKey) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.k)
	if err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParsePrivateKey reads what Marshal writes.
func ParsePrivateKey(data []byte) (PrivateKey, error) {
	b, _ := pem.Decode(data)
	if b == nil || b.Type != "PRIVATE KEY" {
		return PrivateKey{}, errors.New("read signing key: it is not a PEM block of type PRIVATE KEY; make one with imgbuild keygen")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read signing key: %w", err)
	}
	e, ok := k.(ed25519.PrivateKey)
	if !ok {
		return PrivateKey{}, errors.New("read signing key: it is not an Ed25519 key; make one with imgbuild keygen")
	}
	return PrivateKey{e}, nil
}

// Marshal returns the key as PKIX PEM, readable by openssl.
func (p PublicKey) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(p.k)
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ID is the first 16 hex digits of the SHA-256 of the key, for people to compare.
func (p PublicKey) ID() string {
	d := sha256.Sum256(p.k)
	return fmt.Sprintf("%x", d[:8])
}

// ParsePublicKeys reads one or more PEM blocks of Ed25519 public keys: several while keys are being exchanged.
func ParsePublicKeys(data []byte) ([]PublicKey, error) {
	var keys []PublicKey
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("read public keys: found a PEM block of type %s and not PUBLIC KEY", b.Type)
		}
		k, err := x509.ParsePKIXPublicKey(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read public keys: %w", err)
		}
		e, ok := k.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("read public keys: one is not an Ed25519 key")
		}
		keys = append(keys, PublicKey{e})
	}
	if len(keys) == 0 {
		return nil, errors.New("read public keys: there is no PEM block of type PUBLIC KEY")
	}
	return keys, nil
}

// Sign returns the contents of SignatureFile for the manifest's bytes.
func Sign(manifest []byte, key PrivateKey) []byte {
	sig := ed25519.Sign(key.k, append([]byte(sigContext), manifest...))
	return []byte(sigComment + key.Public().ID() + "\n" + base64.StdEncoding.EncodeToString(sig) + "\n")
}

// Open verifies the manifest's bytes against the contents of SignatureFile and parses them. Nothing in the bytes is
// looked at before one of the keys has vouched for them.
func Open(manifest, signature []byte, keys []PublicKey) (*Manifest, error) {
	if err := Verify(manifest, signature, keys); err != nil {
		return nil, err
	}
	return Parse(manifest)
}

// Verify checks the manifest's bytes against the contents of SignatureFile.
func Verify(manifest, signature []byte, keys []PublicKey) error {
	lines := strings.Split(strings.TrimSuffix(string(signature), "\n"), "\n")
	if len(signature) > 4096 || len(lines) != 2 || !strings.HasPrefix(lines[0], "untrusted comment: ") {
		return fmt.Errorf("check manifest: %s is not a signature of imgbuild", SignatureFile)
	}
	sig, err := base64.StdEncoding.DecodeString(lines[1])
	if err != nil || len(sig) != ed25519.SignatureSize {
		return fmt.Errorf("check manifest: %s is not a signature of imgbuild", SignatureFile)
	}
	msg := append([]byte(sigContext), manifest...)
	for _, k := range keys {
		if ed25519.Verify(k.k, msg, sig) {
			return nil
		}
	}
	return fmt.Errorf("check manifest: %w; it names key %q", ErrSignature, strings.TrimPrefix(lines[0], sigComment))
}
