package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"imgbuild/image/plan"
)

// Redacted is the host as it may be shown: it has no password, and says whether there is one.
func (h Host) Redacted() Host {
	if h.OOB != nil {
		oob := *h.OOB
		oob.PasswordSet = oob.PasswordSet || oob.Password != ""
		oob.Password = ""
		h.OOB = &oob
	}
	return h
}

const (
	hostColumns = `h.sn, h.state, h.doc, h.password, h.inventory, h.booted, h.created, h.updated, h.revision, COALESCE(l.id, ''), COALESCE(l.image, ''), COALESCE(l.state, ''), COALESCE(l.started, 0), COALESCE(l.since, 0)`
	hostTables  = `hosts h LEFT JOIN live_boots l ON l.sn = h.sn AND l.over = 0`
)

// stored is a host as the database has it.
type stored struct {
	Host             // with the management controller's password
	inventory string // JSON
	booted    string
}

// scanHost reads hostColumns.
func scanHost(row scanner) (stored, error) {
	var h stored
	var sn, state, doc, password string
	var created, updated, revision, started, since int64
	var boot LiveBoot
	if err := row.Scan(&sn, &state, &doc, &password, &h.inventory, &h.booted, &created, &updated, &revision, &boot.ID, &boot.Image, &boot.State, &started, &since); err != nil {
		return h, err
	}
	if err := json.Unmarshal([]byte(doc), &h.Host); err != nil {
		return h, fmt.Errorf("read host %s as it is stored: %w", sn, err)
	}
	h.SN, h.State, h.Created, h.Updated, h.Revision = sn, State(state), moment(created), moment(updated), revision
	if password != "" && h.OOB != nil {
		h.OOB.Password = password
	}
	if boot.ID != "" {
		boot.SN, boot.Started, boot.Since = sn, moment(started), moment(since)
		h.LiveBoot = &boot
	}
	if h.inventory != "" {
		h.Inventory = new(plan.Inventory)
		if err := json.Unmarshal([]byte(h.inventory), h.Inventory); err != nil {
			return h, fmt.Errorf("read the inventory of %s as it is stored: %w", sn, err)
		}
	}
	if h.booted != "" {
		h.Booted = new(plan.Booted)
		if err := json.Unmarshal([]byte(h.booted), h.Booted); err != nil {
			return h, fmt.Errorf("read the first boot of %s as it is stored: %w", sn, err)
		}
	}
	return h, nil
}

// document is what people write of a host, as it is stored.
func document(h Host) (string, error) {
	h = h.Redacted()
	h.State, h.Inventory, h.Booted, h.LiveBoot, h.Created, h.Updated, h.Revision = "", nil, nil, nil, time.Time{}, time.Time{}, 0
	if h.OOB != nil {
		h.OOB.PasswordSet = false
	}
	data, err := json.Marshal(h)
	return string(data), err
}

func (t *tx) host(ctx context.Context, sn string) (*stored, error) {
	h, err := first(ctx, t, scanHost, `SELECT `+hostColumns+` FROM `+hostTables+` WHERE h.sn = ?`, sn)
	if err == nil && h == nil {
		err = fmt.Errorf("host %s: %w", sn, ErrNotFound)
	}
	return h, err
}

// Host returns the host with this serial number. Like all methods that return hosts it leaves the password out.
func (s *Store) Host(ctx context.Context, sn string) (*Host, error) {
	var found *stored
	err := s.ask(ctx, "read host", func(ctx context.Context, t *tx) (err error) { found, err = t.host(ctx, sn); return err })
	if err != nil {
		return nil, err
	}
	h := found.Redacted()
	return &h, nil
}

// OOBPassword returns the password of the host's management controller; empty if there is none.
func (s *Store) OOBPassword(ctx context.Context, sn string) (string, error) {
	var found *stored
	err := s.ask(ctx, "read password", func(ctx context.Context, t *tx) (err error) { found, err = t.host(ctx, sn); return err })
	if err != nil || found.OOB == nil {
		return "", err
	}
	return found.OOB.Password, nil
}

// HostByMAC returns the host that has this MAC: the one it was written down for or, if nobody wrote it down, the only one
// in whose inventory it is.
func (s *Store) HostByMAC(ctx context.Context, mac string) (*Host, error) {
	mac, err := normalMAC(mac)
	if err != nil {
		return nil, fmt.Errorf("read host by MAC: %w: %w", ErrInvalid, err)
	}
	var found []stored
	err = s.ask(ctx, "read host by MAC", func(ctx context.Context, t *tx) (err error) {
		found, err = all(ctx, t, scanHost, `SELECT `+hostColumns+` FROM `+hostTables+` JOIN host_macs m ON m.sn = h.sn WHERE m.mac = ? ORDER BY m.written DESC, h.sn LIMIT 2`, mac)
		if err != nil || len(found) < 2 {
			return err
		}
		written, err := t.number(ctx, `SELECT COUNT(*) FROM host_macs WHERE mac = ? AND written = 1`, mac)
		if written == 0 {
			found = nil // several machines say they have it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("read host by MAC %s: %w", mac, ErrNotFound)
	}
	h := found[0].Redacted()
	return &h, nil
}

// HostFilter chooses hosts; what is empty chooses all.
type HostFilter struct {
	States []State
	Rack   string
	Owner  string
	Image  string // name, or name/version
	// Live are states of the hosts' last live boots.
	Live  []LiveState
	Match string // is part of the serial number, name, address, MAC, model, owner or position, in capitals or not
	// After is the serial number after which the list begins: the last one of the page before.
	After string
	Limit int // 0 is no limit
	// Inventory asks for the inventories too, which are most of a host's bytes.
	Inventory bool
}

// Hosts returns hosts in the order of their serial numbers.
func (s *Store) Hosts(ctx context.Context, f HostFilter) ([]Host, error) {
	where, args := []string{"h.sn > ?"}, []any{f.After}
	add := func(condition string, values ...any) { where, args = append(where, condition), append(args, values...) }
	if len(f.States) > 0 {
		values := make([]any, len(f.States))
		for i, v := range f.States {
			values[i] = string(v)
		}
		add("h.state IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
	}
	if len(f.Live) > 0 {
		values := make([]any, len(f.Live))
		for i, v := range f.Live {
			values[i] = string(v)
		}
		add("l.state IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
	}
	if f.Rack != "" {
		add("h.rack = ?", f.Rack)
	}
	if f.Owner != "" {
		add("h.owner = ?", f.Owner)
	}
	if f.Image != "" {
		add(`(h.image = ? OR substr(h.image, 1, ?) = ?)`, f.Image, utf8.RuneCountInString(f.Image)+1, f.Image+"/")
	}
	if f.Match != "" {
		add(`h.words LIKE ? ESCAPE '!'`, "%"+like(strings.ToLower(f.Match))+"%")
	}
	columns := hostColumns
	if !f.Inventory {
		columns = strings.Replace(columns, "h.inventory", "''", 1)
	}
	query := `SELECT ` + columns + ` FROM ` + hostTables + ` WHERE ` + strings.Join(where, " AND ") + ` ORDER BY h.sn`
	if f.Limit > 0 {
		query += ` LIMIT ?`
		args = append(args, f.Limit)
	}
	var list []stored
	err := s.ask(ctx, "list hosts", func(ctx context.Context, t *tx) (err error) {
		list, err = all(ctx, t, scanHost, query, args...)
		return err
	})
	hosts := make([]Host, len(list))
	for i := range list {
		hosts[i] = list[i].Redacted()
	}
	return hosts, err
}

// like makes a text stand for itself in a LIKE pattern.
func like(s string) string { return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s) }

// DeleteHost removes a host. Its diary and its orders stay. One with a live order stays.
func (s *Store) DeleteHost(ctx context.Context, sn, by string) error {
	return s.write(ctx, "delete host "+sn, func(ctx context.Context, t *tx) error {
		h, err := t.host(ctx, sn)
		if err != nil {
			return err
		}
		if o, err := t.live(ctx, sn); err != nil {
			return err
		} else if o != nil {
			return fmt.Errorf("order %s is %s: cancel it first: %w", o.ID, o.State, ErrConflict)
		}
		if _, err := t.exec(ctx, `DELETE FROM hosts WHERE sn = ?`, sn); err != nil {
			return err
		}
		if _, err := t.exec(ctx, `UPDATE orders SET gone = 1 WHERE sn = ?`, sn); err != nil {
			return err
		}
		if err := t.endLive(ctx, sn, t.now); err != nil {
			return err
		}
		t.append(Event{SN: sn, Kind: "deleted", By: by, Text: "deleted; it was " + string(h.State)})
		return nil
	})
}

// setState moves a host on its way. A host that is not there any more stays away.
func (t *tx) setState(ctx context.Context, sn string, state State) error {
	_, err := t.exec(ctx, `UPDATE hosts SET state = ?, updated = ?, revision = revision + 1 WHERE sn = ? AND state <> ?`,
		string(state), stamp(t.now), sn, string(state))
	return err
}

// save writes a host, with everything that is the server's.
func (t *tx) save(ctx context.Context, h *stored, created bool) error {
	doc, err := document(h.Host)
	if err != nil {
		return err
	}
	if h.Inventory != nil {
		data, err := json.Marshal(h.Inventory)
		if err != nil {
			return err
		}
		h.inventory = string(data)
	}
	password := ""
	if h.OOB != nil {
		password = h.OOB.Password
	}
	words := strings.ToLower(strings.Join(append([]string{h.SN, h.Hostname, h.IP, h.UUID, h.Model, h.Owner, h.Rack, h.Position, h.Image}, h.MACs...), "\n"))
	values := []any{string(h.State), h.Rack, h.Owner, h.Image, words, doc, password, h.inventory, h.booted, stamp(h.Created), stamp(h.Updated), h.Revision, h.SN}
	query := `UPDATE hosts SET state = ?, rack = ?, owner = ?, image = ?, words = ?, doc = ?, password = ?, inventory = ?, booted = ?, created = ?, updated = ?, revision = ? WHERE sn = ?`
	if created {
		query = `INSERT INTO hosts (state, rack, owner, image, words, doc, password, inventory, booted, created, updated, revision, sn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	}
	if _, err := t.exec(ctx, query, values...); err != nil {
		return err
	}
	return t.saveMACs(ctx, h)
}

// saveMACs keeps the index of MACs. A MAC that was written down belongs to one host.
func (t *tx) saveMACs(ctx context.Context, h *stored) error {
	if _, err := t.exec(ctx, `DELETE FROM host_macs WHERE sn = ?`, h.SN); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, mac := range h.MACs {
		seen[mac] = true
		if _, err := t.exec(ctx, `INSERT INTO host_macs (mac, sn, written) VALUES (?, ?, 1)`, mac, h.SN); err != nil {
			return err
		}
	}
	if h.Inventory == nil {
		return nil
	}
	for _, nic := range h.Inventory.NICs {
		mac, err := normalMAC(nic.MAC)
		if err != nil || seen[mac] {
			continue // some cards have none, as InfiniBand's
		}
		seen[mac] = true
		if _, err := t.exec(ctx, `INSERT INTO host_macs (mac, sn, written) VALUES (?, ?, 0)`, mac, h.SN); err != nil {
			return err
		}
	}
	return nil
}

// foreignMACs says which of the host's MACs are written down for another one.
func (t *tx) foreignMACs(ctx context.Context, h *Host) (map[string]string, error) {
	taken := map[string]string{}
	for _, mac := range h.MACs {
		sn, err := first(ctx, t, func(row scanner) (sn string, err error) { return sn, row.Scan(&sn) },
			`SELECT sn FROM host_macs WHERE mac = ? AND written = 1 AND sn <> ?`, mac, h.SN)
		if err != nil {
			return nil, err
		}
		if sn != nil {
			taken[mac] = *sn
		}
	}
	return taken, nil
}
