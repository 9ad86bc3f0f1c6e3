package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"imgbuild/installer/report"
)

// newTransport makes the transport for files: by the proxy, if there is one, no compression (ranges are of the bytes as
// they are stored), and HTTP/1.1, so that each range has a connection of its own.
func newTransport(o Options, proxy *url.URL) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression: true, MaxIdleConnsPerHost: o.Connections, IdleConnTimeout: 30 * time.Second,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, ReadBufferSize: 64 << 10,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return t
}

// answer is what a server said, as opposed to a connection that failed. A final one will be the same next time.
type answer struct {
	text  string
	final bool
	busy  bool          // it asks for patience (5xx, 429 and the like)
	after time.Duration // what Retry-After asked for
}

func (a *answer) Error() string { return a.text }

func final(format string, a ...any) error {
	return &answer{text: fmt.Sprintf(format, a...), final: true}
}

// statusError turns a status that nobody hoped for into a sentence.
func statusError(r *http.Response) error {
	a := &answer{text: fmt.Sprintf("the server answers %d %s", r.StatusCode, http.StatusText(r.StatusCode))}
	switch c := r.StatusCode; {
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
		a.busy = true
		if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err == nil && s > 0 {
			a.after = min(time.Duration(s)*time.Second, 30*time.Second)
		}
	case c == http.StatusNotFound:
		a.final = true
		a.text += ": check the address, and that the release was published there"
	case c == http.StatusUnauthorized, c == http.StatusForbidden:
		a.final = true
		a.text += ": the server does not let this machine have the file"
	default:
		a.final = true
	}
	return a
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return final("the server sends on to another address more than %d times", maxRedirects)
	}
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return final("the server sends on to an address that starts with %q, which is neither http nor https", r.URL.Scheme+":")
	}
	return nil
}

// body is a response whose reads fail when nothing comes for the stall time.
type body struct {
	response *http.Response
	stall    time.Duration
	timer    *time.Timer
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

// errStall is the cause of a request's end when the server falls silent.
type errStall struct{ d time.Duration }

func (e errStall) Error() string { return "no byte came for " + report.Duration(e.d) }

// open sends a GET and returns the response with whatever status it has. The caller closes it.
func (f *Fetcher) open(ctx context.Context, client *http.Client, stall time.Duration, rawURL string, header http.Header) (*body, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{stall: stall, ctx: ctx, cancel: cancel}
	b.timer = time.AfterFunc(b.stall, func() { cancel(errStall{b.stall}) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		b.timer.Stop()
		cancel(nil)
		return nil, final("the address is not a URL")
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", "imgbuild-installer")
	b.response, err = client.Do(req)
	b.timer.Stop()
	if err != nil {
		err = b.explain(err)
		cancel(nil)
		return nil, err
	}
	if e := b.response.Header.Get("Content-Encoding"); e != "" && e != "identity" && b.response.StatusCode < 300 {
		b.Close()
		return nil, final("the server sends the file with Content-Encoding %q: switch that off for the files of a release", e)
	}
	return b, nil
}

// Read reads, and fails when nothing comes in time.
func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.response.Body.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.response.Body.Close()
}

// explain says what stopped a request, without the URL that net/http puts in front.
func (b *body) explain(err error) error {
	if cause := context.Cause(b.ctx); cause != nil && cause != context.Canceled {
		return cause
	}
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection ended too early: %w", err)
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return final("the server's certificate is not accepted: %v (the clock says %s)", err, time.Now().UTC().Format("2006-01-02 15:04 MST"))
	}
	return err
}

// Shown is a URL as it may be shown to anybody: without user, password, query and fragment, any of which may be a secret.
func Shown(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "an address that is not a URL"
	}
	hidden := u.RawQuery != ""
	u.User, u.RawQuery, u.ForceQuery, u.Fragment = nil, "", false, ""
	s := strings.TrimSuffix(u.String(), "?")
	if hidden {
		s += "?..."
	}
	return s
}
