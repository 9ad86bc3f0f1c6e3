// Package torrent is the metainfo of a release's root file system (BEP 3): what BitTorrent clients have to know to fetch it.
//
// The file's bytes come in once, and rootfs.torrent goes out; or that comes in, and what it says goes out. It writes no time
// and no name of a program, so that the same file makes the same bytes. It opens no file and asks no network, and what it
// vouches for is no more than what vouches for rootfs.torrent: the signed manifest.
package torrent

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"

	"imgbuild/image"
	"imgbuild/image/torrent/bencode"
)

// PieceSize is the size in bytes of what BitTorrent's clients check and pass on as one: 256 KiB. Four make a chunk.
const PieceSize = 256 << 10

// MaxSize bounds a metainfo file: one of the largest file has 20 MiB of digests.
const MaxSize = 24 << 20

// InstallerPrefix begins the peer IDs of machines that install (BEP 20).
const InstallerPrefix = "-IB0001-"

// AnnouncePath is where an imgserve has its tracker (BEP 3), below its address.
const AnnouncePath = "/announce"

// maxAddresses bounds the trackers and the web seeds, each.
const maxAddresses = 64

// Hash is an info-hash: what a swarm is known by. It is the SHA-1 of the metainfo's info.
type Hash [sha1.Size]byte

// String is the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Metainfo says how a root file system is fetched by BitTorrent. Its name is always image.RootfsFile, its pieces have PieceSize, and
// it is private (BEP 27): peers come from trackers, and from those who started a client, alone.
type Metainfo struct {
	// Size is the file's, in bytes.
	Size int64
	// Pieces are the SHA-1 of each piece, one after the other.
	Pieces []byte
	// Trackers are asked one after the other until one answers (BEP 12, a tier each). There may be none.
	Trackers []string
	// WebSeeds are addresses of the same file for HTTP (BEP 19). There may be none.
	WebSeeds []string
}

func (m *Metainfo) info() bencode.Dict {
	return bencode.Dict{
		"length": bencode.Int(m.Size), "name": bencode.String(image.RootfsFile), "piece length": bencode.Int(PieceSize),
		"pieces": bencode.String(m.Pieces), "private": bencode.Int(1),
	}
}

// Hash returns the info-hash. It does not depend on trackers and web seeds.
func (m *Metainfo) Hash() Hash { return sha1.Sum(bencode.Marshal(m.info())) }

// Marshal returns the bytes of rootfs.torrent. The same metainfo gives the same bytes.
func (m *Metainfo) Marshal() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("write torrent: %w", err)
	}
	d := bencode.Dict{"info": m.info()}
	if len(m.Trackers) > 0 {
		d["announce"] = bencode.String(m.Trackers[0])
	}
	if len(m.Trackers) > 1 {
		var tiers bencode.List
		for _, t := range m.Trackers {
			tiers = append(tiers, bencode.List{bencode.String(t)})
		}
		d["announce-list"] = tiers
	}
	if len(m.WebSeeds) > 0 {
		var list bencode.List
		for _, s := range m.WebSeeds {
			list = append(list, bencode.String(s))
		}
		d["url-list"] = list
	}
	return bencode.Marshal(d), nil
}

// Parse reads the metainfo of a root file system. In its info there is nothing but what Marshal writes; other keys beside that, which
// other programs write, are passed over.
func Parse(data []byte) (*Metainfo, error) {
	m, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read torrent: %w", err)
	}
	return m, nil
}

func parse(data []byte) (*Metainfo, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	v, err := bencode.Parse(data)
	if err != nil {
		return nil, err
	}
	d, ok := v.(bencode.Dict)
	if !ok {
		return nil, errors.New("it is no dictionary")
	}
	m := &Metainfo{}
	if err := m.readInfo(d["info"]); err != nil {
		return nil, err
	}
	if m.Trackers, err = trackers(d); err != nil {
		return nil, err
	}
	if m.WebSeeds, err = addresses(d["url-list"], "url-list"); err != nil {
		return nil, err
	}
	return m, m.validate()
}

func (m *Metainfo) readInfo(v bencode.Value) error {
	info, ok := v.(bencode.Dict)
	if !ok {
		return errors.New("it has no info")
	}
	for key := range info {
		switch key {
		case "length", "name", "piece length", "pieces", "private":
		default:
			return fmt.Errorf("its info has the key %.40q, which no root file system has", key)
		}
	}
	switch {
	case info["name"] != bencode.String(image.RootfsFile):
		return fmt.Errorf("its file is not named %s", image.RootfsFile)
	case info["piece length"] != bencode.Int(PieceSize):
		return fmt.Errorf("its pieces do not have %d bytes", PieceSize)
	case info["private"] != bencode.Int(1):
		return errors.New("it is not private")
	}
	size, ok := info["length"].(bencode.Int)
	if !ok {
		return errors.New("its file has no length")
	}
	pieces, ok := info["pieces"].(bencode.String)
	if !ok {
		return errors.New("it has no digests of pieces")
	}
	m.Size, m.Pieces = int64(size), []byte(pieces)
	return nil
}

// trackers reads announce-list (BEP 12) where it is there, and else announce.
func trackers(d bencode.Dict) ([]string, error) {
	v, ok := d["announce-list"]
	if !ok {
		return addresses(d["announce"], "announce")
	}
	tiers, ok := v.(bencode.List)
	if !ok {
		return nil, errors.New("announce-list is no list")
	}
	var all []string
	for _, t := range tiers {
		tier, err := addresses(t, "announce-list")
		if err != nil {
			return nil, err
		}
		all = append(all, tier...)
	}
	return all, nil
}

// addresses reads a text, or a list of texts.
func addresses(v bencode.Value, key string) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case bencode.String:
		if v == "" { // some programs write it so when there is none
			return nil, nil
		}
		return []string{string(v)}, nil
	case bencode.List:
		var all []string
		for _, x := range v {
			s, ok := x.(bencode.String)
			if !ok {
				return nil, fmt.Errorf("%s has something else than addresses", key)
			}
			all = append(all, string(s))
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s is neither an address nor a list of addresses", key)
}

func (m *Metainfo) validate() error {
	if m.Size <= 0 || m.Size > image.MaxFileSize {
		return fmt.Errorf("its file has %d bytes", m.Size)
	}
	if want := (m.Size + PieceSize - 1) / PieceSize * sha1.Size; int64(len(m.Pieces)) != want {
		return fmt.Errorf("its digests have %d bytes and a file of %d bytes needs %d", len(m.Pieces), m.Size, want)
	}
	if err := checkAddresses("tracker", m.Trackers, "http", "https", "udp"); err != nil {
		return err
	}
	return checkAddresses("web seed", m.WebSeeds, "http", "https")
}

func checkAddresses(what string, list []string, schemes ...string) error {
	if len(list) > maxAddresses {
		return fmt.Errorf("it has %d of the kind %s, and at most %d are of use", len(list), what, maxAddresses)
	}
	for _, s := range list {
		u, err := url.Parse(s)
		ok := err == nil && u.Host != ""
		known := false
		for _, scheme := range schemes {
			known = known || ok && u.Scheme == scheme
		}
		if !known {
			return fmt.Errorf("its %s %.100q is no address with one of %v", what, s, schemes)
		}
	}
	return nil
}

// Hasher makes the metainfo of what is written to it, in one pass.
type Hasher struct {
	piece   hash.Hash
	inPiece int
	size    int64
	pieces  []byte
}

// NewHasher returns an empty Hasher.
func NewHasher() *Hasher { return &Hasher{piece: sha1.New()} }

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	h.size += int64(n)
	for len(p) > 0 {
		k := min(len(p), PieceSize-h.inPiece)
		h.piece.Write(p[:k])
		h.inPiece += k
		p = p[k:]
		if h.inPiece == PieceSize {
			h.endPiece()
		}
	}
	return n, nil
}

func (h *Hasher) endPiece() {
	h.pieces = h.piece.Sum(h.pieces)
	h.piece.Reset()
	h.inPiece = 0
}

// Metainfo returns what has been written, without trackers and web seeds. Nothing may be written afterwards.
func (h *Hasher) Metainfo() *Metainfo {
	if h.inPiece > 0 {
		h.endPiece()
	}
	return &Metainfo{Size: h.size, Pieces: h.pieces}
}
