package builder

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"imgbuild/profiles"
)

// reachTimeout is how long a repository may take to answer.
const reachTimeout = 10 * time.Second

// transport asks repositories over HTTP, through the proxies that dnf uses.
type transport struct{ proxy httpproxy.Config }

func newTransport(env []string) transport {
	var c httpproxy.Config
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		switch strings.ToLower(name) {
		case "http_proxy":
			c.HTTPProxy = value
		case "https_proxy":
			c.HTTPSProxy = value
		case "no_proxy":
			c.NoProxy = value
		}
	}
	return transport{c}
}

// check makes sure that one of a repository's addresses has its metadata, repomd.xml.
func (t transport) check(ctx context.Context, r profiles.Repository, expand func(string) string) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	client, err := t.client(r.CACert)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	switch {
	case r.MirrorList != "":
		address := expand(r.MirrorList)
		text, err := get(ctx, client, address)
		if err == nil && !strings.Contains(text, "://") {
			err = fmt.Errorf("%s lists no mirror", address)
		}
		return err
	case r.Metalink != "":
		address := expand(r.Metalink)
		text, err := get(ctx, client, address)
		if err == nil && !isXML(text, "metalink") {
			err = fmt.Errorf("%s is no metalink", address)
		}
		return err
	}
	var errs []error
	for _, base := range r.BaseURL {
		err := checkBase(ctx, client, expand(base))
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkBase(ctx context.Context, client *http.Client, base string) error {
	const metadata = "repodata/repomd.xml"
	if dir, ok := strings.CutPrefix(base, "file://"); ok {
		data, err := os.ReadFile(filepath.Join(dir, metadata))
		if err == nil && !isXML(string(data), "repomd") {
			err = fmt.Errorf("%s is no repository metadata", filepath.Join(dir, metadata))
		}
		return err
	}
	address := strings.TrimSuffix(base, "/") + "/" + metadata
	text, err := get(ctx, client, address)
	if err == nil && !isXML(text, "repomd") {
		err = fmt.Errorf("%s is no repository metadata", address)
	}
	return err
}

func (t transport) client(caFile string) (*http.Client, error) {
	proxy := t.proxy.ProxyFunc()
	tr := &http.Transport{Proxy: func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }}
	if caFile != "" {
		data, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("read the CA certificate %s: it has none in PEM", caFile)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: tr}, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 4 << 20

func get(ctx context.Context, client *http.Client, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return "", fmt.Errorf("%s did not answer within %s", address, reachTimeout)
		}
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", address, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", address, err)
	}
	return string(data), nil
}

// isXML reports whether a text is XML with that root element.
func isXML(text, root string) bool {
	d := xml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		if e, ok := token.(xml.StartElement); ok {
			return e.Name.Local == root
		}
	}
}
