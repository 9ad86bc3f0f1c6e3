package profiles

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// errPrivateKey is a key that must not be in a build host's profile at all.
var errPrivateKey = errors.New("it is a private key; export the public one with `gpg --export --armor`")

// fingerprints returns the fingerprints of the primary keys in an armored or binary OpenPGP public key, in capitals. It
// checks no signature: rpm does when it imports the key.
func fingerprints(key []byte) ([]string, error) {
	data := key
	if len(key) == 0 || key[0]&0x80 == 0 {
		var err error
		if data, err = dearmor(key); err != nil {
			return nil, err
		}
	}
	var prints []string
	for len(data) > 0 {
		tag, body, rest, err := packet(data)
		if err != nil {
			return nil, err
		}
		switch tag {
		case 5:
			return nil, errPrivateKey
		case 6:
			p, err := fingerprint(body)
			if err != nil {
				return nil, err
			}
			prints = append(prints, p)
		}
		data = rest
	}
	if len(prints) == 0 {
		return nil, errors.New("it holds no OpenPGP public key")
	}
	return prints, nil
}

// dearmor takes the armor off one or more key blocks (RFC 9580, 6.2) and checks their CRC-24 where there is one.
func dearmor(text []byte) ([]byte, error) {
	const begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
	if bytes.Contains(text, []byte("BEGIN PGP PRIVATE KEY BLOCK")) {
		return nil, errPrivateKey
	}
	var out []byte
	blocks := 0
	for rest := string(text); ; blocks++ {
		_, after, ok := strings.Cut(rest, begin)
		if !ok {
			break
		}
		block, tail, ok := strings.Cut(after, end)
		if !ok {
			return nil, errors.New("it ends before the line " + end)
		}
		data, err := block64(block)
		if err != nil {
			return nil, err
		}
		out, rest = append(out, data...), tail
	}
	if blocks == 0 {
		return nil, errors.New("it is not an OpenPGP public key: there is no line " + begin)
	}
	return out, nil
}

// block64 decodes what is between the lines of an armor: headers, an empty line, base64, and a checksum.
func block64(block string) ([]byte, error) {
	var b64, sum strings.Builder
	headers := true
	for i, line := range strings.Split(block, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			headers = headers && i == 0
		case headers && strings.Contains(line, ": "):
		case strings.HasPrefix(line, "=") && len(line) == 5:
			sum.WriteString(line[1:])
		default:
			headers = false
			b64.WriteString(line)
		}
	}
	data, err := base64.StdEncoding.DecodeString(b64.String())
	if err != nil {
		return nil, errors.New("its armor is damaged: it is not base64")
	}
	if sum.Len() > 0 {
		want, err := base64.StdEncoding.DecodeString(sum.String())
		if crc := crc24(data); err != nil || !bytes.Equal(want, []byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}) {
			return nil, errors.New("its armor is damaged: the checksum is wrong")
		}
	}
	return data, nil
}

// crc24 is the checksum of RFC 9580, 6.1.1.
func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc & 0xffffff
}

// packet splits the first packet off (RFC 9580, 4.2). Partial lengths are not for keys.
func packet(data []byte) (tag byte, body, rest []byte, err error) {
	cut := errors.New("it ends in the middle of a packet")
	if data[0]&0x80 == 0 {
		return 0, nil, nil, errors.New("it is not made of OpenPGP packets")
	}
	head, length := 0, uint64(0)
	if data[0]&0x40 != 0 { // the present format
		tag = data[0] & 0x3f
		if len(data) < 2 {
			return 0, nil, nil, cut
		}
		switch l := data[1]; {
		case l < 192:
			head, length = 2, uint64(l)
		case l < 224:
			if len(data) < 3 {
				return 0, nil, nil, cut
			}
			head, length = 3, uint64(l-192)<<8+uint64(data[2])+192
		case l == 255:
			if len(data) < 6 {
				return 0, nil, nil, cut
			}
			head, length = 6, uint64(binary.BigEndian.Uint32(data[2:]))
		default:
			return 0, nil, nil, errors.New("it has a packet of partial length, which keys do not have")
		}
	} else { // the old one
		tag = data[0] >> 2 & 0x0f
		n := 1 << (data[0] & 3)
		if n == 8 || len(data) < 1+n {
			return 0, nil, nil, cut
		}
		head = 1 + n
		for _, b := range data[1:head] {
			length = length<<8 | uint64(b)
		}
	}
	if length > uint64(len(data)-head) {
		return 0, nil, nil, cut
	}
	end := head + int(length)
	return tag, data[head:end], data[end:], nil
}

// fingerprint is that of a public-key packet's body: RFC 9580, 5.5.4.
func fingerprint(body []byte) (string, error) {
	if len(body) < 6 || len(body) > 1<<16-1 && body[0] == 4 {
		return "", errors.New("it holds a damaged key")
	}
	switch body[0] {
	case 4:
		h := sha1.New()
		h.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
		h.Write(body)
		return fmt.Sprintf("%X", h.Sum(nil)), nil
	case 6:
		h := sha256.New()
		h.Write(binary.BigEndian.AppendUint32([]byte{0x9b}, uint32(len(body))))
		h.Write(body)
		return fmt.Sprintf("%X", h.Sum(nil)), nil
	}
	return "", fmt.Errorf("it holds a key of version %d; 4 and 6 are known", body[0])
}
