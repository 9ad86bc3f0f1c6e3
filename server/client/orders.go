package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
	"imgbuild/server/registry"
)

// NewOrder is what an order is made of. The server knows by the token who makes it.
type NewOrder struct {
	SN     string `json:"sn"`
	Image  string `json:"image,omitempty"` // name/version, or name for its newest; empty: the host's own
	Reason string `json:"reason"`
	// Disks, Wipe, Unseal, Fresh, Layout and Preview are as in registry.Order.
	Disks   []string       `json:"disks,omitempty"`
	Wipe    []string       `json:"wipe,omitempty"`
	Unseal  []string       `json:"unseal,omitempty"`
	Fresh   bool           `json:"fresh,omitempty"`
	Layout  *layout.Layout `json:"layout,omitempty"`
	Preview bool           `json:"preview,omitempty"`
	Done    string         `json:"done,omitempty"` // reboot (default), kexec, poweroff, wait
	// Transport is http, relay or torrent; empty is the server's.
	Transport plan.Transport `json:"transport,omitempty"`
	// Expires is when nobody needs to come any more; zero leaves it to the server.
	Expires time.Time `json:"expires,omitzero"`
	// Protected names a protected host for the second time: its serial number again.
	Protected string `json:"protected,omitempty"`
}

// OrderQuery chooses orders; the zero value chooses all, the youngest first.
type OrderQuery struct {
	SN     string
	States []registry.OrderState
	Limit  int // 0: no limit of ours
}

// CreateOrder orders one installation, or its preview. An Error with status 409 tells that the host has a live order.
func (c *Client) CreateOrder(ctx context.Context, o NewOrder) (*registry.Order, error) {
	got := new(registry.Order)
	if _, err := c.do(ctx, call{method: http.MethodPost, path: []string{"orders"}, in: o, out: got}); err != nil {
		return nil, err
	}
	return got, nil
}

// Orders returns the orders that are chosen.
func (c *Client) Orders(ctx context.Context, q OrderQuery) ([]registry.Order, error) {
	v := url.Values{}
	if q.SN != "" {
		v.Set("sn", q.SN)
	}
	for _, s := range q.States {
		v.Add("state", string(s))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var got []registry.Order
	_, err := c.do(ctx, call{method: http.MethodGet, path: []string{"orders"}, query: v, out: &got})
	return got, err
}

// Order returns one order by its ID. NotFound(err) tells that there is none.
func (c *Client) Order(ctx context.Context, id string) (*registry.Order, error) {
	got := new(registry.Order)
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"orders", id}, out: got}); err != nil {
		return nil, err
	}
	return got, nil
}

// Outlook returns what a preview has found. An Error with status 409 tells that there is nothing (yet), and why.
func (c *Client) Outlook(ctx context.Context, id string) (*plan.Outlook, error) {
	got := new(plan.Outlook)
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"orders", id, "outlook"}, out: got}); err != nil {
		return nil, err
	}
	return got, nil
}

// CancelOrder takes an order back. An Error with status 409 tells that it has ended already.
func (c *Client) CancelOrder(ctx context.Context, id, reason string) error {
	v := url.Values{}
	if reason != "" {
		v.Set("reason", reason)
	}
	_, err := c.do(ctx, call{method: http.MethodDelete, path: []string{"orders", id}, query: v})
	return err
}
