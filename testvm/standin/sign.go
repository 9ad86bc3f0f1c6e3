package standin

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// keyFile is the public key's name, beside the repository.
const keyFile = "RPM-GPG-KEY-standin"

// secretFile holds the secret key; whoever has it can sign for the stand-in of this machine only.
const secretFile = "signing.key"

// signer signs with a key that was made on this machine.
type signer struct {
	key *openpgp.Entity
	cfg *packet.Config
}

// openSigner reads the key from dir, or makes one when there is none.
func openSigner(dir string) (*signer, error) {
	cfg := &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 3072, DefaultHash: crypto.SHA256}
	name := filepath.Join(dir, secretFile)
	raw, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return makeSigner(name, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("read the stand-in's signing key: %w", err)
	}
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(raw))
	if err != nil || len(list) != 1 || list[0].PrivateKey == nil {
		return nil, fmt.Errorf("%s is not one armored secret key (%w); remove it and a new one is made", name, orEmpty(err))
	}
	return &signer{list[0], cfg}, nil
}

func orEmpty(err error) error {
	if err == nil {
		return errors.New("no secret part")
	}
	return err
}

func makeSigner(name string, cfg *packet.Config) (*signer, error) {
	key, err := openpgp.NewEntity("imgbuild stand-in", "made on this machine, vouches for nothing else", "standin@localhost", cfg)
	if err != nil {
		return nil, fmt.Errorf("make the stand-in's signing key: %w", err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(key.SerializePrivate(w, cfg), w.Close())
	}
	if err == nil {
		err = writeWhole(name, b.Bytes(), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the stand-in's signing key: %w", err)
	}
	return &signer{key, cfg}, nil
}

// public gives the armored public key.
func (s *signer) public() ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(s.key.Serialize(w), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("write the stand-in's public key: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// fingerprint is the primary key's, 40 hex digits in capitals.
func (s *signer) fingerprint() string {
	return strings.ToUpper(fmt.Sprintf("%x", s.key.PrimaryKey.Fingerprint))
}

// sign makes a detached binary signature, as RPM's headers hold it.
func (s *signer) sign(data []byte) ([]byte, error) {
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, s.key, bytes.NewReader(data), s.cfg); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return b.Bytes(), nil
}

// signFile writes name.asc, a detached armored signature of the file.
func (s *signer) signFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sign the repository's metadata: %w", err)
	}
	defer f.Close()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, s.key, io.Reader(f), s.cfg); err != nil {
		return fmt.Errorf("sign %s: %w", filepath.Base(name), err)
	}
	b.WriteByte('\n')
	return writeWhole(name+".asc", b.Bytes(), 0o644)
}

// writeWhole writes a file so that it is there whole or not at all.
func writeWhole(name string, data []byte, mode os.FileMode) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
