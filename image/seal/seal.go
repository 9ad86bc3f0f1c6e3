// Package seal is the record on a disk that says whose it is: which machine was installed, by which order, and whether it is
// protected from being installed again. A Record and a key come in, the bytes for the disk go out; the bytes of a disk come
// in, what they say goes out, and whether an installation has to stop for it.
//
// It reads and writes no disk. A signature tells who made a seal; whether an installation stops never depends on it: whoever
// can write to a disk can also erase its seal, and one that nobody signed still says that a person once meant this disk to stay.
package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"imgbuild/image"
	"imgbuild/image/identity"
)

// Size is how long a seal is, in bytes: two copies of 4096, so that each is written at once on 512-byte and 4096-byte sectors,
// and one survives when power fails in the other. On GPT they are the first bytes of the partition of type layout.TypeSeal, on
// MBR the last ones of the disk's first MiB.
const (
	Size     = 2 * copySize
	copySize = 4096
)

// Schema is the version of the record that is written. Later ones only add to it, so a seal of any version can be read.
const Schema = 1

// One copy is, in little-endian:
//
//	0     16  magic
//	16    4   length of the record
//	20    32  public key that signed it (Ed25519), or zeros
//	52    64  signature, or zeros
//	116   ..  record, JSON; then zeros
//	4064  32  SHA-256 of all before it
const (
	magic     = "imgbuild seal 1\n"
	atLength  = len(magic)
	atKey     = atLength + 4
	atSign    = atKey + image.SealKeySize
	atRecord  = atSign + image.SealSignatureSize
	atDigest  = copySize - sha256.Size
	maxRecord = atDigest - atRecord
)

// ErrNone is returned where there is no seal. Every other error of Parse means that there was one and that it is damaged.
var ErrNone = errors.New("there is no seal")

// Record is what a seal says.
type Record struct {
	Schema int    `json:"schema"`
	Serial string `json:"serial"`          // of the machine; empty where its firmware gives none that identifies it
	Order  string `json:"order,omitempty"` // its ID; empty where no server gave one
	Image  string `json:"image"`           // name/version
	// Time is when the order was carried out, by the server's clock, or by the machine's where there is no server.
	Time time.Time `json:"time"`
	// Protect is true if the disk is not to be installed again unless a person names the machine once more.
	Protect bool `json:"protect,omitempty"`
}

// Seal is a seal as it was found: the record of its first good copy.
type Seal struct {
	Record
	raw       []byte // the record's bytes, as they were signed
	signature []byte // nil if it is not signed
	key       []byte
	// second is what the second copy says where it is good too and says something else: a seal was being written anew when the
	// power failed.
	second *Record
}

// Sign returns the Size bytes of a seal that the key vouches for. The record has to name a machine.
func Sign(r Record, key image.PrivateKey) ([]byte, error) {
	if junk := identity.Junk(r.Serial); junk != "" {
		return nil, fmt.Errorf("make seal: %s", junk)
	}
	record, err := r.encode()
	if err != nil {
		return nil, err
	}
	signature, public := image.SignSeal(record, key)
	return assemble(record, signature, public), nil
}

// Unsigned returns the Size bytes of a seal that nobody vouches for: of an installation without a server.
func Unsigned(r Record) ([]byte, error) {
	if r.Protect && identity.Junk(r.Serial) != "" {
		return nil, errors.New("make seal: a disk cannot be protected where the machine has no serial number that a person could name to unseal it")
	}
	record, err := r.encode()
	if err != nil {
		return nil, err
	}
	return assemble(record, nil, nil), nil
}

func (r Record) encode() ([]byte, error) {
	r.Schema, r.Serial, r.Time = Schema, identity.Serial(r.Serial), r.Time.UTC().Truncate(time.Second)
	record, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("make seal: %w", err)
	}
	if len(record) > maxRecord {
		return nil, fmt.Errorf("make seal: its record has %d bytes and there is room for %d: shorten the order's and the image's names", len(record), maxRecord)
	}
	return record, nil
}

func assemble(record, signature, public []byte) []byte {
	c := make([]byte, copySize)
	copy(c, magic)
	binary.LittleEndian.PutUint32(c[atLength:], uint32(len(record)))
	copy(c[atKey:], public)
	copy(c[atSign:], signature)
	copy(c[atRecord:], record)
	digest := sha256.Sum256(c[:atDigest])
	copy(c[atDigest:], digest[:])
	return append(c, c...)
}

// Parse reads a seal: at least the Size bytes where one is; what follows is not looked at. A damaged first copy is made good
// by the second.
func Parse(b []byte) (*Seal, error) {
	if len(b) < Size {
		return nil, fmt.Errorf("read seal: %d bytes were read of %d", len(b), Size)
	}
	first, err1 := parseCopy(b[:copySize])
	second, err2 := parseCopy(b[copySize:Size])
	switch {
	case first != nil && second != nil:
		if !bytes.Equal(first.raw, second.raw) {
			first.second = &second.Record
		}
		return first, nil
	case first != nil:
		return first, nil
	case second != nil:
		return second, nil
	case errors.Is(err1, ErrNone) && errors.Is(err2, ErrNone):
		return nil, fmt.Errorf("read seal: %w", ErrNone)
	case errors.Is(err1, ErrNone):
		err1 = errors.New("it does not begin like one")
	case errors.Is(err2, ErrNone):
		err2 = errors.New("it does not begin like one")
	}
	return nil, fmt.Errorf("read seal: both of its copies are damaged: %w; %w", err1, err2)
}

func parseCopy(c []byte) (*Seal, error) {
	if string(c[:atLength]) != magic {
		return nil, ErrNone
	}
	if digest := sha256.Sum256(c[:atDigest]); !bytes.Equal(digest[:], c[atDigest:]) {
		return nil, errors.New("its checksum is wrong")
	}
	n := binary.LittleEndian.Uint32(c[atLength:])
	if n > uint32(maxRecord) {
		return nil, fmt.Errorf("its record has %d bytes and there is room for %d", n, maxRecord)
	}
	s := &Seal{raw: bytes.Clone(c[atRecord : atRecord+int(n)])}
	if err := json.Unmarshal(s.raw, &s.Record); err != nil {
		return nil, fmt.Errorf("its record: %w", err)
	}
	if s.Schema < 1 {
		return nil, fmt.Errorf("its record has schema %d", s.Schema)
	}
	if key := c[atKey:atSign]; !bytes.Equal(key, make([]byte, image.SealKeySize)) {
		s.key, s.signature = bytes.Clone(key), bytes.Clone(c[atSign:atRecord])
	}
	return s, nil
}

// Signed says whether the seal has a signature, by whomever and good or not.
func (s *Seal) Signed() bool { return s.signature != nil }

// SignedBy says whether the key vouches for the record.
func (s *Seal) SignedBy(key image.PublicKey) bool {
	return s.Signed() && image.VerifySeal(s.raw, s.signature, key)
}

// Refusal says in one sentence why a machine with this serial number may not be installed over the seal, or "". Unseal are the
// serial numbers of seals that a person said are to be broken: each covers what names exactly that serial number. advise tells a
// person how to say that.
func (s *Seal) Refusal(serial string, unseal []string, advise func(serial string) string) string {
	for _, r := range []*Record{&s.Record, s.second} {
		if r == nil {
			continue
		}
		if why := r.refusal(serial, unseal, advise); why != "" {
			return why
		}
	}
	return ""
}

func (r *Record) refusal(serial string, unseal []string, advise func(serial string) string) string {
	owner := identity.Serial(r.Serial)
	named := identity.Junk(owner) == ""
	if named && slices.ContainsFunc(unseal, func(u string) bool { return identity.Serial(u) == owner }) {
		return ""
	}
	what := fmt.Sprintf("it was installed with %q by order %q on %s", r.Image, r.Order, r.Time.UTC().Format("2006-01-02"))
	if r.Order == "" {
		what = fmt.Sprintf("it was installed with %q on %s", r.Image, r.Time.UTC().Format("2006-01-02"))
	}
	switch {
	case named && owner != identity.Serial(serial):
		return fmt.Sprintf("its seal says that it is the disk of another machine, with serial number %q (%s): if it is to be installed here, %s", owner, what, advise(owner))
	case named && r.Protect:
		return fmt.Sprintf("its seal protects it (%s): if it is to be installed again, %s", what, advise(owner))
	case r.Protect:
		return fmt.Sprintf("its seal protects it and names no machine (%s): if nobody needs it, erase the seal with wipefs or dd", what)
	}
	return ""
}
