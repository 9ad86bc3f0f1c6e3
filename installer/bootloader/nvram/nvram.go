package nvram

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// Dir is where the kernel shows the firmware's variables.
const Dir = "/sys/firmware/efi/efivars"

// globalGUID is EFI_GLOBAL_VARIABLE (UEFI specification, 3.3).
const globalGUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// attributes: non-volatile, for boot services and at run time.
const attributes = 7

var bootRE = regexp.MustCompile(`^Boot([0-9A-F]{4})-` + globalGUID + `$`)

// Result is what Install changed.
type Result struct {
	Numbers []int // of the new entries, as they were given, shown as Boot%04X
	Removed []int // stale entries of our own
}

// Install writes new entries into the variables below dir, puts them first in the boot order, as they are given, and
// removes entries of ours for the same file whose partition is one of theirs or, as present tells, on no disk of this
// machine any more. All other entries stay, and stay in order. Entries are written before the order names them, and
// stale ones go last, so that power may fail between any two steps.
func Install(dir string, list []Entry, present func(uuid.UUID) bool) (Result, error) {
	var data [][]byte
	for _, e := range list {
		b, err := e.Encode()
		if err != nil {
			return Result{}, err
		}
		data = append(data, b)
	}
	have, err := entries(dir)
	if err != nil {
		return Result{}, err
	}
	r := Result{Removed: stale(have, list, present)}
	for n := 0; len(r.Numbers) < len(list); n++ {
		if n > 0xffff {
			return Result{}, errors.New("write boot entry: all 65536 numbers are taken")
		}
		if have[n] == nil {
			r.Numbers = append(r.Numbers, n)
		}
	}
	if err := add(dir, r, data); err != nil {
		for _, n := range r.Numbers {
			err = errors.Join(err, remove(dir, bootName(n)))
		}
		return Result{}, err
	}
	for _, n := range r.Removed {
		if err := remove(dir, bootName(n)); err != nil {
			return r, fmt.Errorf("remove stale boot entry: %w", err)
		}
	}
	for i, n := range r.Numbers {
		back, err := read(dir, bootName(n))
		if err != nil {
			return r, fmt.Errorf("read boot entry back: %w", err)
		}
		if !bytes.Equal(back, data[i]) {
			return r, errors.New("read boot entry back: the firmware keeps something else than was written")
		}
	}
	return r, nil
}

// stale are the numbers of entries of ours that the new ones make useless.
func stale(have map[int][]byte, list []Entry, present func(uuid.UUID) bool) []int {
	var out []int
	for n, b := range have {
		old, err := decode(b)
		if err != nil || !slices.ContainsFunc(list, func(e Entry) bool { return e.ours(old) }) {
			continue
		}
		if slices.ContainsFunc(list, func(e Entry) bool { return e.GUID == old.GUID }) || !present(old.GUID) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// add writes the new entries and then the order without the stale ones.
func add(dir string, r Result, data [][]byte) error {
	for i, n := range r.Numbers {
		if err := write(dir, bootName(n), data[i]); err != nil {
			return fmt.Errorf("write boot entry: %w", err)
		}
	}
	order, err := readOrder(dir)
	if err != nil {
		return err
	}
	order = slices.DeleteFunc(order, func(n int) bool { return slices.Contains(r.Numbers, n) || slices.Contains(r.Removed, n) })
	return writeOrder(dir, append(slices.Clone(r.Numbers), order...))
}

// Mounted reports whether the kernel shows the firmware's variables in dir.
func Mounted(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("look for the firmware's variables in %s: %w", dir, err)
	}
	return int64(st.Type) == unix.EFIVARFS_MAGIC, nil
}

func bootName(n int) string { return fmt.Sprintf("Boot%04X", n) }

// entries are all boot entries by number.
func entries(dir string) (map[int][]byte, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read boot entries: %w", err)
	}
	out := map[int][]byte{}
	for _, f := range list {
		m := bootRE.FindStringSubmatch(f.Name())
		if m == nil {
			continue
		}
		n, err := strconv.ParseUint(m[1], 16, 16)
		if err != nil {
			continue
		}
		b, err := read(dir, bootName(int(n)))
		if err != nil {
			// Firmware shows variables that it cannot read. Its number is taken all the same.
			b = nil
		}
		out[int(n)] = append([]byte{}, b...)
	}
	return out, nil
}

func readOrder(dir string) ([]int, error) {
	b, err := read(dir, "BootOrder")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read boot order: %w", err)
	}
	var out []int
	for ; len(b) >= 2; b = b[2:] {
		out = append(out, int(binary.LittleEndian.Uint16(b)))
	}
	return out, nil
}

func writeOrder(dir string, order []int) error {
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	if err := write(dir, "BootOrder", b); err != nil {
		return fmt.Errorf("write boot order: %w", err)
	}
	return nil
}

func file(dir, name string) string { return filepath.Join(dir, name+"-"+globalGUID) }

// read returns a variable without its attributes.
func read(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(file(dir, name))
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("variable %s has no attributes", name)
	}
	return b[4:], nil
}

// write sets a variable with one write call, as efivarfs demands (kernel documentation, filesystems/efivarfs.rst).
func write(dir, name string, data []byte) error {
	p := file(dir, name)
	if err := mutable(p); err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), data...))
	return errors.Join(err, f.Close())
}

func remove(dir, name string) error {
	p := file(dir, name)
	if err := mutable(p); err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// immutableFlag is FS_IMMUTABLE_FL, which efivarfs sets on variables against a stray rm -r.
const immutableFlag = 0x10

// mutable takes the immutable flag off a variable that is there. The file is opened for reading only: an immutable one
// cannot be opened for writing.
func mutable(p string) error {
	f, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil // kernels before 4.5 have no such flag there
	}
	if err != nil {
		return fmt.Errorf("read flags of %s: %w", p, err)
	}
	if flags&immutableFlag == 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutableFlag); err != nil {
		return fmt.Errorf("make %s writable: %w", p, err)
	}
	return nil
}
