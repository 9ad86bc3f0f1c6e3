//go:build notorrent

package torrent

import (
	"context"

	"imgbuild/image/plan"
)

// Built says whether this installer has BitTorrent.
const Built = false

// Client is what New would return in an installer that has BitTorrent.
type Client struct{}

// New returns ErrNotBuilt.
func New(Options) (*Client, error) { return nil, ErrNotBuilt }

// Run returns ErrNotBuilt.
func (c *Client) Run(context.Context) error { return ErrNotBuilt }

// SetPeers does nothing.
func (c *Client) SetPeers([]string) {}

// SetRates does nothing.
func (c *Client) SetRates(_, _ int64) {}

// Sources returns nothing.
func (c *Client) Sources() []plan.SwarmSource { return nil }

// PeerPort returns 0.
func (c *Client) PeerPort() int { return 0 }

// PeerID returns nothing.
func (c *Client) PeerID() string { return "" }

// Stats returns nothing.
func (c *Client) Stats() Stats { return Stats{} }

// Close does nothing.
func (c *Client) Close() {}
