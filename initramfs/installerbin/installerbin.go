// Package installerbin carries the static installer binaries that become /init, two an architecture: one that can fetch by
// BitTorrent, and a smaller one that cannot. They are compiled by `make build` before imgbuild is, and embedded; a
// checkout without them still compiles, and Get says what to do.
package installerbin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// The directory has a README in a checkout in which nothing has been built, so that go build ./... works there.
//
//go:embed bin
var binaries embed.FS

// ErrMissing is returned, wrapped, when the installer for an architecture was not embedded.
var ErrMissing = errors.New("this imgbuild was compiled without it; build imgbuild with make build")

// Get returns the installer for an RPM architecture, x86_64 or aarch64, as a static ELF binary, with BitTorrent or without.
func Get(arch string, torrent bool) ([]byte, error) {
	goarch, ok := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[arch]
	if !ok {
		return nil, fmt.Errorf("find the installer for %s: only x86_64 and aarch64 are supported", arch)
	}
	name := "bin/installer-" + goarch
	if !torrent {
		name += "-notorrent"
	}
	b, err := binaries.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find the installer for %s: %w", arch, ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("find the installer for %s: %w", arch, err)
	}
	if len(b) < 4 || string(b[:4]) != "\x7fELF" {
		return nil, fmt.Errorf("find the installer for %s: what is embedded is not an ELF binary; build imgbuild with make build", arch)
	}
	return b, nil
}
