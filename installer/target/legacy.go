package target

import (
	"os"

	"imgbuild/image/layout"
)

// FileSystem is one line of fstab, for callers that have no scheme yet.
type FileSystem struct {
	UUID, Mount, FS, Options string
}

type fixedIDs map[layout.Device]string

func (f fixedIDs) FS(d layout.Device) string { return f[d] }
func (f fixedIDs) Array(string) string       { return "" }

func (c Config) filesystems() []layout.Filesystem {
	if c.FileSystems == nil {
		return any(c.Scheme).(interface{ Filesystems() []layout.Filesystem }).Filesystems()
	}
	var out []layout.Filesystem
	for _, f := range c.FileSystems {
		out = append(out, layout.Filesystem{Device: layout.Device(f.Mount), Content: layout.Content{FS: f.FS, Mount: f.Mount, Options: f.Options}})
	}
	return out
}

func (c Config) legacy() Config {
	if c.Scheme != nil {
		return c
	}
	c.Scheme = &layout.Scheme{Firmware: layout.Both}
	ids := fixedIDs{}
	for _, f := range c.FileSystems {
		ids[layout.Device(f.Mount)] = f.UUID
	}
	c.IDs, c.Args = ids, append([]string{"root=UUID=" + c.RootUUID, "ro"}, c.Manifest.KernelArgs...)
	return c
}

// Attributes are what a mount point shows before something is mounted on it.
type Attributes = MountPoint

// TakeAttributes is TakeMountPoint.
func TakeAttributes(root *os.Root, name string) (Attributes, error) {
	return TakeMountPoint(root, name)
}

// GiveAttributes is MountPoint.Give.
func GiveAttributes(root *os.Root, _ string, a Attributes) error { return a.Give(root) }
