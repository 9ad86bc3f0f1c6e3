package storage

import (
	"errors"
	"fmt"

	"imgbuild/image/layout"
	"imgbuild/image/seal"
	"imgbuild/installer/disk/gpt"
)

// BootCode is what Commit puts on one disk besides its table.
type BootCode struct {
	// MBR is boot code for sector 0, at most 440 bytes. Without it the BIOS is told to try the next disk.
	MBR []byte
	// Gap is what lies behind sector 0 on disks with an MBR: GRUB's core. It ends before the seal, and before the first partition.
	Gap []byte
	// Seal is the record of whose disk this is, at most 8 KiB: for the seal's partition, or on an MBR disk the end of the first MiB.
	Seal []byte
}

// sealAtMBR is where a disk with an MBR has its seal: at the end of the first MiB.
const sealAtMBR = mib - seal.Size

// ErrNotUndone is wrapped when Commit failed and what it had written could not be taken back.
var ErrNotUndone = errors.New("and what was written could not be undone")

// commit makes disks bootable: seals, code behind sector 0 and tables, each read back. Disks from which nothing boots are done
// first, sector 0 included, so that whatever boots finds them. Of boot disks everything but what makes them bootable comes
// before that of any, and that of the one which the firmware starts first at the very end. When anything fails, all of it is
// taken back, sectors 0 first.
func commit(disks []*work, code map[string]BootCode) error {
	data, boot := commitOrder(disks)
	order := append(data[:len(data):len(data)], boot...)
	groups := map[*work][][]gpt.Write{}
	for _, w := range order {
		g, err := w.encode(code[w.Name])
		if err != nil {
			return fmt.Errorf("write partition table of %s: %w", w.Path, err)
		}
		groups[w] = g
	}
	err := func() error {
		for _, list := range [][]*work{data, boot} {
			for _, w := range list {
				w.committed = true
				g := groups[w]
				if err := w.put(g[:len(g)-w.last()], false); err != nil {
					return err
				}
			}
			for _, w := range list {
				g := groups[w]
				if err := w.put(g[len(g)-w.last():], true); err != nil {
					return err
				}
			}
		}
		return nil
	}()
	if err == nil {
		return nil
	}
	if undo := revert(order); undo != nil {
		return fmt.Errorf("%w; %w: %w", err, ErrNotUndone, undo)
	}
	return err
}

// last is how many groups of writes make the disk bootable: sector 0; but where a GPT holds what is kept, sector 0 says already
// that there is one, and firmware believes the first copy as soon as it is there.
func (w *work) last() int {
	if w.Table == layout.GPT && w.interim != nil {
		return 2
	}
	return 1
}

// put writes groups, the last ones of the disk where whole is true, and reads back what is a table by then.
func (w *work) put(groups [][]gpt.Write, whole bool) error {
	return w.do("write partition table of", func(d device) error {
		if err := write(d, groups); err != nil {
			return err
		}
		if !whole && w.last() > 1 {
			return nil
		}
		dropCache(d)
		return w.table.readBack(d, whole)
	})
}

// commitOrder is disks from which nothing boots, and boot disks with the firmware's first one last.
func commitOrder(disks []*work) (data, boot []*work) {
	for _, w := range disks {
		switch {
		case w.table == nil:
		case w.Boot:
			boot = append([]*work{w}, boot...)
		default:
			data = append(data, w)
		}
	}
	return data, boot
}

// encode returns the writes to a disk; the last group is sector 0.
func (w *work) encode(c BootCode) ([][]gpt.Write, error) {
	boot := c.MBR
	if len(boot) == 0 {
		boot = stub()
	}
	groups, err := w.table.groups(boot)
	if err != nil {
		return nil, err
	}
	var first []gpt.Write
	if len(c.Gap) > 0 {
		if err := w.gap(c); err != nil {
			return nil, err
		}
		first = append(first, gpt.Write{What: "boot loader", Offset: int64(w.Sector), Data: padded(c.Gap, w.Sector)})
	}
	if len(c.Seal) > 0 {
		at, err := w.sealAt(len(c.Seal))
		if err != nil {
			return nil, err
		}
		first = append(first, gpt.Write{What: "seal", Offset: at, Data: padded(c.Seal, w.Sector)})
	}
	if first != nil {
		groups = append([][]gpt.Write{first}, groups...)
	}
	return groups, nil
}

// gap checks that what is to lie behind sector 0 has room there.
func (w *work) gap(c BootCode) error {
	if w.Table != layout.MBR {
		return fmt.Errorf("the boot loader is to lie behind sector 0, where a disk with a %s table has no room", w.Table)
	}
	end := int64(sealAtMBR)
	for _, p := range w.Parts {
		end = min(end, p.Start)
	}
	if room := end - int64(w.Sector); int64(len(c.Gap)) > room {
		return fmt.Errorf("the boot loader has %d bytes and between sector 0 and the first partition there is room for %d", len(c.Gap), max(0, room))
	}
	return nil
}

// sealAt is where a seal of n bytes lies.
func (w *work) sealAt(n int) (int64, error) {
	if w.Table == layout.MBR {
		for _, p := range w.Parts {
			if p.Start < mib {
				return 0, fmt.Errorf("partition %d begins before 1 MiB, where the seal has its place", p.Number)
			}
		}
		if n > seal.Size {
			return 0, fmt.Errorf("the seal has %d bytes and there is room for %d", n, seal.Size)
		}
		return sealAtMBR, nil
	}
	for _, p := range w.Parts {
		if p.Role == layout.RoleSeal {
			if int64(n) > p.Size {
				return 0, fmt.Errorf("the seal has %d bytes and its partition %d", n, p.Size)
			}
			return p.Start, nil
		}
	}
	return 0, errors.New("there is no partition for the seal")
}

// padded is whole sectors, as block devices are written.
func padded(b []byte, sector int) []byte {
	n := (len(b) + sector - 1) / sector * sector
	return append(b[:len(b):len(b)], make([]byte, n-len(b))...)
}

// revert takes back what commit wrote: sector 0 of all disks, and then the rest of their tables. What is kept keeps its table.
func revert(disks []*work) error {
	var errs []error
	for _, step := range []func(*work, device) error{(*work).killSector0, (*work).killTable} {
		for _, w := range disks {
			if !w.committed {
				continue
			}
			// Both copies may be damaged by now; killTable mends the first one last unless it is told otherwise.
			if t, err := w.present(); err == nil {
				w.primary = t.Primary
			}
			if err := w.do("take back the partition table of", func(d device) error { return step(w, d) }); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// present reads the GPT that is on the disk now.
func (w *work) present() (gpt.Found, error) {
	d, err := w.open()
	if err != nil {
		return gpt.Found{}, err
	}
	defer d.Close()
	return gpt.Read(d, w.Size)
}
