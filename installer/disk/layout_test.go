package disk

import (
	"errors"
	"strings"
	"testing"

	"imgbuild/image"
)

func standard() image.Layout {
	return image.Layout{Partitions: []image.Partition{
		{Name: "biosboot", Role: image.RoleBIOSBoot, SizeMiB: 1},
		{Name: "esp", Role: image.RoleESP, SizeMiB: 512, FS: "vfat", Mount: "/boot/efi"},
		{Name: "boot", Role: image.RoleBoot, SizeMiB: 1024, FS: "ext4", Mount: "/boot"},
		{Name: "root", Role: image.RoleRoot, MinMiB: 2048, FS: "xfs", Mount: "/"},
	}}
}

func TestPartitionsLieOneAfterTheOtherOnWholeMiB(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, size := range []int64{3587 * mib, 3588 * mib, 3588*mib + 512*7, 20 << 30, 480103981056, 2 << 40, 2<<40 + 4096, 22 << 40} {
			parts, err := Place(standard(), size, sector, 0)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			at := int64(mib)
			for i, p := range parts {
				if p.Start != at || p.Size <= 0 || p.Start%mib != 0 || p.Size%mib != 0 || p.Number != i+1 {
					t.Errorf("%d bytes: partition %d is at %d with %d bytes", size, i+1, p.Start, p.Size)
				}
				at += p.Size
			}
			if rest := size - at; rest < mib || rest >= 2*mib {
				t.Errorf("%d bytes: %d bytes are left at the end", size, rest)
			}
			d := Disk{Size: size &^ int64(sector-1), Sector: sector}
			if _, err := Table(d, parts, "x86_64"); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

func TestLayoutsThatDoNotFitAreRefusedWithBothSizes(t *testing.T) {
	for name, c := range map[string]struct {
		size, rootMin int64
		sector        int
		change        func(*image.Layout)
		says          string
	}{
		"a disk that is one MiB too small": {3586 * mib, 0, 512, nil, "the disk is too small: the image needs 3.5 GiB and the disk has 3.5 GiB"},
		"a tiny disk":                      {64 * mib, 0, 512, nil, "the image needs 3.5 GiB and the disk has 64 MiB"},
		"a disk of no size":                {0, 0, 512, nil, "the disk has 0 bytes"},
		"an image with much in it":         {4 << 30, 8 << 30, 512, nil, "the image needs 9.5 GiB and the disk has 4 GiB"},
		"sectors of 520 bytes":             {20 << 30, 0, 520, nil, "sectors of 520 bytes"},
		"an ESP too small for FAT32 on 4Kn": {20 << 30, 0, 4096, func(l *image.Layout) { l.Partitions[1].SizeMiB = 128 },
			`partition "esp" has 128 MiB and needs 264 MiB`},
		"an XFS that mkfs.xfs refuses": {20 << 30, 0, 512, func(l *image.Layout) { l.Partitions[3].SizeMiB, l.Partitions[3].MinMiB = 200, 0 },
			`partition "root" has 200 MiB and needs 300 MiB`},
		"a layout without a root": {20 << 30, 0, 512, func(l *image.Layout) { l.Partitions = l.Partitions[:2] }, "no root"},
	} {
		t.Run(name, func(t *testing.T) {
			l := standard()
			if c.change != nil {
				c.change(&l)
			}
			_, err := Place(l, c.size, c.sector, c.rootMin)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something that says %q", err, c.says)
			}
			if strings.Contains(c.says, "the disk has") != errors.Is(err, ErrTooSmall) {
				t.Errorf("is it ErrTooSmall? %v", err)
			}
		})
	}
}
