package testvm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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

// HashDisk returns a digest, in hex, of the contents of a disk's file: equal before and after means that no byte has another
// value. Holes and zeros are the same to it, and holes cost no time.
func HashDisk(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("hash disk: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if err := hashData(h, f); err != nil {
		return "", fmt.Errorf("hash disk %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashData hashes the file's size, and each block that is not all zeros with its offset.
func hashData(h hash.Hash, f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	const block = 64 << 10
	buf, zero := make([]byte, block), make([]byte, block)
	fmt.Fprintf(h, "%d\n", fi.Size()) // a hash's Write does not fail
	for off := int64(0); off < fi.Size(); {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		off = data / block * block
		n, err := f.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintf(h, "%d %d\n", off, n)
			h.Write(buf[:n])
		}
		off += block
	}
	return nil
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
