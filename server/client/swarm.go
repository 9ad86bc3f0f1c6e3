package client

import (
	"context"
	"net/http"
	"net/url"

	"imgbuild/server/swarm"
)

// Swarm returns who reads from whom: of a release, of all versions of a name, or, with an empty image, of everything.
func (c *Client) Swarm(ctx context.Context, image string) ([]swarm.View, error) {
	q := url.Values{}
	if image != "" {
		q.Set("image", image)
	}
	var got []swarm.View
	_, err := c.do(ctx, call{method: http.MethodGet, path: []string{"swarm"}, query: q, out: &got})
	return got, err
}

// Rates are the limits that hold. Own is true if somebody has set them, and false if they are the server's configuration's.
type Rates struct {
	swarm.Rates
	Own bool `json:"own"`
}

// Rates returns how fast machines may read.
func (c *Client) Rates(ctx context.Context) (*Rates, error) {
	return c.rates(ctx, call{method: http.MethodGet})
}

// SetRates changes how fast machines may read.
func (c *Client) SetRates(ctx context.Context, r swarm.Rates) (*Rates, error) {
	return c.rates(ctx, call{method: http.MethodPut, in: r})
}

// ResetRates goes back to the server's configuration.
func (c *Client) ResetRates(ctx context.Context) (*Rates, error) {
	return c.rates(ctx, call{method: http.MethodDelete})
}

func (c *Client) rates(ctx context.Context, q call) (*Rates, error) {
	got := new(Rates)
	q.path, q.out = []string{"rates"}, got
	if _, err := c.do(ctx, q); err != nil {
		return nil, err
	}
	return got, nil
}
