package standin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// plan is everything that is known before anything is downloaded.
type plan struct {
	recipe       *recipe
	recipeDigest string
	digest       string
	res          *resolution
}

// newPlan resolves the recipe against what the archive has now.
func newPlan(ctx context.Context, recipeDigest string) (*plan, error) {
	raw, err := assets.ReadFile("recipe.txt")
	if err != nil {
		return nil, err
	}
	rc, err := parseRecipe(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	index, err := readIndex(ctx, "amd64")
	if err != nil {
		return nil, err
	}
	res, err := resolve(rc, index)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintln(h, recipeDigest)
	for _, d := range res.Debs {
		fmt.Fprintln(h, d.Name, d.Version, d.SHA256)
	}
	return &plan{rc, recipeDigest, hex.EncodeToString(h.Sum(nil)), res}, nil
}

// newPrefix begins the names of directories in which repositories are made.
const newPrefix = "repo.new-"

// sweep removes what a crash left behind.
func sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, newPrefix+"*"))
	if err != nil {
		return err
	}
	for _, d := range left {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove what a crash left behind: %w", err)
		}
	}
	return nil
}

// build downloads, converts, signs and indexes into a new directory, which then takes the old one's place.
func build(ctx context.Context, o Options, p *plan, sig *signer) (st state, err error) {
	debs := filepath.Join(o.Dir, "debs")
	err = download(ctx, debs, p.res.Debs, func(n int) {
		o.Progress(Progress{"download Debian packages", n, len(p.res.Debs)})
	})
	if err != nil {
		return state{}, err
	}
	if err := sweep(o.Dir); err != nil {
		return state{}, err
	}
	tmp, err := os.MkdirTemp(o.Dir, newPrefix+"*")
	if err != nil {
		return state{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return state{}, err
	}
	n, err := convert(ctx, o, p, sig, debs, tmp)
	if err != nil {
		return state{}, err
	}
	if err := index(ctx, o, sig, tmp); err != nil {
		return state{}, err
	}
	st = state{Recipe: p.recipeDigest, Digest: p.digest, Key: sig.fingerprint(), Packages: n}
	for _, d := range p.res.Debs {
		st.Debs = append(st.Debs, d.Name+" "+d.Version)
	}
	raw, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return state{}, err
	}
	if err := os.WriteFile(filepath.Join(tmp, stateFile), raw, 0o644); err != nil {
		return state{}, err
	}
	key, err := sig.public()
	if err != nil {
		return state{}, err
	}
	if err := writeWhole(filepath.Join(o.Dir, keyFile), key, 0o644); err != nil {
		return state{}, err
	}
	return st, replaceDir(tmp, filepath.Join(o.Dir, "repo"))
}

// replaceDir puts a directory in the place of another. A crash in between leaves the old one beside it, and the
// next call makes the repository again.
func replaceDir(from, to string) error {
	old := from + ".old"
	if err := os.Rename(to, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move the former repository away: %w", err)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("move the repository into place: %w", errors.Join(err, os.Rename(old, to)))
	}
	return os.RemoveAll(old)
}

// convert writes the RPMs of all units into dir/Packages and gives their number.
func convert(ctx context.Context, o Options, p *plan, sig *signer, debs, dir string) (int, error) {
	built, err := newest(debs, p.res.Debs)
	if err != nil {
		return 0, err
	}
	key, err := sig.public()
	if err != nil {
		return 0, err
	}
	a, err := newAssembler(p.recipe, debs, built, key)
	if err != nil {
		return 0, err
	}
	packages := filepath.Join(dir, "Packages")
	if err := os.Mkdir(packages, 0o755); err != nil {
		return 0, err
	}
	splits := map[string][]*unit{}
	var whole []*unit
	for _, u := range p.res.Units {
		if u.Split != "" {
			splits[u.Split] = append(splits[u.Split], u)
			continue
		}
		whole = append(whole, u)
	}
	// The largest first: the kernel takes longer than a hundred libraries.
	slices.SortStableFunc(whole, func(a, b *unit) int { return cmp.Compare(b.size(), a.size()) })
	var done atomic.Int64
	total := len(p.res.Units)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	for _, u := range whole {
		g.Go(func() error {
			trees, err := a.assemble(ctx, u, splits[u.Name])
			if err != nil {
				return fmt.Errorf("convert %s: %w", u.Name, err)
			}
			for _, s := range append([]*unit{u}, splits[u.Name]...) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if s.Split != "" {
					s.From = u.From[:1] // the version is that of the package it is taken from
				}
				if _, err := writeRPM(packages, s, trees[s.Name], built, sig.sign); err != nil {
					return fmt.Errorf("convert %s: %w", s.Name, err)
				}
				o.Progress(Progress{"convert to signed RPMs", int(done.Add(1)), total})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return total, nil
}

func (u *unit) size() int64 {
	var n int64
	for _, d := range u.From {
		n += d.Size
	}
	return n
}

// index writes the repository's metadata with its groups, and signs it.
func index(ctx context.Context, o Options, sig *signer, dir string) error {
	o.Progress(Progress{Step: "write and sign the repository's metadata"})
	comps, err := assets.ReadFile("comps.xml")
	if err != nil {
		return err
	}
	groups := filepath.Join(dir, "comps.xml")
	if err := os.WriteFile(groups, comps, 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, dir, nil, "createrepo_c", "--quiet", "--no-database", "--groupfile", groups, "."); err != nil {
		return fmt.Errorf("write the repository's metadata: %w", err)
	}
	if err := os.Remove(groups); err != nil {
		return err
	}
	return sig.signFile(filepath.Join(dir, "repodata", "repomd.xml"))
}
