package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"imgbuild/image/plan"
)

// MustNotExist as PutHost's ifRevision creates a host, and replaces none.
const MustNotExist = -1

// PutHost creates a host, or replaces all of it that people write. A password that is not given stays, as long as the
// management controller does. With ifRevision above 0 the host must have that revision, with MustNotExist there must be none,
// else nothing changes and the error is ErrConflict. A host that was new becomes known. by is the person.
func (s *Store) PutHost(ctx context.Context, h Host, by string, ifRevision int64) (host *Host, created bool, err error) {
	h = h.clone()
	if err := ValidateHost(&h); err != nil {
		return nil, false, fmt.Errorf("write host %s: %w", h.SN, err)
	}
	err = s.write(ctx, "write host "+h.SN, func(ctx context.Context, t *tx) error {
		old, err := first(ctx, t, scanHost, `SELECT `+hostColumns+` FROM `+hostTables+` WHERE h.sn = ?`, h.SN)
		if err != nil {
			return err
		}
		if old == nil && ifRevision > 0 {
			return fmt.Errorf("there is no host %s any more: %w", h.SN, ErrConflict)
		}
		if old != nil && ifRevision == MustNotExist {
			return fmt.Errorf("host %s is there already, with revision %d: %w", h.SN, old.Revision, ErrConflict)
		}
		wanted := h.clone()
		if old != nil && old.OOB != nil && wanted.OOB != nil && wanted.OOB.Password == "" {
			wanted.OOB.Password = old.OOB.Password
		}
		created = old == nil
		host, err = t.replace(ctx, old, wanted, by, ifRevision)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return host, created, nil
}

// PatchHost changes a host by a JSON merge patch (RFC 7396): what is not named stays, null takes away. Fields of the server
// in the patch are passed over. ifRevision is as with PutHost. Even an empty patch makes a new host known: somebody has
// looked at it.
func (s *Store) PatchHost(ctx context.Context, sn string, patch []byte, by string, ifRevision int64) (host *Host, err error) {
	change, err := parseObject(patch)
	if err != nil {
		return nil, fmt.Errorf("change host %s: %w", sn, &Invalid{Fields: []FieldError{{Message: err.Error()}}})
	}
	if v, ok := change["sn"]; ok && v != any(sn) {
		return nil, fmt.Errorf("change host %s: %w", sn, invalid("sn", "it cannot be changed: create another host"))
	}
	for _, name := range serversFields {
		delete(change, name)
	}
	if oob, ok := change["oob"].(map[string]any); ok {
		delete(oob, "password_set")
	}
	err = s.write(ctx, "change host "+sn, func(ctx context.Context, t *tx) error {
		old, err := t.host(ctx, sn)
		if err != nil {
			return err
		}
		doc, err := document(old.Host)
		if err != nil {
			return err
		}
		whole, err := parseObject([]byte(doc))
		if err != nil {
			return err
		}
		if oob, ok := whole["oob"].(map[string]any); ok && old.OOB.Password != "" {
			oob["password"] = old.OOB.Password // so that null can take it away
		}
		data, err := json.Marshal(mergePatch(whole, change))
		if err != nil {
			return err
		}
		wanted, err := DecodeHost(data)
		if err != nil {
			return err
		}
		if err := ValidateHost(&wanted); err != nil {
			return err
		}
		host, err = t.replace(ctx, old, wanted, by, ifRevision)
		return err
	})
	if err != nil {
		return nil, err
	}
	return host, nil
}

// replace writes what a person wants a host to be; old is nil where there is none. Where nothing changes, nothing happens.
func (t *tx) replace(ctx context.Context, old *stored, wanted Host, by string, ifRevision int64) (*Host, error) {
	if by == "" {
		return nil, invalid("by", "nobody is named who writes it")
	}
	if old != nil && ifRevision > 0 && old.Revision != ifRevision {
		return nil, fmt.Errorf("its revision is %d and the change was made for %d: read it again: %w", old.Revision, ifRevision, ErrConflict)
	}
	taken, err := t.foreignMACs(ctx, &wanted)
	if err != nil {
		return nil, err
	}
	if len(taken) > 0 {
		var wrong Invalid
		for _, mac := range wanted.MACs {
			if sn, ok := taken[mac]; ok {
				wrong.add("macs", "%s is host %s's", mac, sn)
			}
		}
		return nil, &wrong
	}
	next := stored{Host: wanted}
	next.Created, next.Updated, next.Revision, next.State = t.now, t.now, 1, Known
	event := Event{SN: wanted.SN, Kind: "registered", By: by, Text: "registered"}
	if old != nil {
		next.State, next.Inventory, next.inventory, next.Booted, next.booted, next.LiveBoot = old.State, old.Inventory, old.inventory, old.Booted, old.booted, old.LiveBoot
		next.Created, next.Revision = old.Created, old.Revision+1
		if next.State == New {
			next.State = Known
		}
		changes, err := differences(old.Host, wanted)
		if err != nil {
			return nil, err
		}
		if old.State == New {
			changes = append([]string{"approved"}, changes...)
		}
		if len(changes) == 0 {
			h := old.Redacted()
			return &h, nil
		}
		event.Kind, event.Text = "changed", strings.Join(changes, "; ")
	}
	if err := t.save(ctx, &next, old == nil); err != nil {
		return nil, err
	}
	t.append(event)
	h := next.Redacted()
	h.Created, h.Updated = moment(stamp(h.Created)), moment(stamp(h.Updated))
	return &h, nil
}

// differences says what of a host changes, for the diary. Values that may be secret, or are long, are only named.
func differences(old, wanted Host) ([]string, error) {
	fields := func(h Host) (map[string]json.RawMessage, error) {
		doc, err := document(h)
		if err != nil {
			return nil, err
		}
		var m map[string]json.RawMessage
		return m, json.Unmarshal([]byte(doc), &m)
	}
	a, err := fields(old)
	if err != nil {
		return nil, err
	}
	b, err := fields(wanted)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	var list []string
	for name := range names {
		if bytes.Equal(a[name], b[name]) {
			continue
		}
		switch name {
		case "network", "users", "files", "metadata", "oob":
			list = append(list, name+" changed")
		default:
			list = append(list, fmt.Sprintf("%s: %s → %s", name, shown(a[name]), shown(b[name])))
		}
	}
	slices.Sort(list)
	if old.OOB != nil && wanted.OOB != nil && old.OOB.Password != wanted.OOB.Password || (old.OOB == nil && wanted.OOB != nil && wanted.OOB.Password != "") {
		list = append(list, "oob.password changed")
	}
	return list, nil
}

func shown(v json.RawMessage) string {
	if len(v) == 0 || string(v) == `""` {
		return "nothing"
	}
	return string(v)
}

// Whoever is on the network can claim to be a new machine: what that may leave behind is bounded.
const (
	maxNew       = 20000
	maxInventory = 512 << 10 // bytes of JSON; a machine with 100 disks has 40 KiB
)

// SeeMachine stores what a machine says of itself, and registers one that is not known as new, with its UUID, model and
// MACs. It reports whether it did that. The caller has checked that the serial number identifies a machine, and that the
// machine is the one that was written down (gate.Decide).
func (s *Store) SeeMachine(ctx context.Context, inv plan.Inventory) (host *Host, created bool, err error) {
	if problem := checkSN(inv.Serial); problem != "" {
		return nil, false, fmt.Errorf("register machine: %w", invalid("serial", problem))
	}
	inv = cleaned(inv)
	data, err := json.Marshal(inv)
	if err != nil {
		return nil, false, fmt.Errorf("register machine %s: %w", inv.Serial, err)
	}
	if len(data) > maxInventory {
		return nil, false, fmt.Errorf("register machine %s: %w", inv.Serial, invalid("inventory", fmt.Sprintf("it has %d bytes, and %d is the most", len(data), maxInventory)))
	}
	err = s.write(ctx, "register machine "+inv.Serial, func(ctx context.Context, t *tx) error {
		old, err := first(ctx, t, scanHost, `SELECT `+hostColumns+` FROM `+hostTables+` WHERE h.sn = ?`, inv.Serial)
		if err != nil {
			return err
		}
		if created = old == nil; created {
			host, err = t.registerMachine(ctx, inv)
			return err
		}
		if old.inventory != string(data) {
			old.Inventory, old.Updated, old.Revision = &inv, t.now, old.Revision+1
			if err := t.save(ctx, old, false); err != nil {
				return err
			}
			t.append(Event{SN: inv.Serial, Kind: "inventory", Text: "it says that it is " + summary(inv)})
		}
		h := old.Redacted()
		h.Updated = moment(stamp(h.Updated))
		host = &h
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return host, created, nil
}

func (t *tx) registerMachine(ctx context.Context, inv plan.Inventory) (*Host, error) {
	n, err := t.number(ctx, `SELECT COUNT(*) FROM hosts WHERE state = ?`, string(New))
	if err != nil {
		return nil, err
	}
	if n >= maxNew {
		return nil, fmt.Errorf("%d machines wait for somebody's approval already: approve or delete those: %w", n, ErrConflict)
	}
	h := stored{Host: Host{SN: inv.Serial, UUID: strings.ToLower(inv.UUID), Model: strings.TrimSpace(inv.Product), State: New, Created: t.now, Updated: t.now, Revision: 1}}
	if problem := checkUUID(h.UUID); problem != "" {
		h.UUID = ""
	}
	if problem := checkLine(h.Model); problem != "" {
		h.Model = ""
	}
	for _, nic := range inv.NICs {
		if mac, err := normalMAC(nic.MAC); err == nil && !slices.Contains(h.MACs, mac) {
			h.MACs = append(h.MACs, mac)
		}
	}
	taken, err := t.foreignMACs(ctx, &h.Host)
	if err != nil {
		return nil, err
	}
	text := "registered as new: it says that it is " + summary(inv)
	var own []string
	for _, mac := range h.MACs {
		if sn, ok := taken[mac]; ok {
			text += fmt.Sprintf("; its MAC %s is host %s's", mac, sn)
			continue
		}
		own = append(own, mac)
	}
	h.MACs, h.Inventory = own, &inv
	if err := t.save(ctx, &h, true); err != nil {
		return nil, err
	}
	t.append(Event{SN: inv.Serial, Kind: "registered", Text: text})
	shown := h.Redacted()
	shown.Created, shown.Updated = moment(stamp(t.now)), moment(stamp(t.now))
	return &shown, nil
}

// summary is a machine in one line.
func summary(inv plan.Inventory) string {
	name := strings.TrimSpace(inv.Vendor + " " + inv.Product)
	if name == "" {
		name = "a machine without a model"
	}
	return fmt.Sprintf("%s, %d CPUs, %d MiB of memory, %d disks, %d network cards", name, inv.CPUs, inv.MemoryBytes>>20, len(inv.Disks), len(inv.NICs))
}

// clone keeps what validation changes from showing in the caller's value.
func (h Host) clone() Host {
	h.MACs = append([]string(nil), h.MACs...)
	h.Search = append([]string(nil), h.Search...)
	if h.OOB != nil {
		oob := *h.OOB
		h.OOB = &oob
	}
	h.State, h.Inventory, h.Booted, h.LiveBoot, h.Created, h.Updated, h.Revision = "", nil, nil, nil, time.Time{}, time.Time{}, 0
	return h
}
