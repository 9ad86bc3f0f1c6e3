package swarmnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/fetch"
	"imgbuild/installer/transfer"
)

// transfer prepares what brings the root file system, as the installer does.
func (m *machine) transfer(ctx context.Context, t *task) (*transfer.Transfer, error) {
	f := t.manifest.Files[image.RootfsFile]
	o := transfer.Options{
		Report: t.report, Fetcher: t.fetcher, Size: f.Size, Chunks: f.Chunks, Transport: t.plan.Transport, Memory: m.config.Memory, Spill: m.config.SpillDir,
		Server: t.client, Token: t.plan.Token,
	}
	u, err := fetch.Beside(t.plan.Manifest, image.RootfsFile)
	if err != nil {
		return nil, err
	}
	o.URLs = []string{u}
	for _, mirror := range t.plan.Mirrors {
		o.URLs = append(o.URLs, mirror+image.RootfsFile)
	}
	if o.Transport == plan.TransportTorrent {
		if o.Metainfo, err = t.metainfo(ctx); err != nil {
			return nil, err
		}
	}
	return transfer.New(o)
}

// metainfo gets rootfs.torrent.
func (t *task) metainfo(ctx context.Context) ([]byte, error) {
	f, ok := t.manifest.Files[image.TorrentFile]
	if !ok {
		return nil, errors.New("get rootfs.torrent: the release has none; build it again")
	}
	u, err := fetch.Beside(t.plan.Manifest, image.TorrentFile)
	if err != nil {
		return nil, err
	}
	data, err := t.fetcher.Small(ctx, u, f.Size)
	if err != nil {
		return nil, err
	}
	if got, err := image.Describe(bytes.NewReader(data), false); err != nil || got.SHA256 != f.SHA256 {
		return nil, fmt.Errorf("get rootfs.torrent: it is not the one that was signed (%w)", errors.Join(err, image.ErrChunk))
	}
	return data, nil
}
