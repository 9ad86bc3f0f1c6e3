// Package fetch gets the files of a release over HTTP and HTTPS: small ones whole (the manifest and its signature), the
// root file system in ranges, chunk by chunk, into a blob.Blob. URLs come in; verified bytes go out.
//
// A Transfer has a list of sources that may change while it runs: origins and their mirrors, which are plain web servers,
// and relays, which are machines that install too. Sources have tiers; those of the lowest tier that works are used
// together, each as fast as it is, and the next tier takes over when they fail, until they answer again. What a
// request brings far too slowly is asked for once more elsewhere, and the first good copy counts.
//
// It never gives up at the first fault and never goes on forever; it never shows a user name, a password, a ticket or a
// query of a URL; it never keeps a byte that the blob has not verified, and never reads from a relay again that sent a
// chunk with another SHA-256. Beside the blob's memory it has at most three chunks for each of Options.Connections.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"imgbuild/image"
	"imgbuild/installer/report"
)

// Options say how to fetch. A zero field takes the default in its comment.
type Options struct {
	Report report.Reporter // required
	// Connections are the ranges in flight of one transfer, relays apart; 4.
	Connections int
	// RunBytes is what one range request asks for at most; 8 MiB. Little memory makes it smaller.
	RunBytes int64
	// Stall is how long a connection may bring no byte before it is replaced; 5 s.
	Stall time.Duration
	// Patience is how long a transfer goes on without a byte from any source, and how long a small file is asked for
	// while nobody answers; 3 min.
	Patience time.Duration
	// Backoff is the first pause after a failure; it doubles up to 10 s; 500 ms.
	Backoff time.Duration
	// BadLimit is how many times one chunk may come with the wrong SHA-256; 4.
	BadLimit int
	// Proxy is the URL of the HTTP proxy for everything but relays; nil is none, whatever the environment says.
	Proxy *url.URL
	// Transport is for tests and for releases that no network has; a transport made for this purpose otherwise.
	Transport http.RoundTripper
	// Mend is what to do about files that are not as they were signed; "publish the release again".
	Mend string
}

// Fetcher fetches. It is safe for use from several goroutines.
type Fetcher struct {
	o      Options
	client *http.Client
	direct *http.Client // for relays: without a proxy, and never sent on
}

// maxRedirects bounds how far a request is sent on.
const maxRedirects = 5

// New returns a Fetcher.
func New(o Options) *Fetcher {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Stall, 5*time.Second)
	def(&o.Patience, 3*time.Minute)
	def(&o.Backoff, 500*time.Millisecond)
	if o.Connections <= 0 {
		o.Connections = 4
	}
	if o.RunBytes < image.ChunkSize {
		o.RunBytes = 8 << 20
	}
	if o.BadLimit <= 0 {
		o.BadLimit = 4
	}
	if o.Mend == "" {
		o.Mend = "publish the release again"
	}
	proxied, direct := o.Transport, o.Transport
	if o.Transport == nil {
		proxied, direct = newTransport(o, o.Proxy), newTransport(o, nil)
	}
	return &Fetcher{o: o, client: &http.Client{Transport: proxied, CheckRedirect: checkRedirect},
		direct: &http.Client{Transport: direct, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Small gets a whole file of at most maxBytes bytes. It asks again, saying so each time, while nobody answers or the
// server has trouble; what the server answers for good (404 and the like) is final.
func (f *Fetcher) Small(ctx context.Context, rawURL string, maxBytes int64) ([]byte, error) {
	start := time.Now()
	for try := 1; ; try++ {
		data, err := f.small(ctx, rawURL, maxBytes)
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("get %s: %w", Shown(rawURL), context.Cause(ctx))
		}
		var ans *answer
		if errors.As(err, &ans) && ans.final {
			return nil, fmt.Errorf("get %s: %w", Shown(rawURL), err)
		}
		pause := f.pause(try)
		if time.Since(start)+pause > f.o.Patience {
			return nil, fmt.Errorf("get %s: %w; gave up after %s and %d tries", Shown(rawURL), err, report.Duration(time.Since(start)), try)
		}
		f.o.Report.Info("get %s: %v; trying again in %s", Shown(rawURL), err, report.Duration(pause))
		if err := sleep(ctx, pause); err != nil {
			return nil, fmt.Errorf("get %s: %w", Shown(rawURL), err)
		}
	}
}

func (f *Fetcher) small(ctx context.Context, rawURL string, maxBytes int64) ([]byte, error) {
	body, err := f.open(ctx, f.client, f.o.Stall, rawURL, nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if body.response.StatusCode != http.StatusOK {
		return nil, statusError(body.response)
	}
	if body.response.ContentLength > maxBytes {
		return nil, final("the file has %d bytes, and at most %d are taken", body.response.ContentLength, maxBytes)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > maxBytes {
		return nil, final("the file has more than the %d bytes that are taken", maxBytes)
	}
	return data, nil
}

// Manifest gets the manifest at a URL and its signature beside it, and opens it with keys. It also returns both files as
// they came, to be kept with the installed system.
func (f *Fetcher) Manifest(ctx context.Context, manifestURL string, keys []image.PublicKey) (m *image.Manifest, raw, signature []byte, err error) {
	u, err := url.Parse(manifestURL)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("get the manifest: %s is not a URL", Shown(manifestURL))
	}
	if raw, err = f.Small(ctx, manifestURL, image.MaxManifestSize); err != nil {
		return nil, nil, nil, err
	}
	sig := *u
	sig.Path, sig.RawPath = u.Path+".sig", ""
	if signature, err = f.Small(ctx, sig.String(), 4096); err != nil {
		return nil, nil, nil, err
	}
	if m, err = image.Open(raw, signature, keys); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", Shown(manifestURL), err)
	}
	return m, raw, signature, nil
}

// Beside returns the URL of the file name that lies beside the manifest; a query, such as a token, stays.
func Beside(manifestURL, name string) (string, error) {
	u, err := url.Parse(manifestURL)
	if err != nil {
		return "", fmt.Errorf("find %s: %s is not a URL", name, Shown(manifestURL))
	}
	return u.ResolveReference(&url.URL{Path: "./" + name, RawQuery: u.RawQuery}).String(), nil
}

// pause is how long to wait after the given number of failures in a row: it doubles, up to 10 s, and a random part of up
// to half keeps a thousand machines from asking at the same moment.
func (f *Fetcher) pause(failures int) time.Duration {
	d := min(f.o.Backoff<<min(max(failures-1, 0), 10), 10*time.Second)
	return d/2 + rand.N(d/2+1)
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
