package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/server/config"
	"imgbuild/server/dhcp"
	"imgbuild/server/registry"
	"imgbuild/server/releases"
)

// Level is how much a finding matters.
type Level string

// The levels. With an error machines cannot be served as the configuration wants it.
const (
	Good    Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
)

// Finding is one thing that Check has looked at.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"` // database, images, loaders, ports, dhcp, url, tls
	Text  string `json:"text"`
}

// String is the finding in one line.
func (f Finding) String() string { return fmt.Sprintf("%-8s %s: %s", f.Level, f.What, f.Text) }

// minFree is how much room the registry's disk should have: a year of diary for some hundred hosts.
const minFree = 256 << 20

// discoverTime is how long other DHCP servers are waited for: some try an address for three seconds before they offer it.
const discoverTime = 6 * time.Second

// checker gathers findings.
type checker struct {
	c    *config.Config
	list []Finding
}

func (k *checker) add(level Level, what, format string, args ...any) {
	k.list = append(k.list, Finding{level, what, fmt.Sprintf(format, args...)})
}

// Check looks at everything that a server with this configuration would need, and at the network around it. It changes
// nothing but that a registry of an older version is brought up to date, and may run beside the server.
func Check(ctx context.Context, c *config.Config) []Finding {
	k := &checker{c: c}
	k.state()
	k.database(ctx)
	k.images(ctx)
	k.loaders()
	k.ports(ctx)
	k.tls()
	k.dhcp(ctx)
	k.url(ctx)
	return k.list
}

// state looks at the directories that are written to.
func (k *checker) state() {
	for _, dir := range stateDirs(k.c) {
		st, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			parent := dir
			for errors.Is(err, fs.ErrNotExist) && parent != filepath.Dir(parent) {
				parent = filepath.Dir(parent)
				_, err = os.Stat(parent)
			}
			if unix.Access(parent, unix.W_OK) != nil {
				k.add(Error, "state", "%s is not there, and cannot be made in %s by this user", dir, parent)
			} else {
				k.add(Good, "state", "%s will be made", dir)
			}
			continue
		case err != nil:
			k.add(Error, "state", "%v", err)
			continue
		case !st.IsDir():
			k.add(Error, "state", "%s is not a directory", dir)
			continue
		case unix.Access(dir, unix.W_OK) != nil:
			k.add(Error, "state", "%s cannot be written to by this user", dir)
		}
		var fsStat unix.Statfs_t
		if err := unix.Statfs(dir, &fsStat); err == nil {
			if free := int64(fsStat.Bavail) * fsStat.Bsize; free < minFree {
				k.add(Warning, "state", "the disk of %s has only %d MiB left", dir, free>>20)
			}
		}
	}
}

func (k *checker) database(ctx context.Context) {
	if !isPostgres(k.c) {
		if _, err := os.Stat(k.c.Database); errors.Is(err, fs.ErrNotExist) {
			k.add(Good, "database", "%s will be made", k.c.Database)
			return
		}
	}
	store, err := registry.Open(ctx, k.c.Database)
	if err != nil {
		k.add(Error, "database", "%v", err)
		return
	}
	defer func() { _ = store.Close() }() // it was only read
	if err := store.Check(ctx); err != nil {
		k.add(Error, "database", "%v", err)
		return
	}
	counts, err := store.Counts(ctx)
	if err != nil {
		k.add(Error, "database", "%v", err)
		return
	}
	hosts := 0
	for _, n := range counts.Hosts {
		hosts += n
	}
	k.add(Good, "database", "%s is whole and has %d hosts", k.c.DatabaseName(), hosts)
	if tokens, err := store.Tokens(ctx); err == nil && len(tokens) == 0 {
		k.add(Warning, "database", "there is no API token, so nobody can order anything: imgserve token create NAME --role admin")
	}
}

func (k *checker) images(ctx context.Context) {
	keys, err := trusted(k.c.Trust)
	if err != nil {
		k.add(Error, "images", "%v", err)
	} else if len(keys) == 0 {
		k.add(Warning, "images", "no key is trusted (trust), so any signature will do here; machines still demand the one that their initramfs knows")
	}
	catalogue, err := releases.Open(releases.Options{Dir: k.c.Images, Trust: keys, Log: quiet()})
	if err != nil {
		k.add(Error, "images", "%v", err)
		return
	}
	usable := 0
	for _, r := range catalogue.List() {
		problem := r.Problem
		if problem == "" {
			if _, err := catalogue.Resolve(ctx, r.Ref()); err != nil {
				problem = err.Error()
			}
		}
		if problem != "" {
			k.add(Error, "images", "%s may not be installed: %s", r.Ref(), problem)
			continue
		}
		usable++
	}
	if usable == 0 {
		k.add(Warning, "images", "there is no release in %s that could be installed; imgbuild makes them", k.c.Images)
		return
	}
	k.add(Good, "images", "%d releases can be installed", usable)
}

func (k *checker) loaders() {
	if k.c.DHCP.Mode == "off" && !*k.c.TFTP.Enabled {
		return
	}
	l := findLoaders(k.c.Loaders)
	for _, one := range l.missing {
		level := Error
		if one.Optional {
			level = Warning
		}
		k.add(level, "loaders", "%s", one.String())
	}
	if err := l.files().Check(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			k.add(Error, "loaders", "%s", line)
		}
		return
	}
	for _, one := range l.found {
		k.add(Good, "loaders", "%s", one.String())
	}
}

// ports sees whether the server could have its ports. A server that runs already has them.
func (k *checker) ports(ctx context.Context) {
	if k.c.DHCP.Mode != "off" {
		for _, name := range interfaces(k.c) {
			if _, err := net.InterfaceByName(name); err != nil {
				k.add(Error, "ports", "there is no network interface %s; there are %s", name, strings.Join(interfaceNames(), ", "))
				continue
			}
			taken := dhcp.Taken(ctx, []string{name})
			for _, u := range taken {
				k.taken("DHCP on "+name, fmt.Sprintf(":%d", u.Port), &u)
			}
			if len(taken) == 0 {
				k.add(Good, "ports", "DHCP on %s can have :67 and :4011", name)
			}
		}
	}
	k.taken("HTTP", k.c.Listen, dhcp.TakenAddress(ctx, "tcp", k.c.Listen))
	if k.c.TLS.On() {
		k.taken("HTTPS", k.c.TLS.Listen, dhcp.TakenAddress(ctx, "tcp", k.c.TLS.Listen))
	}
	if *k.c.Torrent.Enabled {
		k.taken("BitTorrent", k.c.Torrent.Listen, dhcp.TakenAddress(ctx, "tcp", k.c.Torrent.Listen))
	}
	if *k.c.TFTP.Enabled {
		k.taken("TFTP", k.c.TFTP.Listen, dhcp.TakenAddress(ctx, "udp4", k.c.TFTP.Listen))
	}
}

func (k *checker) taken(what, address string, u *dhcp.InUse) {
	switch {
	case u == nil:
		k.add(Good, "ports", "%s can have %s", what, address)
	case strings.HasPrefix(u.Program, "imgserve["):
		k.add(Good, "ports", "%s: %s has the port: the server runs", what, u.Program)
	default:
		k.add(Error, "ports", "%v", portError(what, u.Network, address, u.Err))
	}
}

func (k *checker) tls() {
	if !k.c.TLS.On() {
		if len(k.c.LegacyClients) > 0 {
			k.add(Warning, "tls", "there is no HTTPS: tokens and what old scripts write cross the network in the clear")
		} else {
			k.add(Warning, "tls", "there is no HTTPS: tokens cross the network in the clear (tls.self: true makes a certificate)")
		}
		return
	}
	if k.c.TLS.Self {
		if _, err := os.Stat(filepath.Join(k.c.State, CAFile)); err == nil {
			k.add(Good, "tls", "clients need %s", filepath.Join(k.c.State, CAFile))
		}
		return
	}
	pair, err := tls.LoadX509KeyPair(k.c.TLS.Cert, k.c.TLS.Key)
	if err != nil {
		k.add(Error, "tls", "%v", err)
		return
	}
	left := time.Until(pair.Leaf.NotAfter)
	switch {
	case left < 0:
		k.add(Error, "tls", "%s ended at %s", k.c.TLS.Cert, pair.Leaf.NotAfter.Format(time.DateOnly))
	case left < 14*24*time.Hour:
		k.add(Warning, "tls", "%s ends at %s", k.c.TLS.Cert, pair.Leaf.NotAfter.Format(time.DateOnly))
	default:
		k.add(Good, "tls", "%s is for %s", k.c.TLS.Cert, strings.Join(subjectNames(pair.Leaf), ", "))
	}
}

func subjectNames(c *x509.Certificate) []string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// dhcp asks who else answers machines that start on the interfaces.
func (k *checker) dhcp(ctx context.Context) {
	if k.c.DHCP.Mode == "off" {
		return
	}
	for _, name := range interfaces(k.c) {
		if _, err := net.InterfaceByName(name); err != nil {
			continue // it is said already
		}
		wait, cancel := context.WithTimeout(ctx, discoverTime)
		others, err := dhcp.Discover(wait, name)
		cancel()
		if err != nil {
			k.add(Warning, "dhcp", "who else answers on %s could not be found out: %v", name, err)
			continue
		}
		k.others(name, others)
	}
}

func (k *checker) others(name string, others []dhcp.Other) {
	addresses := 0
	for _, o := range others {
		if o.Own {
			continue
		}
		switch {
		case o.Proxy():
			k.add(Error, "dhcp", "on %s, %s: machines would get one boot loader or the other, by chance; stop one of the two", name, o)
		case k.c.DHCP.Mode == "server":
			k.add(Error, "dhcp", "on %s, %s: two servers would give out addresses; stop that one, or take dhcp.mode: proxy", name, o)
		case o.BootFile != "":
			k.add(Warning, "dhcp", "on %s, %s: firmware that believes it never asks this server; take the boot file out there", name, o)
			addresses++
		default:
			k.add(Good, "dhcp", "on %s, %s", name, o)
			addresses++
		}
	}
	switch {
	case k.c.DHCP.Mode == "proxy" && addresses == 0:
		k.add(Warning, "dhcp", "on %s nobody gives out addresses, and in mode proxy this server does not: machines need a DHCP server too, or dhcp.subnets", name)
	case k.c.DHCP.Mode == "server" && len(others) == 0:
		k.add(Good, "dhcp", "on %s nobody else answers", name)
	}
}

// url sees whether the address that machines are given leads to a server like this one. Where none runs, it answers itself
// for the moment.
func (k *checker) url(ctx context.Context) {
	if k.c.URL == "" {
		return
	}
	if l, err := listen(ctx, "HTTP", k.c.Listen); err == nil {
		h := &http.Server{ReadHeaderTimeout: headerTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"ok"}`) // our own question, which is asked again if this fails
		})}
		go func() { _ = h.Serve(l) }() // ends with the Close below
		defer func() { _ = h.Close() }()
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(k.c.URL, "/")+"/healthz", nil)
	if err != nil {
		k.add(Error, "url", "%v", err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		k.add(Error, "url", "machines are told %s, and from here it cannot be reached: %v", k.c.URL, err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Status string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&answer); err != nil || answer.Status != "ok" {
		k.add(Error, "url", "machines are told %s, and something there that is no imgserve answers (%s)", k.c.URL, resp.Status)
		return
	}
	k.add(Good, "url", "%s leads to an imgserve", k.c.URL)
}
