package plan

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"imgbuild/image/layout"
)

// LiveOptions say how a release runs from memory.
type LiveOptions struct {
	// Size is what the running system may write, which memory has to hold: bytes, as 4GiB, or a share of the memory, as 25%; empty
	// is half of the memory.
	Size string `json:"size,omitempty"`
	// Persist are directories that are kept, each on a file system of this machine: /var=LABEL or /home=LABEL.
	Persist []string `json:"persist,omitempty"`
	// Root is where the root file system is read from in the place of memory: nfs:SERVER:/PATH. Empty is memory.
	Root string `json:"root,omitempty"`
}

// Persistent is a directory of a live system that is kept.
type Persistent struct {
	Dir   string // /var, /home or below
	Label string // of the file system
}

var label = regexp.MustCompile(`^[A-Za-z0-9._-]{1,36}$`)

// ParsePersistent reads one of LiveOptions.Persist.
func ParsePersistent(s string) (Persistent, error) {
	dir, l, ok := strings.Cut(s, "=")
	switch {
	case !ok || !label.MatchString(l):
		return Persistent{}, fmt.Errorf("%q says no file system's label: write it as /var=LABEL or /home=LABEL", s)
	case dir != path.Clean(dir) || dir != "/var" && dir != "/home" && !strings.HasPrefix(dir, "/var/") && !strings.HasPrefix(dir, "/home/"):
		return Persistent{}, fmt.Errorf("%q cannot be kept: /var, /home and what is below them can", dir)
	}
	return Persistent{dir, l}, nil
}

// ParseLiveSize reads LiveOptions.Size, of a machine with so much memory. It returns bytes.
func ParseLiveSize(s string, memory int64) (int64, error) {
	if s == "" {
		return memory / 2, nil
	}
	if share, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.Atoi(share)
		if err != nil || n < 1 || n > 90 {
			return 0, fmt.Errorf("%q is no share of the memory: it can be 1%% to 90%%", s)
		}
		return memory / 100 * int64(n), nil
	}
	n, err := layout.ParseBytes(s)
	if err == nil && n < 16<<20 {
		err = fmt.Errorf("%s is too little to run a system: give it 16MiB at least", s)
	}
	return n, err
}

// NFSRoot is an exported tree.
type NFSRoot struct {
	Server string // a name or an address
	Path   string // absolute
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$`)

// ParseNFSRoot reads LiveOptions.Root. An IPv6 address is written in brackets.
func ParseNFSRoot(s string) (NFSRoot, error) {
	rest, ok := strings.CutPrefix(s, "nfs:")
	at := strings.Index(rest, ":/")
	if !ok || at < 1 {
		return NFSRoot{}, fmt.Errorf("%q is no root file system that can be mounted: write nfs:SERVER:/PATH", s)
	}
	r := NFSRoot{Server: rest[:at], Path: path.Clean(rest[at+1:])}
	if in, ok := strings.CutPrefix(r.Server, "["); ok {
		r.Server = strings.TrimSuffix(in, "]")
		if a, err := netip.ParseAddr(r.Server); err != nil || !a.Is6() || in == r.Server {
			return NFSRoot{}, fmt.Errorf("%q has no IPv6 address in its brackets: write nfs:[2001:db8::1]:/PATH", s)
		}
	} else if !hostName.MatchString(r.Server) {
		return NFSRoot{}, fmt.Errorf("%q has no server's name or address: write nfs:SERVER:/PATH", s)
	}
	if strings.ContainsAny(r.Path, ",\x00\n") {
		return NFSRoot{}, fmt.Errorf("%q has a character that cannot be mounted", s)
	}
	return r, nil
}

// Validate checks that the options can be done.
func (o LiveOptions) Validate() error {
	if _, err := ParseLiveSize(o.Size, 1<<30); err != nil {
		return fmt.Errorf("live size: %w", err)
	}
	dirs := map[string]bool{}
	for _, p := range o.Persist {
		k, err := ParsePersistent(p)
		if err == nil && dirs[k.Dir] {
			err = fmt.Errorf("%s is given twice", k.Dir)
		}
		if err != nil {
			return fmt.Errorf("live persist: %w", err)
		}
		dirs[k.Dir] = true
	}
	if o.Root != "" {
		if _, err := ParseNFSRoot(o.Root); err != nil {
			return fmt.Errorf("live root: %w", err)
		}
	}
	return nil
}
