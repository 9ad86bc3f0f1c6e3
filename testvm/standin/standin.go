package standin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// DefaultDir is where the stand-in is kept unless told otherwise.
const DefaultDir = "/var/cache/imgbuild/standin"

// formatVersion counts what the digest of the recipe and overlay does not see: changes of the converter itself.
const formatVersion = 3

// releasePackage carries the release files and the public key.
const releasePackage = "standin-release"

// Options say where the stand-in goes.
type Options struct {
	// Dir holds the repository, the key and the downloaded packages. Default: DefaultDir.
	Dir string
	// Arch is x86_64, the default and the only one that there is a stand-in for.
	Arch string
	// Refresh makes the repository again with the versions that the Debian archive has now, if they changed.
	Refresh bool
	// Progress, when not nil, is told how far it is; never by two goroutines at once.
	Progress func(Progress)
}

// Progress is how far one step is. Total is 0 for a step that cannot be counted.
type Progress struct {
	Step        string
	Done, Total int
}

// Repo is the finished repository.
type Repo struct {
	// Dir is the repository's directory, BaseURL the same as dnf wants it.
	Dir, BaseURL string
	// KeyFile is the armored public key, Fingerprint its 40 hex digits.
	KeyFile, Fingerprint string
	// Packages is the number of RPMs, Digest the SHA-256 over recipe and Debian versions that they were made of.
	Packages int
	Digest   string
	// Reused says that nothing had to be done.
	Reused bool
}

// state is what is remembered of a repository, inside it.
type state struct {
	Recipe   string   `json:"recipe"`
	Digest   string   `json:"digest"`
	Key      string   `json:"key"`
	Packages int      `json:"packages"`
	Debs     []string `json:"debs"`
}

// stateFile is in the repository's directory, so that both change in one rename.
const stateFile = "standin.json"

// Make makes the stand-in repository, or reuses the one that this converter and recipe made before: then it asks
// nobody and returns at once. Of several callers at the same time, in one process or many, one makes it and the
// others wait. On an error or when ctx ends the former repository stays as it was.
func Make(ctx context.Context, o Options) (Repo, error) {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.Arch == "" {
		o.Arch = "x86_64"
	}
	if o.Arch != "x86_64" {
		return Repo{}, fmt.Errorf("there is no stand-in for %s; only x86_64 has one", o.Arch)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Repo{}, fmt.Errorf("find the stand-in's directory: %w", err)
	}
	o.Dir = dir
	o.Progress = serialized(o.Progress)
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return Repo{}, fmt.Errorf("make the stand-in's directory: %w", err)
	}
	recipeDigest, err := digestAssets()
	if err != nil {
		return Repo{}, err
	}
	unlock, err := lock(ctx, filepath.Join(o.Dir, ".lock"), o.Progress)
	if err != nil {
		return Repo{}, err
	}
	defer unlock()
	sig, err := openSigner(o.Dir)
	if err != nil {
		return Repo{}, err
	}
	st, have := readState(o.Dir)
	have = have && st.Recipe == recipeDigest && st.Key == sig.fingerprint()
	if have && !o.Refresh {
		return o.repo(st, true)
	}
	o.Progress(Progress{Step: "ask apt what the Debian archive offers"})
	plan, err := newPlan(ctx, recipeDigest)
	if err != nil {
		return Repo{}, fmt.Errorf("make the stand-in repository: %w", err)
	}
	if have && st.Digest == plan.digest {
		return o.repo(st, true)
	}
	if st, err = build(ctx, o, plan, sig); err != nil {
		return Repo{}, fmt.Errorf("make the stand-in repository: %w", err)
	}
	return o.repo(st, false)
}

func (o Options) repo(st state, reused bool) (Repo, error) {
	dir := filepath.Join(o.Dir, "repo")
	return Repo{
		Dir: dir, BaseURL: "file://" + dir, KeyFile: filepath.Join(o.Dir, keyFile), Fingerprint: st.Key,
		Packages: st.Packages, Digest: st.Digest, Reused: reused,
	}, nil
}

// serialized makes a progress function that may be nil and may be called from everywhere safe.
func serialized(f func(Progress)) func(Progress) {
	if f == nil {
		return func(Progress) {}
	}
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		f(p)
	}
}

// readState reads what is remembered of the repository. Whatever is missing or damaged means that there is none.
func readState(dir string) (state, bool) {
	var st state
	raw, err := os.ReadFile(filepath.Join(dir, "repo", stateFile))
	if err != nil || json.Unmarshal(raw, &st) != nil || st.Packages == 0 {
		return state{}, false
	}
	for _, f := range []string{"repo/repodata/repomd.xml", "repo/repodata/repomd.xml.asc", keyFile} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			return state{}, false
		}
	}
	return st, true
}

// digestAssets is the digest of everything that the repository depends on besides Debian's packages and the key.
func digestAssets() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "format %d\n", formatVersion)
	err := fs.WalkDir(assets, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := assets.ReadFile(p)
		if err == nil {
			fmt.Fprintf(h, "%s %d\n%s", p, len(b), b)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the stand-in's recipe: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lock takes the directory's lock and gives what lets it go. Waiting ends with ctx.
func lock(ctx context.Context, name string, progress func(Progress)) (func(), error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the stand-in: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return func() { f.Close() }, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("lock the stand-in: %w", err)
	}
	progress(Progress{Step: "wait for another process that makes the stand-in"})
	got := make(chan error, 1)
	go func() { got <- flock(int(f.Fd())) }() // ends when the lock is free, at the latest with the other process
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock the stand-in: %w", err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { <-got; f.Close() }()
		return nil, fmt.Errorf("wait for another process that makes the stand-in: %w", ctx.Err())
	}
}

// flock waits for the lock through interruptions by signals.
func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
