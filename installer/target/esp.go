package target

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// espDir is where packages put the EFI system partition's files.
const espDir = "boot/efi"

// CopyESP copies the tree below /boot/efi onto the mounted EFI system partition, with time stamps, and returns the
// number of files. vfat knows neither owners nor links, and takes names that differ only in case for the same: a tree
// that cannot be on it is an error.
func CopyESP(root, esp *os.Root) (int, error) {
	if _, err := root.Stat(espDir); err != nil {
		return 0, nil
	}
	seen := map[string]string{}
	n := 0
	err := fs.WalkDir(root.FS(), espDir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p, espDir), "/")
		if name == "" {
			return nil
		}
		if strings.ContainsAny(path.Base(name), `"*:<>?\|`) {
			return fmt.Errorf("/%s: vfat cannot hold this name", p)
		}
		if old, ok := seen[strings.ToLower(name)]; ok {
			return fmt.Errorf("/%s and %s are the same name on vfat", p, old)
		}
		seen[strings.ToLower(name)] = "/" + p
		switch {
		case e.IsDir():
			return esp.MkdirAll(name, 0o700)
		case e.Type().IsRegular():
			n++
			return copyESPFile(root, p, esp, name)
		}
		return fmt.Errorf("/%s is neither a file nor a directory, and vfat holds nothing else", p)
	})
	if err != nil {
		return n, fmt.Errorf("copy /%s to the EFI system partition: %w", espDir, err)
	}
	return n, nil
}

func copyESPFile(root *os.Root, from string, esp *os.Root, to string) error {
	in, err := root.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := esp.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return esp.Chtimes(to, st.ModTime(), st.ModTime())
}

// ClearESP removes what CopyESP copied; /boot/efi stays as an empty mount point.
func ClearESP(root *os.Root) error {
	list, err := fs.ReadDir(root.FS(), espDir)
	if err != nil {
		w, err := newWriter(root)
		if err != nil {
			return fmt.Errorf("make mount point /%s: %w", espDir, err)
		}
		return w.mkdir(espDir, meta{mode: 0o700})
	}
	for _, e := range list {
		if err := root.RemoveAll(path.Join(espDir, e.Name())); err != nil {
			return fmt.Errorf("empty /%s: %w", espDir, err)
		}
	}
	return nil
}
