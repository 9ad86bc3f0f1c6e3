// Package client speaks the REST API of imgserve: hosts, orders, events, images, tokens and the queue. A server's address
// and a token come in; the registry's values and errors that name the field go out.
//
// It never prints, never writes a file and never lets the token out of the header it belongs into: not into an error, not
// to another server that the first one redirects to.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// maxAnswer bounds an answer: 10,000 hosts with their inventories are some 40 MB.
	maxAnswer = 512 << 20
	// headerTimeout is how long a server may think before it answers anything.
	headerTimeout = 60 * time.Second
	// attempts is how often a request is sent that the server did not take on.
	attempts = 5
	// maxWait bounds what a server may demand with Retry-After (RFC 9110, 10.2.3).
	maxWait = 30 * time.Second
)

// Options say where the server is and who asks.
type Options struct {
	// Server is its address, as http://10.0.0.1:8080 or https://imgserve.example; a path is kept, for servers behind a proxy.
	Server string
	// Token is the API token; empty asks without one.
	Token string
	// CA holds certificates in PEM: with it the server's certificate is believed only if one of these signed it. Empty
	// believes those of the system.
	CA []byte
	// Agent is the User-Agent, as imgctl/1.2.
	Agent string
	// Connections bounds the idle connections kept open; 0 keeps 4.
	Connections int
	// Proxy chooses a proxy, as http.ProxyFromEnvironment does; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)
}

// Client is one server, asked with one token. It may be used by several goroutines.
type Client struct {
	base    *url.URL
	token   string
	agent   string
	http    *http.Client
	reached atomic.Bool // the server has answered once: a refused connection is then a restart, worth waiting for
}

// New checks the options; it does not ask the server anything.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.Server)
	switch {
	case o.Server == "":
		return nil, errors.New("no server is given")
	case err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("the server %q is not an address such as http://10.0.0.1:8080", o.Server)
	case base.User != nil:
		return nil, errors.New("the server's address has a user or password in it; imgserve wants a token")
	case base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("the server %q has more than an address and a path", o.Server)
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("the token has characters that no token has; is it whole, and alone in its place?")
	}
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = ""
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.CA) > 0 {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the CA file holds no certificate in PEM form")
		}
	}
	keep := o.Connections
	if keep == 0 {
		keep = 4
	}
	transport := &http.Transport{
		Proxy:                 o.Proxy,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       tlsConfig,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		MaxIdleConnsPerHost:   keep,
		IdleConnTimeout:       30 * time.Second,
	}
	stay := func(r *http.Request, _ []*http.Request) error {
		return fmt.Errorf("the server sends us on to %s: give that as the server", r.URL.Redacted())
	}
	return &Client{base: base, token: o.Token, agent: o.Agent, http: &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

// call is one request and what is to become of its answer.
type call struct {
	method string
	path   []string // segments, not escaped
	query  url.Values
	header http.Header
	in     any // nil: no body; []byte: as it is; anything else: as JSON
	out    any // nil: the answer's body is thrown away
}

// reply is what an answer's head tells.
type reply struct {
	status int
	header http.Header
}

// do sends a request and decodes its answer. A request that the server did not take on (503, 429, or no connection to a
// server that was there before) is sent again.
func (c *Client) do(ctx context.Context, r call) (reply, error) {
	body, err := encode(r.in)
	if err != nil {
		return reply{}, fmt.Errorf("%s: %w", r.what(), err)
	}
	for attempt := 1; ; attempt++ {
		rep, err := c.once(ctx, r, body)
		wait, again := c.again(err, attempt)
		if !again || attempt == attempts {
			return rep, err
		}
		select {
		case <-ctx.Done():
			return rep, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func encode(in any) ([]byte, error) {
	switch v := in.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	default:
		return json.Marshal(v)
	}
}

// again says whether and when a request that failed with err is worth another try.
func (c *Client) again(err error, attempt int) (time.Duration, bool) {
	wait := time.Duration(1<<attempt) * 100 * time.Millisecond
	var e *Error
	if errors.As(err, &e) {
		return max(wait, e.retryAfter), e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests
	}
	var op *net.OpError
	return wait, c.reached.Load() && errors.As(err, &op) && op.Op == "dial" // nothing was sent
}

func (c *Client) once(ctx context.Context, r call, body []byte) (reply, error) {
	req, err := c.request(ctx, r, body)
	if err != nil {
		return reply{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, c.unreachable(ctx, err)
	}
	defer func() {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection can be used again
		_ = resp.Body.Close()
	}()
	c.reached.Store(true)
	rep := reply{resp.StatusCode, resp.Header}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return rep, c.readError(r, resp)
	}
	if r.out == nil {
		return rep, nil
	}
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if err := d.Decode(r.out); err != nil {
		if ctx.Err() != nil {
			return rep, ctx.Err()
		}
		return rep, fmt.Errorf("%s: read the answer of %s: %w; is it an imgserve?", r.what(), c.base.Host, err)
	}
	return rep, nil
}

func (c *Client) request(ctx context.Context, r call, body []byte) (*http.Request, error) {
	u := *c.base
	escaped := make([]string, len(r.path))
	for i, p := range r.path {
		escaped[i] = url.PathEscape(p)
	}
	u.RawPath = u.EscapedPath() + "/api/v1/" + strings.Join(escaped, "/")
	u.Path += "/api/v1/" + strings.Join(r.path, "/")
	u.RawQuery = r.query.Encode()
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.what(), err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func (r call) what() string { return r.method + " /api/v1/" + strings.Join(r.path, "/") }

// unreachable says why there was no answer, without the noise of the URL.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("ask %s: its certificate is not signed by a CA that is believed here (%w): give the server's CA file", c.base, err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("ask %s: it does not speak TLS (%w): try http://", c.base, err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("ask %s: it closed the connection without an answer: %w", c.base, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("ask %s: %w", c.base, err)
}

// etag writes a revision as If-Match wants it (RFC 9110, 13.1.1); revision 0 demands nothing.
func etag(revision int64) http.Header {
	if revision == 0 {
		return http.Header{}
	}
	return http.Header{"If-Match": {`"` + strconv.FormatInt(revision, 10) + `"`}}
}
