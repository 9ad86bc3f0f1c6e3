package client

import (
	"context"
	"net/http"
	"time"

	"imgbuild/server/registry"
)

// Image is a release that the server offers.
type Image struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch,omitempty"`
	Kernel  string    `json:"kernel,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"` // of the root file system
	Built   time.Time `json:"built,omitzero"`
	// Problem says why the release cannot be installed; empty if it can.
	Problem string `json:"problem,omitempty"`
}

// ID is the release as orders and hosts name it.
func (i Image) ID() string { return i.Name + "/" + i.Version }

// Images returns the releases that the server offers.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var got []Image
	_, err := c.do(ctx, call{method: http.MethodGet, path: []string{"images"}, out: &got})
	return got, err
}

// Queue is who installs and who waits for it.
type Queue struct {
	Limits  registry.SlotLimits `json:"limits"`
	Running []registry.Order    `json:"running"`
	Waiting []registry.Order    `json:"waiting"` // in the order in which they will run
}

// Queue returns the installations that run and wait now.
func (c *Client) Queue(ctx context.Context) (*Queue, error) {
	got := new(Queue)
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"queue"}, out: got}); err != nil {
		return nil, err
	}
	return got, nil
}

// NewToken is what a token is made of.
type NewToken struct {
	Name    string    `json:"name"` // the person or program that will use it
	Role    string    `json:"role"` // read, operate or admin
	Expires time.Time `json:"expires,omitzero"`
}

// MadeToken is a token and, this once, its secret.
type MadeToken struct {
	registry.Token
	Secret string `json:"secret"`
}

// CreateToken makes a token. The server keeps only a hash of the secret.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (*MadeToken, error) {
	got := new(MadeToken)
	if _, err := c.do(ctx, call{method: http.MethodPost, path: []string{"tokens"}, in: t, out: got}); err != nil {
		return nil, err
	}
	return got, nil
}

// Tokens returns the tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]registry.Token, error) {
	var got []registry.Token
	_, err := c.do(ctx, call{method: http.MethodGet, path: []string{"tokens"}, out: &got})
	return got, err
}

// RevokeToken ends a token's life at once, by its name.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: []string{"tokens", name}})
	return err
}
