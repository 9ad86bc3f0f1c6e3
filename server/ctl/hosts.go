package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgbuild/server/client"
	"imgbuild/server/ctl/hostfile"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// List prints the hosts that are chosen.
func (t *Tool) List(ctx context.Context, q client.HostQuery) error {
	hosts, err := t.Client.Hosts(ctx, q)
	if err != nil {
		return fmt.Errorf("list hosts: %w", err)
	}
	var rows [][]string
	header := []string{"SN", "HOST", "ADDRESS", "STATE", "IMAGE", "RACK", "POSITION", "OWNER", "PROTECT"}
	live := slices.ContainsFunc(hosts, func(h registry.Host) bool { return h.Live != nil || h.LiveBoot != nil })
	if live {
		header = append(header, "LIVE")
	}
	transfers := t.transfers(ctx, hosts)
	if len(transfers) > 0 {
		header = append(header, "TRANSFER")
	}
	for _, h := range hosts {
		protect := ""
		if h.Protect {
			protect = "protected"
		}
		row := []string{h.SN, h.Hostname, address(h), string(h.State), h.Image, h.Rack, h.Position, h.Owner, protect}
		if live {
			row = append(row, liveText(h, t.Now().In(t.Zone)))
		}
		if len(transfers) > 0 {
			row = append(row, transfers[h.SN])
		}
		rows = append(rows, row)
	}
	return t.print(orEmpty(hosts), header, rows, "no host is as was asked for")
}

// address is a host's first address, with its prefix where it has a network of its own.
func address(h registry.Host) string {
	if h.IP != "" || h.Network == nil {
		return h.IP
	}
	n := h.Network
	for _, e := range n.Ethernets {
		if len(e.Addresses) > 0 {
			return e.Addresses[0].Addr().String()
		}
	}
	for _, b := range n.Bonds {
		if len(b.Addresses) > 0 {
			return b.Addresses[0].Addr().String()
		}
	}
	for _, v := range n.VLANs {
		if len(v.Addresses) > 0 {
			return v.Addresses[0].Addr().String()
		}
	}
	return ""
}

// Show prints all that is known of hosts.
func (t *Tool) Show(ctx context.Context, sns []string) error {
	out, err := each(ctx, t, "hosts read", sns, itself, t.Client.Host)
	if err != nil {
		return fmt.Errorf("show hosts: %w", err)
	}
	hosts := good(out)
	switch {
	case t.Format == show.Table:
		for i, h := range hosts {
			if i > 0 {
				fmt.Fprintln(t.Out)
			}
			if err := t.showHost(h); err != nil {
				return err
			}
		}
	case len(sns) == 1 && len(hosts) == 1:
		if err := show.Value(t.Out, t.Format, hosts[0]); err != nil {
			return err
		}
	default:
		if err := show.Value(t.Out, t.Format, orEmpty(hosts)); err != nil {
			return err
		}
	}
	return failures(t, "hosts", out)
}

// showHost prints one host for a person: its fields, each in its line, then what the machine says of itself.
func (t *Tool) showHost(h *registry.Host) error {
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t.Out, "%-15s %s\n", name, show.Clean(value))
		}
	}
	put("sn", h.SN)
	put("state", string(h.State))
	for _, name := range hostfile.Fields() {
		if name == "sn" {
			continue
		}
		v, err := hostfile.Text(h, name)
		if err != nil {
			return fmt.Errorf("show host %s: %s: %w", h.SN, name, err)
		}
		put(name, v)
	}
	if h.OOB != nil && h.OOB.PasswordSet {
		put("oob.password", "(set)")
	}
	if h.LiveBoot != nil {
		put("live boot", liveText(*h, t.Now().In(t.Zone)))
	}
	put("revision", strconv.FormatInt(h.Revision, 10))
	put("created", show.Ago(h.Created, t.Now().In(t.Zone)))
	put("updated", show.Ago(h.Updated, t.Now().In(t.Zone)))
	if b := h.Booted; b != nil {
		put("booted", listed(b.System, b.Kernel, b.Hostname, strings.Join(b.Addresses, " ")))
		put("failed units", strings.Join(b.Failed, " "))
	}
	i := h.Inventory
	if i == nil {
		return nil
	}
	put("machine", listed(words(i.Vendor, i.Product), i.Firmware, words(strconv.Itoa(i.CPUs), "CPUs", i.CPUModel), show.Bytes(i.MemoryBytes)))
	for _, d := range i.Disks {
		put("disk "+filepath.Base(d.Path), words(show.Bytes(d.SizeBytes), d.Transport, d.Model, d.Serial)+holds(d.Holds))
	}
	for _, n := range i.NICs {
		text := n.MAC + " " + n.Driver
		if n.Link {
			text += fmt.Sprintf(", link at %d Mbit/s", n.SpeedMbit)
		}
		if p := n.Neighbour; p != nil {
			text += fmt.Sprintf(", %s port %s", p.System, p.Port)
		}
		put("nic "+n.Name, text)
	}
	return nil
}

// words joins what is not empty with blanks, listed with commas.
func words(parts ...string) string {
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}

func listed(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func holds(what []string) string {
	if len(what) == 0 {
		return ", empty"
	}
	return ", holds " + strings.Join(what, "; ")
}

// Set changes fields of hosts, each only if it is still as it was read. With create, hosts that are not there are written
// down.
func (t *Tool) Set(ctx context.Context, sns, assignments []string, create bool) error {
	entries, err := t.assign(sns, assignments)
	if err != nil {
		return err
	}
	return t.setAll(ctx, entries, func(ctx context.Context, e hostfile.Entry) (string, error) { return t.set(ctx, e, create, false) })
}

// Approve makes new hosts known, and sets fields of them on the way.
func (t *Tool) Approve(ctx context.Context, sns, assignments []string) error {
	entries, err := t.assign(sns, assignments)
	if err != nil {
		return err
	}
	return t.setAll(ctx, entries, func(ctx context.Context, e hostfile.Entry) (string, error) { return t.set(ctx, e, false, true) })
}

func (t *Tool) assign(sns, assignments []string) ([]hostfile.Entry, error) {
	assignments = slices.Clone(assignments)
	for i, a := range assignments {
		path, ok := strings.CutPrefix(a, "layout=@")
		if !ok {
			continue
		}
		l, err := t.readLayout(path)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		assignments[i] = "layout=" + string(data)
	}
	entries := make([]hostfile.Entry, len(sns))
	for i, sn := range sns {
		e, err := hostfile.Assignments(sn, assignments)
		if err != nil {
			return nil, &UsageError{err}
		}
		entries[i] = e
	}
	for _, field := range []string{"hostname", "ip", "macs", "uuid", "oob.address"} {
		if len(sns) > 1 && entries[0].Sets(field) && slices.ContainsFunc(assignments, func(a string) bool { name, v, _ := strings.Cut(a, "="); return name == field && v != "" }) {
			return nil, usage("%s: %d hosts would get the same; set it for each on its own, or import a file", field, len(sns))
		}
	}
	return entries, nil
}

func (t *Tool) setAll(ctx context.Context, entries []hostfile.Entry, do func(context.Context, hostfile.Entry) (string, error)) error {
	out, err := each(ctx, t, "hosts written", entries, func(e hostfile.Entry) string { return e.SN }, do)
	if err != nil {
		return fmt.Errorf("change hosts: %w", err)
	}
	for _, o := range out {
		if o.err == nil {
			t.said("%s: %s", show.Clean(o.what), show.Clean(o.value))
		}
	}
	return failures(t, "hosts", out)
}

// set does one host and returns what was done. Somebody who changes the host at the same time is not overwritten.
func (t *Tool) set(ctx context.Context, e hostfile.Entry, create, approve bool) (string, error) {
	old, err := t.Client.Host(ctx, e.SN)
	if client.NotFound(err) && create {
		old, err = nil, nil
	}
	if err != nil {
		return "", err
	}
	p, wrong := planOne(e, old)
	if len(wrong) > 0 {
		errs := make([]error, len(wrong))
		for i, w := range wrong {
			errs[i] = w
		}
		return "", errors.Join(errs...)
	}
	if approve && p.patch == nil {
		return "is " + string(old.State) + " already", nil
	}
	if old != nil && p.patch == nil {
		return "is so already", nil
	}
	if _, err := t.write(ctx, p); err != nil {
		return "", err
	}
	var done []string
	if old == nil {
		done = append(done, "written down")
	}
	for _, c := range p.Changes {
		done = append(done, c.String())
	}
	return strings.Join(done, "; "), nil
}

// Delete forgets hosts.
func (t *Tool) Delete(ctx context.Context, sns []string) error {
	out, err := each(ctx, t, "hosts deleted", sns, itself, func(ctx context.Context, sn string) (string, error) {
		return "deleted", t.Client.DeleteHost(ctx, sn)
	})
	if err != nil {
		return fmt.Errorf("delete hosts: %w", err)
	}
	for _, o := range out {
		if o.err == nil {
			t.said("%s: deleted", show.Clean(o.what))
		}
	}
	return failures(t, "hosts", out)
}

// Export writes hosts in a form that Import takes, to a file or, if path is empty or a dash, to Out.
func (t *Tool) Export(ctx context.Context, q client.HostQuery, sns []string, path string, f hostfile.Format) error {
	hosts, err := t.Client.Hosts(ctx, q)
	if err != nil {
		return fmt.Errorf("export hosts: %w", err)
	}
	if len(sns) > 0 {
		hosts = slices.DeleteFunc(hosts, func(h registry.Host) bool { return !slices.Contains(sns, h.SN) })
		for _, sn := range sns {
			if !slices.ContainsFunc(hosts, func(h registry.Host) bool { return h.SN == sn }) {
				return fmt.Errorf("export hosts: there is no host %s", sn)
			}
		}
	}
	if f == "" {
		f = hostfile.CSV
		if path != "" && path != "-" {
			f = hostfile.FormatOf(path, nil)
		}
	}
	if path == "" || path == "-" {
		return hostfile.Write(t.Out, f, hosts)
	}
	return writeFile(path, func(file *os.File) error { return hostfile.Write(file, f, hosts) })
}

// writeFile makes a file that is whole or not there; it is its owner's, since hosts have password hashes.
func writeFile(path string, write func(*os.File) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}
