// Package torrents knows the torrents of the catalogue's releases. Releases come in; their info-hashes, and a torrent of each
// for people to download, go out.
//
// What a release's rootfs.torrent says is believed when it is the file that the manifest names and is of the root file system
// that the manifest names. The package never changes a release, and never hands out what may not be installed.
package torrents

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/server/releases"
)

// Catalogue has releases.
type Catalogue interface {
	List() []releases.Release
	// OpenFile opens a file of a release (name/version) that may be installed.
	OpenFile(ref, name string) (*os.File, error)
}

// Options say whose torrents. Catalogue is required.
type Options struct {
	Catalogue Catalogue
	// URL is the server's address, for torrents that people download; empty takes the address at which the server was reached.
	URL string
	Log *slog.Logger // slog.Default()
	// Every is how often Run looks for changes; 5 s.
	Every time.Duration
	Now   func() time.Time // time.Now
}

// Torrent is that of one release. It is never changed.
type Torrent struct {
	Ref  string // name/version
	Hash torrent.Hash
	Info *torrent.Metainfo
}

// Index knows the torrents. It is safe for use from many goroutines.
type Index struct {
	o Options

	refreshing sync.Mutex // guards refreshed and said
	refreshed  time.Time
	said       map[string]string // by name/version: what was logged of its torrent

	mu     sync.RWMutex
	byRef  map[string]known
	byHash map[torrent.Hash]*Torrent
}

// known is a torrent, and the SHA-256 of its file in hex.
type known struct {
	*Torrent
	sha256 string
}

// refreshEvery bounds how often a question for what is not known makes the index look again.
const refreshEvery = time.Second

// New returns an Index that knows the catalogue's torrents as they are now.
func New(o Options) *Index {
	o.Log = cmp.Or(o.Log, slog.Default())
	o.Every = cmp.Or(o.Every, 5*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	x := &Index{o: o, said: map[string]string{}}
	x.refresh()
	return x
}

// Run looks for changes until the context ends.
func (x *Index) Run(ctx context.Context) error {
	t := time.NewTicker(x.o.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			x.refresh()
		}
	}
}

// List returns all torrents, by name/version.
func (x *Index) List() []*Torrent {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]*Torrent, 0, len(x.byRef))
	for _, k := range x.byRef {
		all = append(all, k.Torrent)
	}
	slices.SortFunc(all, func(a, b *Torrent) int { return cmp.Compare(a.Ref, b.Ref) })
	return all
}

// Of returns the torrent of a release (name/version), or nil.
func (x *Index) Of(ref string) *Torrent {
	return x.find(func() *Torrent { return x.byRef[ref].Torrent })
}

// By returns the torrent with an info-hash, or nil. Releases with the same root file system have the same.
func (x *Index) By(h torrent.Hash) *Torrent {
	return x.find(func() *Torrent { return x.byHash[h] })
}

// find looks again, unless that was done just now, for what is not there.
func (x *Index) find(look func() *Torrent) *Torrent {
	locked := func() *Torrent {
		x.mu.RLock()
		defer x.mu.RUnlock()
		return look()
	}
	if t := locked(); t != nil {
		return t
	}
	x.refreshing.Lock()
	recent := x.o.Now().Sub(x.refreshed) < refreshEvery
	x.refreshing.Unlock()
	if recent {
		return nil
	}
	x.refresh()
	return locked()
}

// refresh looks at the catalogue. Of a torrent whose file is the same nothing is read.
func (x *Index) refresh() {
	x.refreshing.Lock()
	defer x.refreshing.Unlock()
	byRef, byHash, said := map[string]known{}, map[torrent.Hash]*Torrent{}, map[string]string{}
	for _, r := range x.o.Catalogue.List() {
		at := slices.IndexFunc(r.Files, func(f releases.File) bool { return f.Name == image.TorrentFile })
		if at < 0 || r.Problem != "" {
			continue // it was built before there were torrents, or may not be installed
		}
		k := x.byRef[r.Ref()] // nobody else writes it
		if k.Torrent == nil || k.sha256 != r.Files[at].SHA256 {
			t, err := x.read(&r, r.Files[at])
			if err != nil {
				if said[r.Ref()] = err.Error(); x.said[r.Ref()] != said[r.Ref()] {
					x.o.Log.Warn("a release has no BitTorrent", "release", r.Ref(), "err", err)
				}
				continue
			}
			k = known{t, r.Files[at].SHA256}
		}
		byRef[k.Ref] = k
		if old := byHash[k.Hash]; old == nil || k.Ref < old.Ref {
			byHash[k.Hash] = k.Torrent
		}
	}
	x.said, x.refreshed = said, x.o.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byRef, x.byHash = byRef, byHash
}

// read reads and checks a release's torrent.
func (x *Index) read(r *releases.Release, f releases.File) (*Torrent, error) {
	file, err := x.o.Catalogue.OpenFile(r.Ref(), f.Name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, torrent.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of release %s: %w", f.Name, r.Ref(), err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, fmt.Errorf("%s of release %s has the SHA-256 %x and the manifest says %s: copy the release again, or build it again", f.Name, r.Ref(), sum, f.SHA256)
	}
	m, err := torrent.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s of release %s: %w", f.Name, r.Ref(), err)
	}
	at := slices.IndexFunc(r.Files, func(f releases.File) bool { return f.Name == image.RootfsFile })
	if at < 0 || r.Files[at].Size != m.Size {
		return nil, fmt.Errorf("%s of release %s is of a file of %d bytes, and that is not its %s: build it again", f.Name, r.Ref(), m.Size, image.RootfsFile)
	}
	return &Torrent{Ref: r.Ref(), Hash: m.Hash(), Info: m}, nil
}
