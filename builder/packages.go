package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"imgbuild/builder/dnf"
	"imgbuild/builder/progress"
	"imgbuild/builder/sandbox"
	"imgbuild/builder/tree"
)

// session makes dnf ready to work on a new tree. The caller closes the mounts.
func (b *build) session() (*dnf.Session, *sandbox.Mounts, error) {
	s := &dnf.Session{
		Runner: b.runner, Config: b.config, Work: filepath.Join(b.work, "dnf"), Cache: b.cache.path("dnf"),
		Root: filepath.Join(b.fresh, "root"), Env: b.env(), Inputs: b.inputs,
	}
	if err := b.writeKeys(s); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(s.Root, 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the image's root: %w", err)
	}
	m := &sandbox.Mounts{}
	if err := errors.Join(m.Populate(s.Root, sandbox.System{}), s.Prepare(m)); err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	return s, m, nil
}

func (b *build) writeKeys(s *dnf.Session) error {
	texts, err := b.keyTexts()
	if err != nil {
		return err
	}
	s.Config.Keys = map[string][]string{}
	dir := filepath.Join(s.Work, "keys")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write GPG keys: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(texts)) {
		for i, text := range texts[id] {
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.asc", id, i))
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				return fmt.Errorf("write GPG keys: %w", err)
			}
			s.Config.Keys[id] = append(s.Config.Keys[id], path)
		}
	}
	return nil
}

// kept looks for a lock and a tree of an earlier build that serve this one, so that dnf has nothing to do.
func (b *build) kept() (bool, error) {
	var err error
	if b.inputs, err = b.resolveDigest(); err != nil {
		return false, err
	}
	if b.lock, err = b.cache.loadLock(b.inputs); err != nil || b.lock == nil {
		return false, err
	}
	digest, err := b.treeDigest(b.lock)
	if err != nil {
		return false, err
	}
	dir, ok := b.cache.tree(digest)
	if ok {
		b.treeDir = dir
	}
	return ok && !b.o.Force, nil
}

// repositories reads the metadata, unless packages are known and installed already.
func (b *build) repositories(ctx context.Context) (outcome, error) {
	kept, err := b.kept()
	if err != nil {
		return outcome{}, err
	}
	if kept {
		return outcome{reused: true, note: "not asked: the lock is kept; --force asks for newer packages"}, nil
	}
	b.treeDir = ""
	if b.fresh, err = os.MkdirTemp(b.cache.path("trees"), ".new-"); err != nil {
		return outcome{}, fmt.Errorf("make a new tree: %w", err)
	}
	s, m, err := b.session()
	if err != nil {
		return outcome{}, err
	}
	err = s.Refresh(ctx, b.dnfProgress())
	return outcome{}, errors.Join(err, m.Close())
}

func (b *build) dnfProgress() func(dnf.Progress) {
	return func(p dnf.Progress) {
		b.o.Report.Step(progress.Step{Text: strings.TrimSpace(p.Doing + " " + p.Item), Done: int64(p.Done), Total: int64(p.Total)})
	}
}

// resolve chooses and downloads packages and keeps the lock.
func (b *build) resolve(ctx context.Context) (outcome, error) {
	if b.fresh == "" {
		b.setDate()
		return outcome{reused: true, bytes: b.lock.Bytes(), note: fmt.Sprintf("%d packages", len(b.lock.Packages))}, nil
	}
	s, m, err := b.session()
	if err != nil {
		return outcome{}, err
	}
	old := b.lock
	b.lock, err = s.Resolve(ctx, b.dnfProgress())
	if err != nil {
		err = b.suggest(ctx, s, err)
	}
	if err = errors.Join(err, m.Close()); err != nil {
		return outcome{}, err
	}
	if err := b.cache.saveLock(b.lock); err != nil {
		return outcome{}, err
	}
	b.setDate()
	note := fmt.Sprintf("%d packages", len(b.lock.Packages))
	if old != nil {
		note += fmt.Sprintf(", %d entries differ from the kept lock", old.Difference(b.lock))
	}
	digest, err := b.treeDigest(b.lock)
	if err != nil {
		return outcome{}, err
	}
	dir, ok := b.cache.tree(digest)
	b.treeDir = dir
	if ok {
		err = os.RemoveAll(b.fresh)
		b.fresh = ""
	}
	return outcome{bytes: b.lock.Bytes(), note: note}, err
}

// setDate takes the newest package's time stamp where nobody has given one.
func (b *build) setDate() {
	b.date = b.o.SourceDate
	if b.date.IsZero() {
		b.date = time.Unix(b.lock.Date, 0)
	}
}

// suggest adds to an error about unknown packages what was probably meant.
func (b *build) suggest(ctx context.Context, s *dnf.Session, err error) error {
	var f *dnf.Failure
	if !errors.As(err, &f) || len(f.Unknown) == 0 {
		return err
	}
	names, listErr := s.Names(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	// dnf stops at an unknown group before it has looked at every package.
	unknown := slices.Clone(f.Unknown)
	for _, spec := range b.config.Specs() {
		_, named := slices.BinarySearch(names, spec)
		if named || strings.HasPrefix(spec, "@") || slices.Contains(unknown, spec) {
			continue
		}
		offered, offerErr := s.Offers(ctx, spec)
		if offerErr != nil {
			return errors.Join(err, offerErr)
		}
		if !offered {
			unknown = append(unknown, spec)
		}
	}
	var lines []string
	for _, u := range unknown {
		line := u + ": no enabled repository has it"
		if where := b.wherePackage(u); where != "" {
			line = where + ": " + line
		}
		if near := nearest(u, names); near != "" {
			line += "; did you mean " + near + "?"
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("choose packages: unknown packages:\n  %s", strings.Join(lines, "\n  "))
}

// wherePackage is where the profile names a package.
func (b *build) wherePackage(name string) string {
	for i, p := range b.o.Profile.Packages.Install {
		if p == name {
			return b.o.Profile.Where("packages", "install", fmt.Sprint(i))
		}
	}
	return "added by the builder"
}

// packages installs what the lock says into the new tree, and puts the tree into the cache.
func (b *build) packages(ctx context.Context) (outcome, error) {
	if b.fresh == "" {
		touch(b.treeDir)
		return outcome{reused: true, note: "this set of packages is installed in the cache"}, nil
	}
	s, m, err := b.session()
	if err != nil {
		return outcome{}, err
	}
	err = b.install(ctx, s)
	if err = errors.Join(err, m.Close()); err != nil {
		return outcome{}, err
	}
	if err := s.Finish(); err != nil {
		return outcome{}, err
	}
	if err := os.Rename(b.fresh, b.treeDir); err != nil {
		return outcome{}, fmt.Errorf("put the installed tree into the cache: %w", err)
	}
	b.fresh = ""
	touch(b.treeDir)
	return outcome{note: fmt.Sprintf("%d packages", len(b.lock.Packages))}, b.cache.prune("trees", keepTrees)
}

// install runs dnf, keeps the kernel package from making initramfses, and checks the result against the lock.
func (b *build) install(ctx context.Context, s *dnf.Session) error {
	t, err := tree.Open(s.Root)
	if err != nil {
		return err
	}
	defer t.Close()
	masks, err := maskKernelInstall(t)
	if err != nil {
		return err
	}
	if err := s.Install(ctx, b.dnfProgress()); err != nil {
		return err
	}
	for _, mask := range masks {
		if err := t.Remove(mask); err != nil {
			return err
		}
	}
	if dnf.NeedsOwnDatabase(b.config.Distro.Major) {
		err = s.RewriteDatabase(ctx, t, b.lock)
	} else {
		err = s.ForgetKeys(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.Verify(ctx, t, b.lock); err != nil {
		return err
	}
	return b.label(ctx, t, s.Root, "")
}

// maskKernelInstall puts links to /dev/null over the plugins of kernel-install that make an initramfs, as kernel-install
// documents it. Since systemd 252 KERNEL_INSTALL_BYPASS alone would do; EL8 has an older one.
func maskKernelInstall(t *tree.Tree) ([]string, error) {
	var masks []string
	for _, plugin := range []string{"50-dracut.install", "51-dracut-rescue.install"} {
		name := "/etc/kernel/install.d/" + plugin
		if err := t.Symlink("/dev/null", name); err != nil {
			return nil, fmt.Errorf("keep the kernel package from making an initramfs: %w", err)
		}
		masks = append(masks, name)
	}
	return masks, nil
}
