package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxUnpacked bounds one module or firmware file, in bytes, so that a damaged or hostile one cannot fill the memory.
// The largest module of a distribution kernel is about 30 MB (amdgpu with debug symbols stripped).
const maxUnpacked = 256 << 20

// errTooLarge is a file that unpacks to more than maxUnpacked.
var errTooLarge = errors.New("unpacks to more than 256 MiB")

// packedSuffix is the suffix of name that says how it is compressed, "" for none.
func packedSuffix(name string) string {
	for _, suffix := range []string{".xz", ".zst", ".gz"} {
		if strings.HasSuffix(name, suffix) {
			return suffix
		}
	}
	return ""
}

// unpack decompresses data according to suffix (see packedSuffix).
func unpack(suffix string, data []byte) ([]byte, error) {
	var reader io.Reader
	switch suffix {
	case "":
		return data, nil
	case ".xz":
		r, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		reader = r
	case ".zst":
		r, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		reader = r
	case ".gz":
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		reader = r
	default:
		return nil, fmt.Errorf("unknown compression %q", suffix)
	}
	unpacked, err := io.ReadAll(io.LimitReader(reader, maxUnpacked+1))
	if err != nil {
		return nil, err
	}
	if len(unpacked) > maxUnpacked {
		return nil, errTooLarge
	}
	return unpacked, nil
}

// modinfo is what a module says of itself in its .modinfo section (include/linux/module.h, MODULE_INFO).
type modinfo struct {
	depends  []string // module names
	aliases  []string // patterns
	firmware []string // names or patterns below /lib/firmware
	softdeps []softdep
}

// softdep is a module that should be loaded around another although no symbol needs it (modprobe.d(5), softdep).
type softdep struct{ pre, post []string }

// readModinfo reads the .modinfo section of an uncompressed module.
func readModinfo(module []byte) (modinfo, error) {
	parsed, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return modinfo{}, err
	}
	section := parsed.Section(".modinfo")
	if section == nil || section.Type == elf.SHT_NOBITS {
		return modinfo{}, errors.New("no .modinfo section: not a kernel module")
	}
	data, err := section.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf("read .modinfo: %w", err)
	}
	return parseModinfo(data), nil
}

// parseModinfo reads key=value strings that end in NUL; unknown keys are passed over.
func parseModinfo(data []byte) modinfo {
	var info modinfo
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok || value == "" || strings.ContainsAny(value, "\n\r") { // a line break would forge a line of modules.alias
			continue
		}
		switch key {
		case "depends":
			for _, name := range strings.Split(value, ",") {
				if name = strings.TrimSpace(name); name != "" {
					info.depends = append(info.depends, name)
				}
			}
		case "alias":
			info.aliases = append(info.aliases, value)
		case "firmware":
			info.firmware = append(info.firmware, value)
		case "softdep":
			info.softdeps = append(info.softdeps, parseSoftdep(value))
		case "weakdep": // kmod 33: used if present, so it belongs into the image; nothing must load it
			info.softdeps = append(info.softdeps, softdep{post: strings.Fields(value)})
		}
	}
	return info
}

// parseSoftdep reads "pre: a b post: c"; words before the first "pre:" or "post:" mean nothing.
func parseSoftdep(value string) softdep {
	var dep softdep
	var into *[]string
	for _, word := range strings.Fields(value) {
		switch {
		case word == "pre:":
			into = &dep.pre
		case word == "post:":
			into = &dep.post
		case into != nil:
			*into = append(*into, word)
		}
	}
	return dep
}
