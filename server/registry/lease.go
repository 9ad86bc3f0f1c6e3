package registry

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Lease is an address that DHCP has given to a client.
type Lease struct {
	Address netip.Addr `json:"address"`
	// ClientID is option 61, as the DHCP server writes it; empty if the client sends none.
	ClientID string       `json:"client_id,omitempty"`
	MAC      string       `json:"mac,omitempty"`
	SN       string       `json:"sn,omitempty"`
	Hostname string       `json:"hostname,omitempty"`
	Subnet   netip.Prefix `json:"subnet"`
	State    string       `json:"state"` // the DHCP server's word: bound, declined, …
	Expires  time.Time    `json:"expires"`
}

func scanLease(row scanner) (l Lease, err error) {
	var address, subnet string
	var expires int64
	if err := row.Scan(&address, &l.ClientID, &l.MAC, &l.SN, &l.Hostname, &subnet, &l.State, &expires); err != nil {
		return l, err
	}
	if err := l.Address.UnmarshalText([]byte(address)); err != nil {
		return l, fmt.Errorf("read lease of %s as it is stored: %w", address, err)
	}
	if err := l.Subnet.UnmarshalText([]byte(subnet)); err != nil {
		return l, fmt.Errorf("read lease of %s as it is stored: %w", address, err)
	}
	l.Expires = moment(expires)
	return l, nil
}

const leaseColumns = `address, client, mac, sn, hostname, subnet, state, expires`

// PutLease writes a lease. An address that at this time another client's lease holds (neither its client ID, nor its MAC, nor
// its serial number is the same) is ErrConflict: of two DHCP servers that share the registry one wins.
func (s *Store) PutLease(ctx context.Context, l Lease, now time.Time) error {
	return s.write(ctx, "store lease of "+l.Address.String(), func(ctx context.Context, t *tx) error {
		if !l.Address.IsValid() {
			return invalid("address", "it is not an address")
		}
		if l.ClientID == "" && l.MAC == "" {
			return invalid("client_id", "it names no client")
		}
		n, err := t.exec(ctx, `INSERT INTO leases (`+leaseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (address) DO UPDATE SET client = excluded.client, mac = excluded.mac, sn = excluded.sn, hostname = excluded.hostname, subnet = excluded.subnet,
			state = excluded.state, expires = excluded.expires
			WHERE leases.expires <= ? OR (leases.client <> '' AND leases.client = excluded.client) OR (leases.mac <> '' AND leases.mac = excluded.mac) OR (leases.sn <> '' AND leases.sn = excluded.sn)`,
			l.Address.String(), clean(l.ClientID), clean(l.MAC), clean(l.SN), clean(l.Hostname), prefixText(l.Subnet), clean(l.State), stamp(l.Expires), stamp(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("another client has the address: %w", ErrConflict)
		}
		return err
	})
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// Leases returns all leases, those that have expired too.
func (s *Store) Leases(ctx context.Context) (list []Lease, err error) {
	err = s.ask(ctx, "list leases", func(ctx context.Context, t *tx) (err error) {
		list, err = all(ctx, t, scanLease, `SELECT `+leaseColumns+` FROM leases ORDER BY address`)
		return err
	})
	return list, err
}

// DeleteLease forgets a lease. One that is not there is no error.
func (s *Store) DeleteLease(ctx context.Context, address netip.Addr) error {
	return s.write(ctx, "delete lease of "+address.String(), func(ctx context.Context, t *tx) error {
		_, err := t.exec(ctx, `DELETE FROM leases WHERE address = ?`, address.String())
		return err
	})
}
