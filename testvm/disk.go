package testvm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// CreateDisk makes an empty raw disk of size bytes that takes no space yet. What is at path already is an error.
func CreateDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("make disk %s of %d bytes: %w", path, size, err)
	}
	return nil
}

// CreateQcow2 makes an empty qcow2 disk of size bytes with qemu-img.
func (h *Host) CreateQcow2(ctx context.Context, path string, size int64) error {
	if h.Tools.QEMUImg == "" {
		_, err := FindTools(HostFinder(), NeedQEMUImg)
		return err
	}
	out, err := exec.CommandContext(ctx, h.Tools.QEMUImg, "create", "-q", "-f", "qcow2", path, strconv.FormatInt(size, 10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make disk %s: %w: %s", path, err, lastLine(string(out)))
	}
	return nil
}

// HashDisk returns the SHA-256, in hex, of a disk's file: equal before and after means that no byte was written.
func HashDisk(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("hash disk: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash disk %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Bootable says what a firmware would find on a raw disk of 512-byte sectors, or nothing if the disk is safely
// unbootable: BIOS wants 55 AA at the end of the first sector and runs what is before; UEFI wants a GPT header, the
// first or, where that is broken, the one in the last sector, or a partition in an MBR.
func Bootable(path string) (found []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at disk: %w", err)
	}
	const sector = 512
	if fi.Size() < 2*sector {
		return nil, nil
	}
	read := func(off int64) []byte {
		b := make([]byte, sector)
		if _, e := f.ReadAt(b, off); e != nil && err == nil {
			err = fmt.Errorf("look at disk %s: %w", path, e)
		}
		return b
	}
	mbr := read(0)
	if mbr[510] == 0x55 && mbr[511] == 0xaa {
		found = append(found, "boot signature 55 AA in sector 0")
	}
	if strings.Trim(string(mbr[:440]), "\x00") != "" {
		found = append(found, "boot code in sector 0")
	}
	if string(read(sector)[:8]) == "EFI PART" {
		found = append(found, "GPT header in sector 1")
	}
	if string(read(fi.Size() - sector)[:8]) == "EFI PART" {
		found = append(found, "backup GPT header in the last sector")
	}
	return found, err
}
