package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/netconf"
)

// MetadataFile has the host's metadata, a JSON object, in the installed system. Only root reads it.
const MetadataFile = "etc/imgbuild/host.json"

// Host is what a server knows of the machine, for its installed system.
type Host struct {
	plan.Host
	Serial string
	// NICs are the machine's network cards, as the inventory has them.
	NICs []plan.NIC
}

var (
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}[a-z0-9_$-]?$`)
	octal    = regexp.MustCompile(`^0?[0-7]{3,4}$`)
	serial   = regexp.MustCompile(`^(tty(S|AMA|USB|MV|PS|LP|mxc)[0-9]{1,3}|hvc[0-9]{1,3})(,[0-9]{3,7}([noe]([5-8]r?)?)?)?$`)
)

// Check finds everything that is wrong with a host before anything is erased; what depends on the image's own files
// (groups that it does not have) shows later. m is the release that is to be installed.
func (h Host) Check(m *image.Manifest) error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("check what the server says of this host: "+format, a...))
	}
	if h.SerialConsole != "" && !serial.MatchString(h.SerialConsole) {
		bad("the serial console %q is not written as ttyS1,115200n8", h.SerialConsole)
	}
	seen := map[string]bool{}
	for _, u := range h.Users {
		if !userName.MatchString(u.Name) {
			bad("%q is no login name", u.Name)
		}
		if seen[u.Name] {
			bad("the user %s is there twice", u.Name)
		}
		seen[u.Name] = true
		for _, field := range append([]string{u.Password, u.Shell, u.Comment}, u.SSHKeys...) {
			if strings.ContainsAny(field, "\n\r\x00") {
				bad("a field of the user %s has a line break", u.Name)
			}
		}
		if strings.Contains(u.Password+u.Shell+u.Comment, ":") {
			bad("a field of the user %s has a colon", u.Name)
		}
		if u.Sudo != "" && u.Sudo != "all" && u.Sudo != "nopasswd" {
			bad("the user %s: sudo is %q, and not all or nopasswd", u.Name, u.Sudo)
		}
		if u.UID < 0 {
			bad("the user %s has the UID %d", u.Name, u.UID)
		}
	}
	for _, f := range h.Files {
		if !strings.HasPrefix(f.Path, "/") || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsRune(f.Path, 0) {
			bad("%q is not the absolute path of a file", f.Path)
		}
		if f.Mode != "" && !octal.MatchString(f.Mode) {
			bad("%s: the mode %q is not octal", f.Path, f.Mode)
		}
	}
	if _, err := h.metadata(); err != nil {
		bad("%w", err)
	}
	if _, err := h.networkFiles(m, ""); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// metadata is the metadata as it is written, an empty object where there is none.
func (h Host) metadata() ([]byte, error) {
	if len(h.Metadata) == 0 {
		return []byte("{}\n"), nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(h.Metadata, &object); err != nil {
		return nil, fmt.Errorf("the metadata is no JSON object: %w", err)
	}
	if object == nil { // null
		return []byte("{}\n"), nil
	}
	return append(slices.Clip([]byte(h.Metadata)), '\n'), nil
}

func (h Host) networkFiles(m *image.Manifest, hosts string) ([]netconf.File, error) {
	return netconf.Files(h.Network, h.Hostname, h.NICs, netconf.Options{Format: m.NetworkFormat, Major: major(m.Distro.Release), Serial: h.Serial, Hosts: hosts})
}

// WithConsole returns kernel arguments with a serial console as the last, which is the one that the kernel takes for
// /dev/console. An argument for the same line is replaced; where there was no console, the screen stays one.
func WithConsole(args []string, console string) []string {
	if console == "" {
		return args
	}
	device, _, _ := strings.Cut(console, ",")
	var out []string
	consoles := 0
	for _, a := range args {
		v, ok := strings.CutPrefix(a, "console=")
		if ok {
			if d, _, _ := strings.Cut(v, ","); d == device {
				continue
			}
			consoles++
		}
		out = append(out, a)
	}
	if consoles == 0 {
		out = append(out, "console=tty0")
	}
	return append(out, "console="+console)
}

// Apply makes the installed tree the system of this host: network and host name, users, files, metadata. now is when
// passwords count as changed.
func (h Host) Apply(root *os.Root, m *image.Manifest, now time.Time) error {
	w, err := newWriter(root)
	if err != nil {
		return fmt.Errorf("configure this host: %w", err)
	}
	if err := errors.Join(h.network(w, m), h.users(w, now), h.files(w), h.writeMetadata(w)); err != nil {
		return fmt.Errorf("configure this host: %w", err)
	}
	return nil
}

func (h Host) network(w *writer, m *image.Manifest) error {
	hosts, err := w.read("etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := h.networkFiles(m, string(hosts))
	if err != nil {
		return err
	}
	if h.Network != nil {
		for _, glob := range netconf.Replaced(m.NetworkFormat) {
			if err := w.remove(glob); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		if err := w.write(f.Name, []byte(f.Content), meta{mode: f.Mode}); err != nil {
			return err
		}
	}
	if h.Hostname != "" && w.exists("etc/cloud") {
		return w.write("etc/cloud/cloud.cfg.d/99-imgbuild.cfg", []byte("# The host name is that of /etc/hostname.\npreserve_hostname: true\n"), meta{mode: 0o644})
	}
	return nil
}

func (h Host) files(w *writer) error {
	a, err := loadAccounts(w, time.Time{})
	if err != nil {
		return err
	}
	for _, f := range h.Files {
		m := meta{mode: 0o644}
		if f.Mode != "" {
			if m.mode, err = parseMode(f.Mode); err != nil {
				return err
			}
		}
		uid, err1 := a.Lookup(f.Owner, false)
		gid, err2 := a.Lookup(f.Group, true)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		m.uid, m.gid = uid, gid
		if err := w.write(f.Path, []byte(f.Content), m); err != nil {
			return err
		}
	}
	return nil
}

// parseMode reads an octal mode with its setuid, setgid and sticky bits.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("the mode %q is not octal", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= flag
		}
	}
	return mode, nil
}

func (h Host) writeMetadata(w *writer) error {
	data, err := h.metadata()
	if err != nil {
		return err
	}
	return w.write(MetadataFile, data, meta{mode: 0o600})
}
