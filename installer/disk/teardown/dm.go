package teardown

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// The device mapper's control interface (linux/dm-ioctl.h): every call takes one structure of 312 bytes.
const (
	dmStructSize = 312
	dmDevRemove  = 0xc138fd04 // _IOWR(0xfd, 4, struct dm_ioctl)
	dmAtDev      = 40
)

// dmRemove is the structure that removes the device dev, as major:minor. A device's number, unlike its name, means the one that
// was looked at.
func dmRemove(dev string) ([]byte, error) {
	major, minor, err := numbers(dev)
	if err != nil {
		return nil, err
	}
	b := make([]byte, dmStructSize)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], 4) // version 4.0.0: a kernel takes every minor version up to its own
	ne.PutUint32(b[12:], dmStructSize)
	ne.PutUint32(b[16:], dmStructSize) // where data would start
	ne.PutUint64(b[dmAtDev:], hugeDev(major, minor))
	return b, nil
}

// hugeDev is a device number as the kernel's huge_encode_dev writes it (linux/kdev_t.h).
func hugeDev(major, minor uint32) uint64 {
	return uint64(minor&0xff | major<<8 | minor&^uint32(0xff)<<12)
}

func numbers(dev string) (major, minor uint32, err error) {
	a, b, ok := strings.Cut(dev, ":")
	ma, err1 := strconv.ParseUint(a, 10, 12)
	mi, err2 := strconv.ParseUint(b, 10, 20)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("the kernel gives %q as a device number", dev)
	}
	return uint32(ma), uint32(mi), nil
}
