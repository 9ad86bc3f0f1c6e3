package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"imgbuild/builder/progress"
	"imgbuild/builder/tool"
	"imgbuild/initramfs"
	"imgbuild/profiles"
)

// host is what a preflight asks of the build host and the network; tests answer in its place.
type host struct {
	uid    func() int
	goarch string
	// find says where a program is; version what it prints when asked for its version.
	find    func(name string) (string, error)
	version func(ctx context.Context, argv []string) (string, error)
	// free is the free space, in bytes, of the file system of the nearest existing directory above path.
	free func(path string) (int64, error)
	// repository asks a repository for its metadata.
	repository func(ctx context.Context, r profiles.Repository, expand func(string) string) error
	// mkimage says where the program is that makes GRUB's core.
	mkimage func() (string, error)
}

// need is a program that a build needs.
type need struct {
	name       string
	ask        []string // arguments that make it print its version
	least      string
	debian, el string // packages that have it
	why        string
}

func needs(p *profiles.Profile) []need {
	out := []need{
		{"dnf", []string{"--version"}, "4.7", "dnf", "dnf", "installs packages"},
		{"rpm", []string{"--version"}, "4.14", "rpm", "rpm", "reads packages"},
		{"mksquashfs", []string{"-version"}, "4.4", "squashfs-tools", "squashfs-tools", "packs the root file system"},
		{"cp", nil, "", "coreutils", "coreutils", "copies trees where there are no overlays"},
	}
	switch initramfs.HostProgram(compression(p), p.Pack.Level == "release") {
	case "xz":
		out = append(out, need{"xz", nil, "", "xz-utils", "xz", "packs the initramfs"})
	case "zstd":
		out = append(out, need{"zstd", nil, "", "zstd", "zstd", "packs the initramfs of a release"})
	}
	if slices.Contains(needsOf(p).tools, toolExtlinux) && p.Distro.Major >= 10 {
		out = append(out, need{"extlinux", nil, "", "extlinux", "syslinux-extlinux", "starts BIOS machines, and EL10 has none of its own"})
	}
	if withISO(p) {
		out = append(out, isoNeeds(p)...)
	}
	return out
}

// compression is how the initramfs will be packed, or empty where only the image's kernel can tell, which is not there yet.
func compression(p *profiles.Profile) string {
	switch c := p.Initramfs.Compression; {
	case c != "auto":
		return c
	case p.Distro.Major <= 7 && p.Distro.ID != "standin":
		return initramfs.XZ
	case p.Distro.Major >= 9:
		return initramfs.Zstd
	}
	return ""
}

// Space that a build needs, in bytes: a new tree with its packages and the packed image, or only the image.
const (
	spaceForTree  = 5 << 30
	spaceForImage = 2 << 30
	spaceForOut   = 1 << 30
)

// preflight is the stage. Repositories are not asked when nothing is wanted of them.
func (b *build) preflight(ctx context.Context) (outcome, error) {
	kept, err := b.kept()
	if err != nil {
		return outcome{}, err
	}
	transport := newTransport(b.o.Env)
	h := host{
		uid: os.Geteuid, goarch: runtime.GOARCH, find: tool.Find, version: askVersion, free: freeSpace, repository: transport.check, mkimage: hostMkimage,
	}
	if err := h.check(ctx, b.Plan, !kept); err != nil {
		return outcome{}, err
	}
	var made bool
	if b.key, made, err = loadKey(b.o.KeyFile); err != nil {
		return outcome{}, err
	}
	if made {
		b.note("there was no signing key, so one was made: %s; keep it, because machines are told to trust its public part, key %s", b.o.KeyFile, b.key.Public().ID())
	}
	note := "tools, space, keys and all repositories are there"
	if kept {
		note = "repositories are not needed"
	}
	return outcome{note: note}, nil
}

func (h host) check(ctx context.Context, p *Plan, repositories bool) error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	pr := p.options.Profile
	if h.uid() != 0 {
		add(errors.New("a build needs root: it installs packages with their owners and mounts file systems; run it with sudo"))
	}
	add(h.architecture(pr.Arch))
	for _, n := range needs(pr) {
		add(h.tool(ctx, n))
	}
	cache, what := int64(spaceForImage), "an image"
	if repositories {
		cache, what = spaceForTree, "packages and an image"
	}
	if hostGRUB(pr) {
		_, err := h.mkimage()
		add(err)
	}
	add(h.space(p.options.Cache, cache, what))
	out := int64(spaceForOut)
	if withISO(pr) {
		out *= 2
	}
	add(h.space(p.options.Out, out, "a release"))
	_, err := p.keyTexts()
	add(err)
	add(signingKey(p.options.KeyFile))
	_, err = p.options.Installer(pr.Arch, true)
	if err == nil { // one goes in, and both are weighed
		_, err = p.options.Installer(pr.Arch, false)
	}
	add(err)
	if repositories {
		add(h.repositories(ctx, p))
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.Join(errs...)
}

func (h host) architecture(arch string) error {
	native := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[h.goarch]
	if native == arch {
		return nil
	}
	return fmt.Errorf("the profile is for %s and this host is %s: packages run programs of their own while they are installed, so build it on a host of its architecture", arch, native)
}

func (h host) tool(ctx context.Context, n need) error {
	install := fmt.Sprintf("install the package %s (Debian) or %s (EL)", n.debian, n.el)
	path, err := h.find(n.name)
	if err != nil {
		return fmt.Errorf("the program %s, which %s, is missing: %s", n.name, n.why, install)
	}
	if n.least == "" {
		return nil
	}
	text, err := h.version(ctx, append([]string{path}, n.ask...))
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", path, err)
	}
	found := versionIn(text)
	if found == "" {
		return fmt.Errorf("ask %s for its version: it does not say one", path)
	}
	if compareVersions(found, n.least) < 0 {
		return fmt.Errorf("%s is version %s and %s or later is needed: %s", path, found, n.least, install)
	}
	if n.name == "dnf" && compareVersions(found, "5") >= 0 {
		return fmt.Errorf("%s is version %s, which has another command line; %s of version 4", path, found, install)
	}
	return nil
}

func askVersion(ctx context.Context, argv []string) (string, error) {
	var b strings.Builder
	err := tool.NewRunner(discard{}).Run(ctx, tool.Command{Argv: argv, Line: func(l string) { b.WriteString(l + "\n") }})
	var failed *tool.Error
	if errors.As(err, &failed) && b.Len() > 0 {
		err = nil // mksquashfs -version exits with 1 in some versions
	}
	return b.String(), err
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

var versionRE = regexp.MustCompile(`\d+(?:\.\d+)+`)

// versionIn returns the first thing in a text that looks like a version.
func versionIn(text string) string { return versionRE.FindString(text) }

// compareVersions compares numbers between dots.
func compareVersions(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i]) // digits, by the pattern
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m - n
		}
	}
	return 0
}

func (h host) space(path string, least int64, what string) error {
	free, err := h.free(path)
	if err != nil {
		return fmt.Errorf("measure the free space for %s: %w", path, err)
	}
	if free < least {
		return fmt.Errorf("%s has %s free, and %s needs about %s: free some, or choose another directory", path, progress.Bytes(free), what, progress.Bytes(least))
	}
	return nil
}

func freeSpace(path string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, unix.ENOENT) || path == "/" {
			return 0, err
		}
		path = filepath.Dir(path)
	}
}

// signingKey checks that the key can be read, or that there is none and one can be made.
func signingKey(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, _, err = loadKey(path)
	}
	if err != nil {
		return fmt.Errorf("the signing key is not usable: %w", err)
	}
	return nil
}

// repositories asks all repositories at the same time.
func (h host) repositories(ctx context.Context, p *Plan) error {
	ids := slices.Sorted(maps.Keys(p.config.Repositories))
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			if err := h.repository(ctx, p.config.Repositories[id], p.config.Expand); err != nil {
				errs[i] = fmt.Errorf("repository %s does not answer: %w", id, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
