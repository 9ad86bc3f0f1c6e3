package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/dnf"
	"imgbuild/builder/tree"
)

// kernel copies the kernel to /boot, where packages that are told to bypass kernel-install have not put it, makes the
// installed system's initramfs and finds the boot loaders.
func (b *build) kernel(ctx context.Context) (outcome, error) {
	var err error
	if b.release, err = kernelRelease(b.tree, b.o.Profile.Kernel.Package, b.lock); err != nil {
		return outcome{}, err
	}
	if err := copyKernel(b.tree, b.release); err != nil {
		return outcome{}, err
	}
	if b.distro, err = distro(b.tree, b.o.Profile); err != nil {
		return outcome{}, err
	}
	if b.loaders, err = bootLoaders(b.tree, b.o.Profile, b.distro.Name); err != nil {
		return outcome{}, err
	}
	out := outcome{note: b.release}
	err = b.inside(func() error {
		if depmod := b.tree.First("/usr/sbin/depmod", "/sbin/depmod", "/usr/bin/depmod"); depmod != "" {
			if err := b.runner.Run(ctx, b.chroot(depmod, "-a", b.release)); err != nil {
				return fmt.Errorf("list the kernel's modules: %w", err)
			}
		}
		out.reused, err = b.bootImage(ctx)
		return err
	})
	if err != nil {
		return outcome{}, err
	}
	st, err := b.tree.Stat(initramfsPath(b.release))
	if err != nil {
		return outcome{}, fmt.Errorf("make the installed system's initramfs: dracut wrote none: %w", err)
	}
	out.bytes = st.Size()
	if out.reused {
		out.note += ", initramfs of the cache"
	}
	return out, nil
}

func initramfsPath(release string) string { return "/boot/initramfs-" + release + ".img" }

// kernelRelease finds the kernel to boot: the only one, or that of the profile's kernel package.
func kernelRelease(t *tree.Tree, pkg string, lock *dnf.Lock) (string, error) {
	var found []string
	entries, err := t.ReadDir("/usr/lib/modules")
	if errors.Is(err, fs.ErrNotExist) {
		entries, err = t.ReadDir("/lib/modules")
	}
	if err != nil {
		return "", fmt.Errorf("find the image's kernel: %w; the profile's kernel package %s has brought none", err, pkg)
	}
	for _, e := range entries {
		if kernelFile(t, e.Name()) != "" {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("find the image's kernel: no directory of /usr/lib/modules has a vmlinuz, in it or in /boot; does the profile's kernel package %s bring a kernel?", pkg)
	case 1:
		return found[0], nil
	}
	for _, name := range []string{pkg + "-core", pkg} {
		p, ok := lock.Find(name)
		if !ok {
			continue
		}
		release := dnf.Release(p.NEVRA)
		if slices.Contains(found, release) {
			return release, nil
		}
		// kernel-rt and its like add a suffix to the release
		for _, f := range found {
			if strings.HasPrefix(f, release) {
				return f, nil
			}
		}
	}
	return "", fmt.Errorf("find the image's kernel: there are %s, and none is that of the package %s; name the one to boot with kernel.package", strings.Join(found, ", "), pkg)
}

// kernelFile is where the kernel of a release lies.
func kernelFile(t *tree.Tree, release string) string {
	return t.First("/usr/lib/modules/"+release+"/vmlinuz", "/lib/modules/"+release+"/vmlinuz", "/boot/vmlinuz-"+release)
}

// copyKernel does what kernel-install's 20-grub plugin does: kernel, symbol table, configuration and checksum in /boot.
func copyKernel(t *tree.Tree, release string) error {
	dir := path.Dir(kernelFile(t, release))
	if dir == "/boot" {
		return nil
	}
	for from, to := range map[string]string{
		"vmlinuz": "vmlinuz-" + release, "System.map": "System.map-" + release, "config": "config-" + release,
		"symvers.gz": "symvers-" + release + ".gz", "symvers.xz": "symvers-" + release + ".xz", ".vmlinuz.hmac": ".vmlinuz-" + release + ".hmac",
	} {
		if err := copyInside(t, path.Join(dir, from), path.Join("/boot", to)); err != nil && (from == "vmlinuz" || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("copy the kernel to /boot: %w", err)
		}
	}
	return nil
}

func copyInside(t *tree.Tree, from, to string) error {
	f, err := t.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return t.Write(to, f, tree.Meta{Mode: st.Mode().Perm()})
}

// bootImage has the image's dracut make a generic initramfs, or takes the one that the same packages and configuration
// gave before.
func (b *build) bootImage(ctx context.Context) (reused bool, err error) {
	key, err := b.kernelDigest(filepath.Base(b.treeDir))
	if err != nil {
		return false, err
	}
	if key, err = digest(key, b.date.Unix()); err != nil {
		return false, err
	}
	kept := b.cache.path("boot", key)
	if f, err := os.Open(kept); err == nil {
		defer f.Close()
		touch(kept)
		return true, b.tree.Write(initramfsPath(b.release), f, tree.Secret())
	}
	if err := b.dracut(ctx); err != nil {
		return false, err
	}
	f, err := b.tree.Open(initramfsPath(b.release))
	if err != nil {
		return false, fmt.Errorf("make the installed system's initramfs: dracut wrote none: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err == nil {
		err = writeFile(kept, data)
	}
	return false, errors.Join(err, b.cache.prune("boot", 2*keepTrees))
}

func (b *build) dracut(ctx context.Context) error {
	dracut := b.tree.First("/usr/bin/dracut", "/usr/sbin/dracut", "/sbin/dracut")
	if dracut == "" {
		return errors.New("make the installed system's initramfs: the image has no dracut; add the package dracut")
	}
	argv := []string{dracut, "--no-hostonly", "--force"}
	if b.o.Profile.Distro.Major >= 8 {
		argv = append(argv, "--reproducible", "--no-hostonly-cmdline")
	}
	if add := needsOf(b.o.Profile).dracutModules(); len(add) > 0 {
		argv = append(argv, "--add", strings.Join(add, " "))
	}
	argv = append(argv, dracutCompression(b.tree, b.release, b.o.Profile.Distro.Major))
	argv = append(argv, initramfsPath(b.release), b.release)
	c := b.chroot(argv...)
	c.Line = stepLines(b.o.Report, "dracut")
	if err := b.runner.Run(ctx, c); err != nil {
		return fmt.Errorf("make the installed system's initramfs: %w", err)
	}
	return nil
}

// kernelConfig is where the image says how its kernel was configured; empty where nothing says it.
func kernelConfig(t *tree.Tree, release string) string {
	return t.First("/usr/lib/modules/"+release+"/config", "/lib/modules/"+release+"/config", "/boot/config-"+release)
}

// dracutCompression is the fastest that the kernel unpacks and the image can make.
func dracutCompression(t *tree.Tree, release string, major int) string {
	config := kernelConfig(t, release)
	if config == "" || major < 9 || t.First("/usr/bin/zstd") == "" {
		return "--gzip"
	}
	data, err := t.ReadFile(config)
	if err != nil || !strings.Contains(string(data), "\nCONFIG_RD_ZSTD=y\n") {
		return "--gzip"
	}
	return "--zstd"
}
