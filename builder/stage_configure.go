package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgbuild/builder/configure"
	"imgbuild/builder/sandbox"
	"imgbuild/builder/tool"
	"imgbuild/builder/tree"
	"imgbuild/profiles"
)

// openImage lays an empty directory over the installed packages: the image is what both show together, and the cached
// tree stays as it is. Where the kernel has no overlays here, the tree is copied.
func (b *build) openImage(ctx context.Context) (note string, err error) {
	lower := filepath.Join(b.treeDir, "root")
	upper, work := filepath.Join(b.work, "upper"), filepath.Join(b.work, "overlay")
	for _, d := range []string{upper, work, b.root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", fmt.Errorf("make the image's root: %w", err)
		}
	}
	// The image's own root directory is the upper one's: its attributes have to be the package's.
	if err := copyAttributes(lower, upper); err != nil {
		return "", err
	}
	err = b.mounts.Overlay(lower, upper, work, b.root)
	if err != nil {
		b.runner.Note("overlay refused: %v", err)
		note = "copied: this file system takes no overlays"
		if err := b.runner.Run(ctx, tool.Command{Argv: []string{"cp", "-a", "--reflink=auto", lower + "/.", b.root}}); err != nil {
			return "", fmt.Errorf("copy the installed packages: %w", err)
		}
	}
	b.tree, err = tree.Open(b.root)
	return note, err
}

func copyAttributes(from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Chmod(to, st.Mode().Perm()); err != nil {
		return err
	}
	value := make([]byte, 256)
	n, err := unix.Getxattr(from, selinuxAttribute, value)
	if err != nil {
		return nil // no label to copy
	}
	if err := unix.Setxattr(to, selinuxAttribute, value[:n], 0); err != nil {
		return fmt.Errorf("label %s: %w", to, err)
	}
	return nil
}

// inside runs f while the image has /proc, /sys and /dev.
func (b *build) inside(f func() error) error {
	m := &sandbox.Mounts{}
	err := m.Populate(b.root, sandbox.System{Kernel: true})
	if err == nil {
		err = f()
	}
	return errors.Join(err, m.Close())
}

// configure writes the profile's configuration.
func (b *build) configure(ctx context.Context) (outcome, error) {
	note, err := b.openImage(ctx)
	if err != nil {
		return outcome{}, err
	}
	if err := b.checkTools(); err != nil {
		return outcome{}, err
	}
	p := b.o.Profile
	if err := errors.Join(
		configure.Accounts(b.tree, p, b.date),
		configure.System(b.tree, p),
		configure.Files(b.tree, p),
		configure.Scripts(b.tree, p),
	); err != nil {
		return outcome{}, err
	}
	if p.System.SELinux != "disabled" && configure.Policy(b.tree) == "" {
		b.note("SELinux is to be %s, but the image has no policy: it runs without SELinux; add the package selinux-policy-targeted, or set system.selinux to disabled", p.System.SELinux)
	}
	return outcome{note: note}, b.inside(func() error {
		return errors.Join(b.checkSudo(ctx), b.services(ctx))
	})
}

// checkSudo has the image's visudo read the profile's rules: a mistake there locks everybody out.
func (b *build) checkSudo(ctx context.Context) error {
	visudo := b.tree.First("/usr/sbin/visudo", "/sbin/visudo")
	if visudo == "" {
		return nil
	}
	for _, file := range configure.SudoFiles(b.o.Profile) {
		if err := b.runner.Run(ctx, b.chroot(visudo, "-c", "-f", file)); err != nil {
			return fmt.Errorf("check the profile's sudo rules in %s: %w", file, err)
		}
	}
	return nil
}

// unitDirs are where units come from, the strongest first.
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}

func unitName(s string) string {
	if path.Ext(s) == "" || !slices.Contains([]string{".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".swap", ".slice"}, path.Ext(s)) {
		return s + ".service"
	}
	return s
}

// services applies the distribution's presets and then the profile's wishes. Unknown units are reported all at once.
func (b *build) services(ctx context.Context) error {
	systemctl := b.tree.First("/usr/bin/systemctl", "/bin/systemctl")
	if systemctl == "" {
		return errors.New("enable services: the image has no systemctl; the package systemd is not installed")
	}
	s := b.o.Profile.Services
	enable, disable, mask := unitNames(s.Enable), unitNames(s.Disable), unitNames(s.Mask)
	if f := b.o.Profile.System.Firewall.Enabled; f != nil {
		if *f {
			enable = append(enable, "firewalld.service")
		} else if b.unit("firewalld.service") {
			disable = append(disable, "firewalld.service")
		}
	}
	if err := b.knownUnits(enable, disable); err != nil {
		return err
	}
	// Presets may name units whose links cannot be made; systemctl says so, and it is not the profile's fault.
	if err := b.runner.Run(ctx, b.chroot(systemctl, "preset-all")); err != nil {
		if ctx.Err() != nil {
			return err
		}
		b.runner.Note("systemctl preset-all complained: %v", err)
	}
	for _, step := range []struct {
		verb  string
		units []string
	}{{"disable", disable}, {"enable", enable}, {"mask", mask}} {
		if len(step.units) == 0 {
			continue
		}
		if err := b.runner.Run(ctx, b.chroot(append([]string{systemctl, step.verb}, step.units...)...)); err != nil {
			return fmt.Errorf("%s services: %w", step.verb, err)
		}
	}
	return nil
}

func unitNames(names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, unitName(n))
	}
	return out
}

// unit reports whether the image has a unit; an instance's template counts.
func (b *build) unit(name string) bool {
	if at := strings.IndexByte(name, '@'); at >= 0 {
		name = name[:at+1] + path.Ext(name)
	}
	for _, d := range unitDirs() {
		if _, err := b.tree.Lstat(path.Join(d, name)); err == nil {
			return true
		}
	}
	return b.tree.Exists("/etc/init.d/" + strings.TrimSuffix(name, ".service"))
}

func (b *build) knownUnits(enable, disable []string) error {
	var candidates []string
	for _, d := range unitDirs() {
		entries, err := b.tree.ReadDir(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list the image's units: %w", err)
		}
		for _, e := range entries {
			candidates = append(candidates, e.Name())
		}
	}
	var errs []error
	for _, list := range []struct {
		key   string
		units []string
	}{{"services.enable", enable}, {"services.disable", disable}} {
		for _, u := range list.units {
			if b.unit(u) {
				continue
			}
			msg := fmt.Sprintf("%s names %s, which no installed package has", list.key, u)
			if near := nearest(u, candidates); near != "" {
				msg += "; did you mean " + strings.TrimSuffix(near, ".service") + "?"
			}
			errs = append(errs, errors.New(msg))
		}
	}
	return errors.Join(errs...)
}

// scripts runs the profile's scripts in the image.
func (b *build) scripts(ctx context.Context) (outcome, error) {
	n := len(b.o.Profile.Scripts)
	return outcome{note: fmt.Sprintf("%d scripts", n)}, b.inside(func() error {
		for _, s := range b.o.Profile.Scripts {
			if err := b.script(ctx, s); err != nil {
				return fmt.Errorf("the profile's script %s: %w", s.Name, err)
			}
		}
		return nil
	})
}

func (b *build) script(ctx context.Context, s profiles.Script) (err error) {
	text := []byte(s.Run)
	if s.File != "" {
		if text, err = os.ReadFile(s.File); err != nil {
			return err
		}
	}
	// /run is emptied by the cleaning.
	const name = "/run/imgbuild-script"
	if err := b.tree.WriteFile(name, text, tree.Meta{Mode: 0o700}); err != nil {
		return err
	}
	argv := []string{"/bin/sh", "-e", name}
	if bytes.HasPrefix(text, []byte("#!")) {
		argv = []string{name}
	}
	c := b.chroot(argv...)
	if s.Network {
		c.NoNetwork = false
		resolver, err := b.showResolver()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, resolver()) }()
	}
	return errors.Join(b.runner.Run(ctx, c), b.tree.Remove(name))
}

// showResolver shows the host's resolv.conf in the image until the returned function is called.
func (b *build) showResolver() (hide func() error, err error) {
	const name = "/etc/resolv.conf"
	host, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("give a script the network: %w", err)
	}
	// The image's own may be a link to a file that exists only at run time: it is put aside and comes back.
	aside := name + ".imgbuild"
	own := filepath.Join(b.root, aside)
	there := true
	if err := os.Rename(filepath.Join(b.root, name), own); errors.Is(err, fs.ErrNotExist) {
		there = false
	} else if err != nil {
		return nil, fmt.Errorf("give a script the network: %w", err)
	}
	if err := b.tree.WriteFile(name, host, tree.RootFile()); err != nil {
		return nil, err
	}
	return func() error {
		if there {
			return os.Rename(own, filepath.Join(b.root, name))
		}
		return b.tree.Remove(name)
	}, nil
}
