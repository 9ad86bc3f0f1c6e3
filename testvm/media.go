package testvm

import (
	"context"
	"encoding/json"
	"fmt"
)

// Eject takes the disc out of a CD drive, as by its emergency hole: the guest is not asked. disk is its place among the machine's disks.
func (m *Machine) Eject(ctx context.Context, disk int) error {
	return m.qmp.Execute(ctx, "eject", map[string]any{"id": diskDevice(disk), "force": true}, nil)
}

// Unplug pulls a USB stick out. disk is its place among the machine's disks, with those that Plug added.
func (m *Machine) Unplug(ctx context.Context, disk int) error {
	return m.qmp.Execute(ctx, "device_del", map[string]any{"id": diskDevice(disk)}, nil)
}

// Plug puts a USB stick, which is read at so many bytes a second at most, into a running machine that has had one from the start, and
// so the ports for it. It returns the stick's place among the machine's disks.
func (m *Machine) Plug(ctx context.Context, d Disk, rate int64) (int, error) {
	if d.Format == "" {
		d.Format = Raw
	}
	i := len(m.config.Disks)
	node, slow := fmt.Sprintf("disk%d", i), fmt.Sprintf("slow%d", i)
	for _, c := range []struct {
		command string
		args    any
	}{
		{"blockdev-add", json.RawMessage(blockdev(node, d))},
		{"object-add", map[string]any{"qom-type": "throttle-group", "id": slow, "limits": map[string]any{"bps-read": rate}}},
		{"blockdev-add", map[string]any{"driver": "throttle", "node-name": slow, "throttle-group": slow, "file": node, "read-only": d.ReadOnly}},
		{"device_add", map[string]any{"driver": "usb-storage", "bus": "usb.0", "removable": true, "id": diskDevice(i), "drive": slow}},
	} {
		if err := m.qmp.Execute(ctx, c.command, c.args, nil); err != nil {
			return 0, err
		}
	}
	m.config.Disks = append(m.config.Disks, d)
	return i, nil
}

// Slow bounds how fast a CD is read, in bytes a second. disk is its place among the machine's disks.
func (m *Machine) Slow(ctx context.Context, disk int, rate int64) error {
	return m.qmp.Execute(ctx, "block_set_io_throttle", map[string]any{"id": diskDevice(disk),
		"bps": rate, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}, nil)
}
