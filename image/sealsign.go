package image

import "crypto/ed25519"

// sealContext keeps a seal's signature from ever being taken for a plan's or a manifest's, and the other way round.
const sealContext = "imgbuild seal v1\x00"

// SealKeySize and SealSignatureSize are those of Ed25519, in bytes (RFC 8032).
const (
	SealKeySize       = ed25519.PublicKeySize
	SealSignatureSize = ed25519.SignatureSize
)

// SignSeal returns the Ed25519 signature (RFC 8032) of a seal's record, and the public key that verifies it, as bytes. The key
// is a server's own, the one that signs plans.
func SignSeal(record []byte, key PrivateKey) (signature, public []byte) {
	return ed25519.Sign(key.k, append([]byte(sealContext), record...)), []byte(key.Public().k)
}

// VerifySeal says whether key made the signature of a seal's record.
func VerifySeal(record, signature []byte, key PublicKey) bool {
	return len(signature) == ed25519.SignatureSize && len(key.k) == ed25519.PublicKeySize &&
		ed25519.Verify(key.k, append([]byte(sealContext), record...), signature)
}
