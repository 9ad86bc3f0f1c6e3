package netconf_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"imgbuild/image"
	"imgbuild/image/plan"
	"imgbuild/installer/netconf"
	"imgbuild/installer/report"
)

// An installer asks for the files before it erases anything, because what fits no card must be said by then. It writes
// them when the system has been unpacked.
func Example() {
	reach := func(ctx context.Context, dial netconf.Dial) error {
		c, err := dial(ctx, "tcp", "10.0.0.1:80")
		if err != nil {
			return err
		}
		return c.Close()
	}
	install := func(ctx context.Context, p plan.Plan, inv plan.Inventory, m *image.Manifest, say report.Reporter, root *os.Root) error {
		o := netconf.Options{Format: m.NetworkFormat, Major: 9, Serial: p.Serial}
		if _, err := netconf.Files(p.Host.Network, p.Host.Hostname, inv.NICs, o); err != nil {
			return err
		}
		if p.Host.Network != nil && p.CheckNetwork {
			// The modules netconf.Modules(p.Host.Network) have been loaded.
			findings, err := netconf.Check(ctx, p.Host.Network, inv.NICs, netconf.CheckOptions{Report: say, Reach: reach})
			var wrong *netconf.Failure
			if errors.As(err, &wrong) {
				return fmt.Errorf("nothing has been changed on the disk: %w", err)
			}
			if err != nil {
				return fmt.Errorf("after %d findings: %w", len(findings), err)
			}
		}

		// … partition, unpack …

		hosts, err := root.ReadFile("etc/hosts")
		if err == nil {
			o.Hosts = string(hosts)
		}
		files, err := netconf.Files(p.Host.Network, p.Host.Hostname, inv.NICs, o)
		if err != nil {
			return err
		}
		// Remove what matches netconf.Replaced(m.NetworkFormat), if there is a network, and write:
		for _, f := range files {
			if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
				return err
			}
			if err := root.WriteFile(f.Name, []byte(f.Content), f.Mode); err != nil {
				return err
			}
		}
		return nil
	}
	_ = install
}
