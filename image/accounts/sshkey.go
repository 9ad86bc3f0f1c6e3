package accounts

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
)

// keyTypes are what sshd of EL7 to EL10 takes in authorized_keys; DSA is not.
func keyTypes() []string {
	return []string{
		"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	}
}

// CheckSSHKey says what is wrong with a line of authorized_keys (sshd(8)), as a predicate, or nothing. It never shows it: it may be a
// private key.
func CheckSSHKey(s string) string {
	if strings.Contains(s, "PRIVATE KEY") {
		return "is a private key; the public one, from the .pub file, belongs here, and this one should be replaced"
	}
	if strings.ContainsAny(s, "\r\n\x00") {
		return "has more than one line; give each key as its own item"
	}
	words := words(s)
	at := slices.IndexFunc(words, func(w string) bool { return slices.Contains(keyTypes(), w) })
	switch {
	case slices.Contains(words, "ssh-dss"):
		return "is a DSA key, which no sshd of today accepts"
	case at < 0 || at > 1: // options come before the type
		return "is not an SSH public key: it does not begin with a type such as ssh-ed25519"
	case at+1 == len(words):
		return "is not an SSH public key: nothing follows its type"
	}
	blob, err := base64.StdEncoding.DecodeString(words[at+1])
	if err != nil {
		return "is not an SSH public key: what follows its type is not base64; perhaps it was cut off"
	}
	return checkBlob(words[at], blob)
}

// checkBlob checks a key's bytes (RFC 4253, 6.6): its type, then at least one more field, each with its length before it.
func checkBlob(kind string, blob []byte) string {
	fields := 0
	for ; len(blob) > 0; fields++ {
		if len(blob) < 4 || uint64(binary.BigEndian.Uint32(blob)) > uint64(len(blob)-4) {
			return "is not an SSH public key: its bytes end too early; perhaps it was cut off"
		}
		n := binary.BigEndian.Uint32(blob)
		if fields == 0 && string(blob[4:4+n]) != kind {
			return "is not an SSH public key: the type that it begins with is not the type inside"
		}
		blob = blob[4+n:]
	}
	if fields < 2 {
		return "is not an SSH public key: it holds no key"
	}
	return ""
}

// words splits at blanks outside of double quotes, which options such as command="…" have.
func words(s string) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(s, func(r rune) bool {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && quoted:
			escaped = true
		case r == '"':
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t')
	})
}
