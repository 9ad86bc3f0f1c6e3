package discard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

// errFormat is wrapped by the reasons for which a namespace cannot be formatted.
var errFormat = errors.New("NVMe Format is not possible")

// adminCommand is what the kernel passes on to an NVMe controller (linux/nvme_ioctl.h, struct nvme_passthru_cmd).
type adminCommand struct {
	Opcode      uint8
	Flags       uint8
	_           uint16
	NSID        uint32
	CDW2, CDW3  uint32
	Metadata    uint64
	Addr        uint64
	MetadataLen uint32
	DataLen     uint32
	CDW10       uint32
	CDW11       uint32
	CDW12       uint32
	CDW13       uint32
	CDW14       uint32
	CDW15       uint32
	TimeoutMS   uint32
	Result      uint32
}

const (
	nvmeIoctlID    = 0x4e40     // _IO('N', 0x40): returns the namespace's number
	nvmeIoctlAdmin = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_passthru_cmd)

	// Admin commands (NVM Express base specification 1.4, figure 139).
	opIdentify = 0x06
	opFormat   = 0x80

	// What Identify is asked for (CNS, figure 244).
	cnsNamespace = 0x00
	cnsControl   = 0x01
	cnsActive    = 0x02

	identifySize = 4096
	// eraseUserData is Format's secure erase setting 1.
	eraseUserData = 1
	// identifyTimeout and formatTimeout are in milliseconds. Large drives overwrite for hours where they do not only throw a key away.
	identifyTimeout = 30_000
	formatTimeout   = 6 * 3600 * 1000
)

func identify(f *os.File, cns, nsid uint32) ([]byte, error) {
	b := make([]byte, identifySize)
	cmd := adminCommand{Opcode: opIdentify, NSID: nsid, Addr: uint64(uintptr(unsafe.Pointer(&b[0]))), DataLen: identifySize, CDW10: cns, TimeoutMS: identifyTimeout}
	err := admin(f, &cmd)
	runtime.KeepAlive(b)
	if err != nil {
		return nil, fmt.Errorf("ask the controller what it is (Identify %d): %w", cns, err)
	}
	return b, nil
}

// admin sends a command. The kernel answers with an error of its own, or with the controller's status.
func admin(f *os.File, cmd *adminCommand) error {
	status, err := ioctlValue(f, nvmeIoctlAdmin, unsafe.Pointer(cmd))
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("the controller refuses with status %#x", status)
	}
	return nil
}

// prepareFormat says what Format has to be told to erase the namespace that f is, or why that cannot be.
func prepareFormat(f *os.File) (nsid, cdw10 uint32, err error) {
	id, err := ioctlValue(f, nvmeIoctlID, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the number of the namespace: %w", err)
	}
	nsid = uint32(id)
	control, err := identify(f, cnsControl, 0)
	if err != nil {
		return 0, 0, err
	}
	namespace, err := identify(f, cnsNamespace, nsid)
	if err != nil {
		return 0, 0, err
	}
	active, err := identify(f, cnsActive, 0)
	if err != nil {
		// Version 1.0 controllers have one list for all, whose length they tell.
		active = nil
	}
	cdw10, err = formatCommand(control, namespace, active, nsid)
	return nsid, cdw10, err
}

// formatCommand decides from what the controller says of itself (figure 247), of the namespace (NVM command set, figure 245) and
// of which namespaces are active. The namespace keeps its block size, metadata and protection.
func formatCommand(control, namespace, active []byte, nsid uint32) (cdw10 uint32, err error) {
	le := binary.LittleEndian
	if oacs := le.Uint16(control[256:]); oacs&(1<<1) == 0 {
		return 0, fmt.Errorf("%w: the controller does not know the command", errFormat)
	}
	count := int(le.Uint32(control[516:])) // NN, the most that there can be
	if active != nil {
		count = 0
		for b := active; len(b) >= 4 && le.Uint32(b) != 0; b = b[4:] {
			count++
		}
	}
	if count != 1 {
		return 0, fmt.Errorf("%w: the controller has %d namespaces, and formatting one may erase the others; erase it with its maker's tool", errFormat, count)
	}
	if active != nil && le.Uint32(active) != nsid {
		return 0, fmt.Errorf("%w: the controller's namespace is number %d and the kernel's number %d", errFormat, le.Uint32(active), nsid)
	}
	flbas, dps := uint32(namespace[26]), uint32(namespace[29])
	cdw10 = flbas & 0xf             // LBA format
	cdw10 |= (flbas >> 4 & 1) << 4  // metadata with the data
	cdw10 |= (dps & 7) << 5         // protection
	cdw10 |= (dps >> 3 & 1) << 8    // and where it is
	cdw10 |= eraseUserData << 9     // secure erase setting
	cdw10 |= (flbas >> 5 & 3) << 12 // LBA format, upper bits
	return cdw10, nil
}

func runFormat(f *os.File, nsid, cdw10 uint32) error {
	cmd := adminCommand{Opcode: opFormat, NSID: nsid, CDW10: cdw10, TimeoutMS: formatTimeout}
	return admin(f, &cmd)
}
