package livebench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"imgbuild/image"
	"imgbuild/testvm"
)

// dracuts makes dracut's initramfs for the release's kernel, with all that dracut takes by itself, and with the kernel modules of the
// release's own initramfs alone. Both have what a live start over the network needs (dracut.cmdline(7), Booting live images).
func dracuts(ctx context.Context, o Options, m *image.Manifest, dir string) ([]contender, error) {
	modules := filepath.Join(dir, "usr/lib/modules", m.KernelRelease)
	if err := o.command(ctx, "unsquashfs", "-quiet", "-no-progress", "-force", "-dest", dir, filepath.Join(o.Release, image.RootfsFile),
		"usr/lib/modules/"+m.KernelRelease); err != nil {
		return nil, err
	}
	// depmod looks there.
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
		return nil, fmt.Errorf("lay out the release's modules: %w", err)
	}
	compression, err := compressionOf(filepath.Join(o.Release, image.InitramfsFile))
	if err != nil {
		return nil, err
	}
	// The host's own configuration of dracut is for this host.
	if err := os.Mkdir(filepath.Join(dir, "none"), 0o755); err != nil {
		return nil, fmt.Errorf("make a directory for dracut: %w", err)
	}
	var all []contender
	for _, c := range []struct {
		name, file string
		prepare    func() error
	}{
		{"dracut, all drivers", "dracut-all", func() error { return nil }},
		{"dracut, our drivers", "dracut-same", func() error { return o.onlyModulesOf(ctx, m, dir, modules) }},
	} {
		if err := c.prepare(); err != nil {
			return nil, err
		}
		out := filepath.Join(dir, c.file+".img")
		argv := []string{"dracut", "--force", "--conf", os.DevNull, "--confdir", filepath.Join(dir, "none"), "--tmpdir", dir,
			"--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode", "--kver", m.KernelRelease, "--kmoddir", modules, "--add", "dmsquash-live livenet"}
		if err := o.command(ctx, append(append(argv, compression...), out)...); err != nil {
			return nil, err
		}
		all = append(all, contender{name: c.name, file: c.file, initrd: out, args: dracutArgs})
	}
	return all, nil
}

// dracutArgs are the kernel arguments of a live start from a squashfs that has the root itself and no file system image in it. Without
// rd.live.ram it is in memory as well, once: what came over the network lies in the initramfs; with it there would be a second copy.
func dracutArgs(n *testvm.Network) []string {
	return []string{"root=live:" + n.URL(image.RootfsFile), "rd.live.image", "rd.live.overlay.overlayfs=1", "ip=dhcp"}
}

// onlyModulesOf leaves no other kernel modules than those in the release's initramfs.
func (o *Options) onlyModulesOf(ctx context.Context, m *image.Manifest, dir, modules string) error {
	var list bytes.Buffer
	c, err := o.prepare(ctx, "lsinitrd", filepath.Join(o.Release, image.InitramfsFile))
	if err != nil {
		return err
	}
	c.Stdout = &list
	if err := c.Run(); err != nil {
		return fmt.Errorf("list the modules of the release's initramfs with lsinitrd: %w", err)
	}
	kept := moduleNames(list.String())
	if len(kept) == 0 {
		return errors.New("list the modules of the release's initramfs: lsinitrd names none")
	}
	err = filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if name := moduleName(path); name != "" && !kept[name] {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave the release's modules: %w", err)
	}
	return o.command(ctx, "depmod", "--basedir", dir, m.KernelRelease)
}

// moduleNames reads what ls -l says of an initramfs.
func moduleNames(list string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(line, "-") {
			continue
		}
		if name := moduleName(f[len(f)-1]); name != "" {
			names[name] = true
		}
	}
	return names
}

// moduleName is the name of a kernel module by its file's, and empty for other files.
func moduleName(file string) string {
	if m := regexp.MustCompile(`^(.+)\.ko(\.(gz|xz|zst))?$`).FindStringSubmatch(path.Base(file)); m != nil {
		return strings.ReplaceAll(m[1], "-", "_")
	}
	return ""
}

// compressionOf returns dracut's argument for how a file is compressed, so that the kernel unpacks both in the same way; none where
// dracut may choose.
func compressionOf(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("see how the release's initramfs is compressed: %w", err)
	}
	defer f.Close()
	head, err := bufio.NewReader(f).Peek(6)
	if err != nil {
		return nil, fmt.Errorf("see how the release's initramfs is compressed: %w", err)
	}
	for magic, arg := range map[string]string{"\x28\xb5\x2f\xfd": "--zstd", "\xfd7zXZ\x00": "--xz", "\x1f\x8b": "--gzip"} {
		if strings.HasPrefix(string(head), magic) {
			return []string{arg}, nil
		}
	}
	return nil, nil
}

// prepare makes a command of a program of the host.
func (o *Options) prepare(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("%w; make setup-test installs it", err)
	}
	c := exec.CommandContext(ctx, program, argv[1:]...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	return c, nil
}

// command runs a program of the host.
func (o *Options) command(ctx context.Context, argv ...string) error {
	c, err := o.prepare(ctx, argv...)
	if err != nil {
		return err
	}
	out, err := c.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		o.Log(strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, lastLine(string(out)))
	}
	return nil
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\r\n ")
	return s[strings.LastIndexByte(s, '\n')+1:]
}
