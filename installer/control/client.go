// Package control is the installer's side of a server: it asks for this boot's plan, and tells the server what happens. An
// inventory and events come in; a plan that was signed for this boot of this machine goes out.
//
// It decides nothing, and a server that is away never holds up an installation that has begun: what there is to say is
// kept, within bounds, until the server is back.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/report"
)

// Options say which server it is, and who asks.
type Options struct {
	// Server is the address that plan's paths are below, without a slash at its end.
	Server string
	// Key is the key that plans are signed with, Boot the nonce of this boot.
	Key  image.PublicKey
	Boot string
	// Report is told what a person in front of the machine wants to know while it waits.
	Report report.Reporter
	// Patience is how long a server may be silent before asking for a plan ends in an error; 15 minutes.
	Patience time.Duration
	// Transport is HTTP's; nil for the package's own.
	Transport http.RoundTripper
}

// Client asks one server.
type Client struct {
	Options
	http *http.Client
	// sleep waits, and returns early with the cause when ctx ends.
	sleep func(ctx context.Context, d time.Duration) error
}

// New returns a client. Nothing is asked yet.
func New(o Options) *Client {
	if o.Patience <= 0 {
		o.Patience = 15 * time.Minute
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			IdleConnTimeout:       90 * time.Second,
			MaxIdleConnsPerHost:   2,
		}
	}
	return &Client{
		Options: o, sleep: sleep,
		http: &http.Client{
			Transport: o.Transport,
			// A redirection could take nonce and token to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Refused is an answer that asking again does not change.
type Refused struct {
	Status int    // HTTP's
	Text   string // what the server says, one line
}

// Error says what the server answered.
func (r *Refused) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("the server answers %d %s", r.Status, http.StatusText(r.Status))
	}
	return fmt.Sprintf("the server answers %d: %s", r.Status, r.Text)
}

// retryable reports whether the same question may be answered otherwise a little later.
func retryable(err error) bool {
	var r *Refused
	var n *notOurs
	return !errors.As(err, &r) && !errors.As(err, &n)
}

// busy is an answer that says to come again, perhaps when.
type busy struct {
	status int
	text   string
	after  time.Duration
}

func (b *busy) Error() string { return (&Refused{b.status, b.text}).Error() }

// Post sends one JSON value to a path below the server's address and decodes the answer into answer, unless that is nil.
// An error is a *Refused where asking again is no use.
func (c *Client) Post(ctx context.Context, path, token string, value, answer any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode what is sent to the server: %w", err)
	}
	if len(body) > plan.MaxBytes {
		return &Refused{http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes are more than the %d that may be sent", len(body), plan.MaxBytes)}
	}
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Server+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "imgbuild-installer")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, res.Body, plan.MaxBytes) // so that the connection serves the next question too
		res.Body.Close()
	}()
	if res.StatusCode/100 != 2 {
		return failure(res)
	}
	if answer == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := plan.Decode(res.Body, answer); err != nil {
		var ne net.Error
		if errors.As(err, &ne) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		return &Refused{res.StatusCode, fmt.Sprintf("something that this installer cannot read (%v); is there something else between?", err)}
	}
	return nil
}

// failure reads the server's reason, {"error": "…"}.
func failure(res *http.Response) error {
	var said struct {
		Error string `json:"error"`
	}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // a reason that cannot be read is none
	_ = json.Unmarshal(b, &said)
	text := line(said.Error, 500)
	switch {
	case res.StatusCode >= 500, res.StatusCode == http.StatusRequestTimeout, res.StatusCode == http.StatusTooEarly, res.StatusCode == http.StatusTooManyRequests:
		after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return &busy{res.StatusCode, text, time.Duration(min(max(after, 0), 300)) * time.Second}
	}
	return &Refused{res.StatusCode, text}
}

// line is a text of at most max bytes for a console.
func line(s string, max int) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) <= max {
		return s
	}
	s = s[:max]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// pause is the time between one failure and the next try: growing to most, and never the same for all machines of a rack.
type pause struct{ next, most time.Duration }

func (p *pause) after(err error) time.Duration {
	d := max(p.next, time.Second)
	p.next = min(d*2, p.most)
	d = d*3/4 + rand.N(d/2)
	var b *busy
	if errors.As(err, &b) && b.after > d {
		d = b.after
	}
	return d
}
