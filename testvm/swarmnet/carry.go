package swarmnet

import (
	"context"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/blob"
	"imgbuild/installer/fetch"
)

// carrier prepares what brings the root file system.
func (m *machine) carrier(_ context.Context, t *task) (carrier, error) {
	f := t.manifest.Files[image.RootfsFile]
	u, err := fetch.Beside(t.plan.Manifest, image.RootfsFile)
	if err != nil {
		return nil, err
	}
	b, err := blob.New(f.Size, f.Chunks, m.config.Memory)
	if err != nil {
		return nil, err
	}
	return &plain{b, t.fetcher, u}, nil
}

type plain struct {
	b   *blob.Blob
	f   *fetch.Fetcher
	url string
}

func (p *plain) Blob() *blob.Blob              { return p.b }
func (p *plain) Run(ctx context.Context) error { return p.f.Blob(ctx, []string{p.url}, p.b) }
func (p *plain) Sources() []plan.SwarmSource   { return nil }
func (p *plain) Linger(context.Context)        {}
func (p *plain) Close() error                  { return p.b.Close() }
