package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"imgbuild/server/registry"
)

// page is how many hosts are asked for at a time.
const page = 1000

// HostQuery chooses hosts; the zero value chooses all.
type HostQuery struct {
	States []registry.State
	Rack   string
	Owner  string
	Image  string
	Live   []registry.LiveState // of their last boots from memory
	Match  string               // a part of the serial number, name, address, MAC, model, owner or position
	After  string               // only those whose serial numbers come after this
	Limit  int                  // 0: no limit
}

// Hosts returns the hosts that are chosen, ordered by serial number.
func (c *Client) Hosts(ctx context.Context, q HostQuery) ([]registry.Host, error) {
	var all []registry.Host
	v := url.Values{}
	for _, s := range q.States {
		v.Add("state", string(s))
	}
	for _, s := range q.Live {
		v.Add("live", string(s))
	}
	for key, value := range map[string]string{"rack": q.Rack, "owner": q.Owner, "image": q.Image, "match": q.Match} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.After != "" {
		v.Set("after", q.After)
	}
	for {
		want := page
		if q.Limit > 0 {
			want = min(page, q.Limit-len(all))
		}
		v.Set("limit", strconv.Itoa(want))
		var got []registry.Host
		if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"servers"}, query: v, out: &got}); err != nil {
			return nil, err
		}
		all = append(all, got...)
		if len(got) != want || q.Limit > 0 && len(all) >= q.Limit { // less is the end; more is a server that does not count
			return all, nil
		}
		v.Set("after", got[len(got)-1].SN)
	}
}

// Host returns one host. NotFound(err) tells that there is none.
func (c *Client) Host(ctx context.Context, sn string) (*registry.Host, error) {
	h := new(registry.Host)
	rep, err := c.do(ctx, call{method: http.MethodGet, path: []string{"servers", sn}, out: h})
	if err != nil {
		return nil, err
	}
	h.Revision = revision(rep, h.Revision)
	return h, nil
}

// CreateHost writes a host that is not there yet; Changed(err) tells that it is.
func (c *Client) CreateHost(ctx context.Context, h registry.Host) (*registry.Host, error) {
	got := new(registry.Host)
	_, err := c.do(ctx, call{
		method: http.MethodPut, path: []string{"servers", h.SN}, header: http.Header{"If-None-Match": {"*"}}, in: h, out: got,
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// PatchHost applies a JSON merge patch (RFC 7396) to a host. Unless ifRevision is 0 the host has to be at that revision;
// Changed(err) tells that it is not.
func (c *Client) PatchHost(ctx context.Context, sn string, patch []byte, ifRevision int64) (*registry.Host, error) {
	header := etag(ifRevision)
	header.Set("Content-Type", "application/merge-patch+json")
	got := new(registry.Host)
	_, err := c.do(ctx, call{method: http.MethodPatch, path: []string{"servers", sn}, header: header, in: patch, out: got})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// DeleteHost forgets a host; its events stay. An Error with status 409 tells that an order for it is live.
func (c *Client) DeleteHost(ctx context.Context, sn string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: []string{"servers", sn}})
	return err
}

// revision takes the revision of the ETag where the body has none.
func revision(rep reply, have int64) int64 {
	if have != 0 {
		return have
	}
	n, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(rep.header.Get("ETag"), "W/"), `"`), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
