package bootloader

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What follows does to GRUB's images what grub-bios-setup does to them, for a disk that need not exist yet. The numbers are
// those of GRUB's include/grub/i386/pc/boot.h and include/grub/offsets.h, the same from 1.99 to 2.12; the steps are those of
// util/setup.c with --no-rs-codes: Reed-Solomon codes repair what other software overwrites between the MBR and the first
// partition, and here both that gap and the BIOS boot partition are written once and belong to nobody else.
const (
	sector = 512 // what GRUB's first stages and BIOS count in

	bootKernelSector = 0x5c  // 8 bytes: where core.img begins
	bootDrive        = 0x64  // 1 byte: 0xff takes the drive that BIOS says
	bootDriveCheck   = 0x66  // 2 bytes: a jump over the code for BIOSes that pass no drive
	bootSignature    = 0x1fe // 0x55 0xaa

	// diskboot.img is the first sector of core.img. It ends with the list of where the others are, which grows down.
	blockListFirst = sector - 12
	kernelSegment  = 0x800 + sector>>4 // where the second sector is loaded, as a segment
	noRSLength     = sector + 0x14     // 2 bytes, 0xffff where core.img is of another kind

	// maxCore is what fits between where core.img is loaded and the end of usable low memory.
	maxCore = 0x78000 - 0x9000
)

// patchBoot makes sector 0's code of boot.img for a core.img that begins at sector first of the disk. The bytes where a DOS
// parameter block may be are zero, as those of a disk that is laid out anew are.
func patchBoot(img []byte, first uint64) ([]byte, error) {
	if len(img) != sector || img[bootSignature] != 0x55 || img[bootSignature+1] != 0xaa {
		return nil, fmt.Errorf("boot.img has %d bytes or no signature, and is not GRUB's for BIOS", len(img))
	}
	if img[bootDriveCheck] != 0xeb || img[bootDrive] != 0xff {
		return nil, errors.New("boot.img is of a GRUB that this program does not know")
	}
	out := append([]byte{}, img[:maxMBR]...)
	clear(out[3:0x5a])
	binary.LittleEndian.PutUint64(out[bootKernelSector:], first)
	out[bootDrive] = 0xff
	out[bootDriveCheck], out[bootDriveCheck+1] = 0x90, 0x90 // two nops, as for every hard disk
	return out, nil
}

// patchCore makes core.img, in whole sectors, for the place that begins at sector first of the disk.
func patchCore(img []byte, first uint64) ([]byte, error) {
	if len(img) < 2*sector {
		return nil, fmt.Errorf("core.img has %d bytes and is not GRUB's for BIOS", len(img))
	}
	if len(img) > maxCore {
		return nil, fmt.Errorf("core.img has %d bytes and BIOS can load %d", len(img), maxCore)
	}
	le := binary.LittleEndian
	if le.Uint16(img[blockListFirst+10:]) != kernelSegment || le.Uint16(img[noRSLength:]) == 0xffff {
		return nil, errors.New("core.img is of a GRUB that this program does not know")
	}
	out := append([]byte{}, img...)
	if n := len(out) % sector; n != 0 {
		out = append(out, make([]byte, sector-n)...)
	}
	// The rest of core.img lies right after its first sector: one entry, and the one below it ends the list.
	le.PutUint64(out[blockListFirst:], first+1)
	le.PutUint16(out[blockListFirst+8:], uint16(len(out)/sector-1))
	clear(out[blockListFirst-12 : blockListFirst])
	return out, nil
}
