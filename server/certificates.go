package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"imgbuild/server/config"
)

// Lives of the server's own certificates. Clients refuse leaves of more than 398 days.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	renewBefore   = 60 * 24 * time.Hour
	// lookEvery is how often given certificates are looked at for new ones.
	lookEvery = time.Minute
)

// Files of the server's own certificates, in the state directory. CAFile is what clients are given.
const (
	CAFile    = "ca.pem"
	caKeyFile = "ca.key"
)

// certificates is the server's certificate for HTTPS: one that is given, read again when its file changes, or one of the
// server's own authority, made again before it expires.
type certificates struct {
	c   *config.Config
	now func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time
	changed time.Time // of the given file
}

// openCertificates reads the given certificate, or makes the own one.
func openCertificates(c *config.Config, now func() time.Time) (*certificates, error) {
	s := &certificates{c: c, now: now}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return s, nil
}

// get is what tls.Config asks for each connection.
func (s *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Sub(s.looked) > lookEvery {
		old := s.current
		if err := s.load(); err != nil && old != nil {
			s.current, s.looked = old, s.now() // half of a new pair may be there: the old one is good until it expires
		}
	}
	return s.current, nil
}

func (s *certificates) load() error {
	s.looked = s.now()
	if s.c.TLS.Self {
		return s.own()
	}
	st, err := os.Stat(s.c.TLS.Cert)
	if err == nil && s.current != nil && st.ModTime().Equal(s.changed) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(s.c.TLS.Cert, s.c.TLS.Key)
	if err != nil {
		return fmt.Errorf("read certificate %s and key %s: %w", s.c.TLS.Cert, s.c.TLS.Key, err)
	}
	s.current = &pair
	if st != nil {
		s.changed = st.ModTime()
	}
	return nil
}

// own makes a certificate of the own authority, unless there is one that is good for long enough. It is kept in memory
// alone: only the authority has to outlive the program.
func (s *certificates) own() error {
	if s.current != nil && s.now().Add(renewBefore).Before(s.current.Leaf.NotAfter) {
		return nil
	}
	ca, key, err := authority(s.c.State, s.now())
	if err != nil {
		return err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the server's key: %w", err)
	}
	names, addrs := subjects(s.c)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "imgserve"}, DNSNames: names, IPAddresses: addrs,
		NotBefore: s.now().Add(-time.Hour), NotAfter: s.now().Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := sign(template, ca, leafKey.Public(), key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("make the server's certificate: %w", err)
	}
	s.current = &tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: leafKey, Leaf: leaf}
	return nil
}

func sign(template, ca *x509.Certificate, public any, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280, 4.1.2.2: up to 20 bytes, positive
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return der, nil
}

// subjects are the names and addresses that the own certificate is for.
func subjects(c *config.Config) (names []string, addrs []net.IP) {
	add := func(s string) {
		if ip := net.ParseIP(s); ip != nil {
			addrs = append(addrs, ip)
		} else if s != "" && !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	add("localhost")
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	if u, err := url.Parse(c.URL); err == nil {
		add(u.Hostname())
	}
	for _, n := range c.TLS.Names {
		add(n)
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return names, addrs // the names are still good
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			addrs = append(addrs, n.IP)
		}
	}
	return names, addrs
}

// authority reads the server's own certificate authority, or makes it the first time.
func authority(state string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certPath, keyPath := filepath.Join(state, CAFile), filepath.Join(state, caKeyFile)
	keyPEM, err := readSmall(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(certPath, keyPath, now)
	}
	if err != nil {
		return nil, nil, err
	}
	certPEM, err := readSmall(certPath)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; its key %s is there: bring it back, or take the key away too and give all clients the new authority", err, keyPath)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("read the server's own certificate authority (%s and %s): %w", certPath, keyPath, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, nil, fmt.Errorf("%s is no certificate authority that this server has made", certPath)
	}
	if now.Add(leafLife).After(pair.Leaf.NotAfter) {
		return nil, nil, fmt.Errorf("the server's own certificate authority %s ends at %s: move it and %s away, and give all clients the new one", certPath, pair.Leaf.NotAfter.Format(time.DateOnly), keyPath)
	}
	return pair.Leaf, key, nil
}

func newAuthority(certPath, keyPath string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the server's own certificate authority: %w", err)
	}
	name := "imgserve"
	if host, err := os.Hostname(); err == nil {
		name += " on " + host
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the server's own certificate authority: %w", err)
	}
	// The certificate first: a key without one would be taken for a loss.
	err = writeWhole(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	if err == nil {
		err = writeWhole(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// writeWhole writes a file that is there whole or not at all, and survives a power failure.
func writeWhole(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = bytes.NewReader(data).WriteTo(f)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
