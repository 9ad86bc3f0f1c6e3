package dnf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgbuild/builder/sandbox"
	"imgbuild/builder/tool"
	"imgbuild/builder/tree"
)

// inImage is a command in the image that has no network.
func (s *Session) inImage(argv ...string) tool.Command {
	return tool.Command{Argv: argv, Root: s.Root, NoNetwork: true, Env: s.Env}
}

// RewriteDatabase has the image's own rpm write the database anew from the packages' headers: EL8 and older have a
// Berkeley DB and cannot read the host's sqlite. Files that were left out of the installation (documentation) count as
// missing there, because an old rpm has no way to be told.
func (s *Session) RewriteDatabase(ctx context.Context, t *tree.Tree, lock *Lock) (err error) {
	fail := func(err error) error {
		return fmt.Errorf("have the image's rpm write its own package database: %w", err)
	}
	rpm := t.First("/usr/bin/rpm", "/bin/rpm")
	if rpm == "" {
		// Without rpm in the image nobody there reads the database.
		return nil
	}
	path := DatabasePath(s.Config.Distro.Major)
	if err := t.Empty(path); err != nil {
		return fail(err)
	}
	if err := s.Runner.Run(ctx, s.inImage(rpm, "--initdb")); err != nil {
		return fail(err)
	}
	m := &sandbox.Mounts{}
	defer func() { err = errors.Join(err, m.Close()) }()
	args, err := s.showPackages(m, lock)
	if err != nil {
		return fail(err)
	}
	for _, keys := range s.Config.Keys {
		for _, key := range keys {
			if err := s.importKey(ctx, rpm, key); err != nil {
				return fail(err)
			}
		}
	}
	justdb := []string{rpm, "-i", "--justdb", "--nodeps", "--noscripts", "--notriggers", "--nosignature", "--nodigest", "--ignoresize", "--ignorearch", "--ignoreos"}
	if err := s.Runner.Run(ctx, s.inImage(append(justdb, args...)...)); err != nil {
		return fail(err)
	}
	return nil
}

// ForgetKeys takes the keys that dnf imported out of the package database, as Anaconda leaves it: the installed system's
// dnf asks for them from its repositories' gpgkey when it first needs them. They carry the wall clock's time, in the database
// and in what it has thrown away, so the database is written anew: the same lock makes the same bytes.
func (s *Session) ForgetKeys(ctx context.Context) error {
	rpm := func(args ...string) tool.Command {
		return tool.Command{Argv: append([]string{"rpm", "--root", s.Root}, args...), Env: append([]string{"HOME=" + homeMount}, s.Env...)}
	}
	out, err := s.Runner.Output(ctx, rpm("-qa", "gpg-pubkey*"))
	if err != nil {
		return fmt.Errorf("list the keys in the package database: %w", err)
	}
	if keys := strings.Fields(string(out)); len(keys) > 0 {
		if err := s.Runner.Run(ctx, rpm(append([]string{"-e", "--"}, keys...)...)); err != nil {
			return fmt.Errorf("take the keys out of the package database: %w", err)
		}
	}
	if err := s.Runner.Run(ctx, rpm("--rebuilddb")); err != nil {
		return fmt.Errorf("write the package database anew: %w", err)
	}
	return nil
}

// showPackages shows the directories in which the locked packages lie below the private directory, and returns the
// packages' paths in the image.
func (s *Session) showPackages(m *sandbox.Mounts, lock *Lock) ([]string, error) {
	shown := map[string]string{}
	var paths []string
	for _, p := range lock.Packages {
		dir := filepath.Dir(p.Path)
		if _, ok := shown[dir]; !ok {
			name := fmt.Sprintf("%s/rpms-%d", Private, len(shown))
			at := filepath.Join(s.Root, name)
			if err := os.MkdirAll(at, 0o755); err != nil {
				return nil, err
			}
			if err := m.BindReadOnly(dir, at); err != nil {
				return nil, err
			}
			shown[dir] = name
		}
		paths = append(paths, shown[dir]+"/"+filepath.Base(p.Path))
	}
	return paths, nil
}

func (s *Session) importKey(ctx context.Context, rpm, key string) error {
	data, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	inImage := Private + "/" + filepath.Base(key)
	if err := os.WriteFile(filepath.Join(s.Root, inImage), data, 0o644); err != nil {
		return err
	}
	return s.Runner.Run(ctx, s.inImage(rpm, "--import", inImage))
}

// Verify makes sure that exactly the locked packages are installed, as the rpm that will read the database sees it.
func (s *Session) Verify(ctx context.Context, t *tree.Tree, lock *Lock) error {
	const format = "%{NAME}|%{EPOCH}|%{VERSION}|%{RELEASE}|%{ARCH}\n"
	rpm := t.First("/usr/bin/rpm", "/bin/rpm")
	c := s.inImage(rpm, "-qa", "--qf", format)
	if rpm == "" || !NeedsOwnDatabase(s.Config.Distro.Major) {
		c = tool.Command{Argv: []string{"rpm", "--root", s.Root, "-qa", "--qf", format}, Env: append([]string{"HOME=" + homeMount}, s.Env...)}
	}
	out, err := s.Runner.Output(ctx, c)
	if err != nil {
		return fmt.Errorf("list the installed packages: %w", err)
	}
	var have, want []string
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 5 || f[0] == "gpg-pubkey" {
			continue
		}
		epoch := f[1] + ":"
		if f[1] == "(none)" || f[1] == "0" {
			epoch = ""
		}
		have = append(have, f[0]+"-"+epoch+f[2]+"-"+f[3]+"."+f[4])
	}
	for _, p := range lock.Packages {
		want = append(want, p.NEVRA)
	}
	slices.Sort(have)
	slices.Sort(want)
	if slices.Equal(have, want) {
		return nil
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(n string) bool { return slices.Contains(have, n) })
	more := slices.DeleteFunc(have, func(n string) bool { return slices.Contains(want, n) })
	return fmt.Errorf("compare what is installed with the lock: missing are [%s], not locked are [%s]; the repositories changed during the build, or a package's scriptlet failed: build again",
		some(missing), some(more))
}
