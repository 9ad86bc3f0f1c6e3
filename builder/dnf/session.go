package dnf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/sandbox"
	"imgbuild/builder/tool"
)

// homeMount is where dnf's home directory is shown. It lies below /run so that what a scriptlet writes to $HOME in the
// image is in a directory that is emptied.
const homeMount = "/run/imgbuild"

// Session is dnf at work on one installation root.
type Session struct {
	Runner *tool.Runner
	Config Config
	// Work is a directory of this session; Cache is dnf's cache, kept between sessions; Root is the installation's root.
	Work, Cache, Root string
	// Env are further variables: proxies, SOURCE_DATE_EPOCH.
	Env []string
	// Inputs is the digest of what is asked for, for the lock.
	Inputs string
}

// Failure is what dnf could not do, in sentences.
type Failure struct {
	Doing   string
	Reasons []string
	// Unknown are the packages and groups that no repository has.
	Unknown []string
	Err     error
}

// Error gives the reasons; the tool's last lines follow when no reason was recognised.
func (f *Failure) Error() string {
	if len(f.Reasons) == 0 {
		return f.Doing + ": " + f.Err.Error()
	}
	return f.Doing + ": " + strings.Join(f.Reasons, "; ")
}

// Unwrap returns the tool's error.
func (f *Failure) Unwrap() error { return f.Err }

// Prepare writes the configuration and mounts what dnf needs in the root directory. The caller closes m.
func (s *Session) Prepare(m *sandbox.Mounts) error {
	dirs := []string{"none", "vars", "home", "private", "private/cache", "private/persist", "private/log"}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(s.Work, d), 0o755); err != nil {
			return fmt.Errorf("prepare dnf: %w", err)
		}
	}
	files := map[string]string{"dnf.conf": s.Config.Text(s.Work), "home/.rpmmacros": s.Config.Macros()}
	for name, value := range s.Config.Variables() {
		files[filepath.Join("vars", name)] = value + "\n"
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(s.Work, name), []byte(files[name]), 0o644); err != nil {
			return fmt.Errorf("prepare dnf: %w", err)
		}
	}
	private := filepath.Join(s.Root, Private)
	for _, d := range []string{s.Cache, private, homeMount} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("prepare dnf: %w", err)
		}
	}
	return errors.Join(
		m.Hide("/etc/rpm", "/etc/dnf", "/etc/yum", "/etc/yum.repos.d", "/etc/distro.repos.d"),
		m.Bind(filepath.Join(s.Work, "home"), homeMount),
		m.Bind(filepath.Join(s.Work, "private"), private),
		m.Bind(s.Cache, filepath.Join(private, "cache")),
	)
}

// Finish removes the mount point of the private directory. The mounts are gone by then.
func (s *Session) Finish() error {
	if err := os.Remove(filepath.Join(s.Root, Private)); err != nil {
		return fmt.Errorf("tidy up after dnf: %w", err)
	}
	return nil
}

func (s *Session) command(args ...string) tool.Command {
	argv := []string{"dnf", "--config", filepath.Join(s.Work, "dnf.conf"), "--installroot", s.Root, "--releasever", s.Config.Distro.Release}
	env := []string{
		"HOME=" + homeMount, "LC_ALL=C.UTF-8", "DNF_DISABLE_ALIASES=1", "PYTHONUNBUFFERED=1", "SYSTEMD_OFFLINE=1", "KERNEL_INSTALL_BYPASS=1",
	}
	return tool.Command{Argv: append(argv, args...), Env: append(env, s.Env...)}
}

// run runs dnf and turns what it says into progress and, if it fails, a Failure.
func (s *Session) run(ctx context.Context, doing string, progress func(Progress), c tool.Command) error {
	scan := Scanner{Progress: progress}
	c.Line = scan.Reader()
	err := s.Runner.Run(ctx, c)
	var failed *tool.Error
	if !errors.As(err, &failed) {
		return err
	}
	return &Failure{Doing: doing, Reasons: scan.Reasons(), Unknown: scan.Unknown(), Err: err}
}

// Refresh asks the repositories for their present metadata.
func (s *Session) Refresh(ctx context.Context, progress func(Progress)) error {
	return s.run(ctx, "read the repositories' metadata", progress, s.command("makecache", "--refresh"))
}

// Names returns the names of all packages that the repositories offer, from the metadata that is there.
func (s *Session) Names(ctx context.Context) ([]string, error) {
	out, err := s.Runner.Output(ctx, s.command("-C", "-q", "repoquery", "--available", "--qf", "%{name}"))
	if err != nil {
		return nil, fmt.Errorf("list the repositories' packages: %w", err)
	}
	names := strings.Fields(string(out))
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Offers reports whether the repositories offer something that dnf takes spec for: a package, a version of one, a pattern,
// a file or something provided.
func (s *Session) Offers(ctx context.Context, spec string) (bool, error) {
	out, err := s.Runner.Output(ctx, s.command("-C", "-q", "repoquery", "--available", "--qf", "%{name}", spec))
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", spec, err)
	}
	return len(strings.Fields(string(out))) > 0, nil
}

// Resolve chooses the packages, downloads them, checks their signatures and returns their lock.
func (s *Session) Resolve(ctx context.Context, progress func(Progress)) (*Lock, error) {
	if err := s.enableModules(ctx); err != nil {
		return nil, err
	}
	args := append([]string{"install", "--downloadonly"}, s.Config.Specs()...)
	log := filepath.Join(s.Work, "private/log/dnf.log")
	before := size(log)
	if err := s.run(ctx, "choose and download packages", progress, s.command(args...)); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("read what dnf has chosen: %w", err)
	}
	choices := Choices(string(text[min(before, int64(len(text))):]))
	if len(choices) == 0 {
		return nil, errors.New("read what dnf has chosen: its log names no package; is this dnf 4?")
	}
	packages, err := s.find(ctx, choices)
	if err != nil {
		return nil, err
	}
	return newLock(ctx, s.Inputs, packages)
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func (s *Session) enableModules(ctx context.Context) error {
	if len(s.Config.Packages.Modules) == 0 {
		return nil
	}
	args := append([]string{"module", "enable"}, s.Config.Packages.Modules...)
	return s.run(ctx, "enable module streams", nil, s.command(args...))
}

// find asks dnf where the chosen packages lie.
func (s *Session) find(ctx context.Context, choices []Choice) ([]Package, error) {
	args := []string{"-C", "-q", "repoquery", "--available", "--qf", "%{name}|%{arch}|%{evr}|%{repoid}|%{location}"}
	wanted := map[Choice]bool{}
	for _, c := range choices {
		args = append(args, c.String())
		wanted[c] = true
	}
	out, err := s.Runner.Output(ctx, s.command(args...))
	if err != nil {
		return nil, fmt.Errorf("find the chosen packages: %w", err)
	}
	type place struct {
		priority int
		p        Package
	}
	best := map[Choice]place{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 5 {
			continue
		}
		c := Choice{f[0], f[1], f[2]}
		path, ok := s.locate(f[3], f[4])
		if !wanted[c] || !ok {
			continue
		}
		here := place{s.Config.Repositories[f[3]].Priority, Package{NEVRA: c.String(), Repo: f[3], Path: path}}
		if old, ok := best[c]; !ok || here.priority < old.priority || here.priority == old.priority && f[3] < old.p.Repo {
			best[c] = here
		}
	}
	var packages []Package
	for _, c := range choices {
		b, ok := best[c]
		if !ok {
			return nil, fmt.Errorf("find the chosen packages: the file of %s is neither in a local repository nor in dnf's cache %s", c, s.Cache)
		}
		packages = append(packages, b.p)
	}
	return packages, nil
}

// Install installs what Resolve has chosen and downloaded. There is no network for the packages' scriptlets.
func (s *Session) Install(ctx context.Context, progress func(Progress)) error {
	c := s.command(append([]string{"-C", "install"}, s.Config.Specs()...)...)
	c.NoNetwork = true
	return s.run(ctx, "install packages", progress, c)
}
