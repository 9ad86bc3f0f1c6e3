// Package crypt turns passwords into what /etc/shadow holds: SHA-512 crypt, as Ulrich Drepper's specification "Unix crypt using
// SHA-256 and SHA-512" has it and as the C library of every EL release reads it.
//
// A password and a salt come in; a hash goes out. It checks no password, and keeps none.
package crypt

import (
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"strconv"
	"strings"
)

const (
	prefix        = "$6$"
	defaultRounds = 5000
	minRounds     = 1000
	maxRounds     = 999_999_999
	maxSalt       = 16
	// alphabet is crypt's own order of the 64 characters.
	alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Salt is a random one, of 16 characters.
func Salt() string {
	var b [maxSalt]byte
	rand.Read(b[:]) // it ends the program where there is no randomness
	for i := range b {
		b[i] = alphabet[b[i]&0x3f]
	}
	return string(b[:])
}

// SHA512 hashes a password. The setting is a salt of at most 16 characters without $, or rounds=N$ and a salt; what of the salt is
// longer is left out, and N is brought to 1000 to 999,999,999.
func SHA512(password, setting string) string {
	setting = strings.TrimPrefix(setting, prefix)
	rounds, said := uint64(defaultRounds), false
	if rest, ok := strings.CutPrefix(setting, "rounds="); ok {
		if number, salt, ok := strings.Cut(rest, "$"); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				rounds, said, setting = min(max(n, minRounds), maxRounds), true, salt
			}
		}
	}
	salt, _, _ := strings.Cut(setting, "$")
	salt = salt[:min(len(salt), maxSalt)]
	sum := digest([]byte(password), []byte(salt), int(rounds))
	var b strings.Builder
	b.WriteString(prefix)
	if said {
		fmt.Fprintf(&b, "rounds=%d$", rounds)
	}
	b.WriteString(salt + "$")
	encode(&b, sum)
	return b.String()
}

// digest follows the numbered steps of the specification.
func digest(key, salt []byte, rounds int) [sha512.Size]byte {
	b := sha512.New() // 4 to 8
	b.Write(key)
	b.Write(salt)
	b.Write(key)
	alt := b.Sum(nil)

	a := sha512.New() // 1 to 3, 9 to 12
	a.Write(key)
	a.Write(salt)
	a.Write(repeat(alt, len(key)))
	for n := len(key); n > 0; n >>= 1 {
		if n&1 != 0 {
			a.Write(alt)
		} else {
			a.Write(key)
		}
	}
	sum := a.Sum(nil)

	dp := sha512.New() // 13 to 16
	for range key {
		dp.Write(key)
	}
	p := repeat(dp.Sum(nil), len(key))

	ds := sha512.New() // 17 to 20
	for range 16 + int(sum[0]) {
		ds.Write(salt)
	}
	s := repeat(ds.Sum(nil), len(salt))

	for i := range rounds { // 21
		c := sha512.New()
		if i&1 != 0 {
			c.Write(p)
		} else {
			c.Write(sum)
		}
		if i%3 != 0 {
			c.Write(s)
		}
		if i%7 != 0 {
			c.Write(p)
		}
		if i&1 != 0 {
			c.Write(sum)
		} else {
			c.Write(p)
		}
		sum = c.Sum(sum[:0])
	}
	return [sha512.Size]byte(sum)
}

// repeat makes n bytes of a digest.
func repeat(digest []byte, n int) []byte {
	out := make([]byte, 0, n+len(digest))
	for len(out) < n {
		out = append(out, digest...)
	}
	return out[:n]
}

// encode writes a digest in crypt's order: three bytes as four characters, the lowest six bits first (22 e).
func encode(b *strings.Builder, sum [sha512.Size]byte) {
	write := func(v uint32, n int) {
		for range n {
			b.WriteByte(alphabet[v&0x3f])
			v >>= 6
		}
	}
	x, y, z := 0, 21, 42
	for range 21 {
		write(uint32(sum[x])<<16|uint32(sum[y])<<8|uint32(sum[z]), 4)
		x, y, z = y+1, z+1, x+1
	}
	write(uint32(sum[63]), 2)
}
