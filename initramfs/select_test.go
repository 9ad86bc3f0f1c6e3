package initramfs

import (
	"slices"
	"strings"
	"testing"
)

// selected runs the choice of modules alone.
func selected(t *testing.T, files map[string][]byte, o Options) (*selection, error) {
	t.Helper()
	root, err := openTree(rootWith(t, files))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.close() })
	kernel, err := openModules(root, testRelease)
	if err != nil {
		return nil, err
	}
	return selectModules(t.Context(), kernel, o)
}

func TestSelection(t *testing.T) {
	for _, test := range []struct {
		name    string
		files   map[string]string // more files of the release's directory
		options Options
		with    []string
		without []string
		wantErr string
	}{
		{
			name: "a file system brings what it needs and what it wishes for by alias",
			with: []string{"ext4", "jbd2", "mbcache", "sums"}, without: []string{"virtio_net", "bnx2"},
		},
		{
			name: "the virtual class takes what hypervisors have", options: Options{Network: []string{"virtual"}, Storage: []string{"virtual"}},
			with: []string{"virtio_net", "net_failover", "failover", "virtio_blk"}, without: []string{"bnx2", "megaraid_sas", "iwlwifi"},
		},
		{
			name: "the server class takes every card but switches, old ones and wireless ones", options: Options{Network: []string{"server"}},
			with: []string{"bnx2", "mlx4_core", "mlx4_en", "virtio_net"}, without: []string{"mlxsw_core", "ne2k_pci", "iwlwifi", "megaraid_sas"},
		},
		{
			name: "the server class takes every controller but the tests' ones", options: Options{Storage: []string{"server"}},
			with: []string{"megaraid_sas", "scsi_mod", "virtio_blk"}, without: []string{"scsi_debug", "bnx2"},
		},
		{
			name: "a driver that only asks for its companion at run time gets it", options: Options{ExtraModules: []string{"mlx4-core"}},
			with: []string{"mlx4_core", "mlx4_en"},
		},
		{
			name:    "extra modules may be patterns of names, patterns of paths, or built in",
			options: Options{ExtraModules: []string{"iwl*", "kernel/drivers/scsi/scsi_*.ko", "squashfs"}},
			with:    []string{"iwlwifi", "scsi_mod", "scsi_debug"}, without: []string{"squashfs"},
		},
		{
			name:  "depmod's index adds to what modules say of themselves",
			files: map[string]string{"modules.dep": "kernel/fs/ext4/ext4.ko.xz: kernel/drivers/net/wireless/iwlwifi.ko\n"},
			with:  []string{"ext4", "jbd2", "iwlwifi"},
		},
		{
			name:  "depmod's aliases serve wishes",
			files: map[string]string{"modules.alias": "# comment\nalias special_sums iwlwifi\n"},
			with:  []string{"iwlwifi"}, without: []string{"sums"},
		},
		{
			name:    "a module whose need is nowhere is an error that names both",
			files:   map[string]string{"kernel/fs/xfs/xfs.ko": string(module("depends=libcrc32c"))},
			wantErr: "module xfs needs libcrc32c, which is neither",
		},
		{
			name:  "a need that is built in is none",
			files: map[string]string{"kernel/fs/xfs/xfs.ko": string(module("depends=regmap-core"))},
			with:  []string{"xfs"},
		},
		{
			name:  "modules that need each other do not go round for ever",
			files: map[string]string{"kernel/fs/xfs/xfs.ko": string(module("depends=isofs")), "kernel/fs/isofs.ko": string(module("depends=xfs"))},
			with:  []string{"xfs", "isofs"},
		},
		{
			name:    "a module that is no ELF file is an error that names it",
			files:   map[string]string{"kernel/fs/xfs/xfs.ko": "<html>"},
			wantErr: "read module xfs (kernel/fs/xfs/xfs.ko)",
		},
		{
			name:    "a damaged index is an error that quotes it",
			files:   map[string]string{"modules.dep": "kernel/fs/ext4/ext4.ko.xz kernel/x.ko\n"},
			wantErr: "run depmod in the image",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := kernelFiles()
			for name, content := range test.files {
				files[modulesDir+name] = []byte(content)
			}
			s, err := selected(t, files, test.options)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got %v, want an error with %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range test.with {
				if s.modules[name] == nil {
					t.Errorf("%s is missing: %v", name, s.names())
				}
			}
			for _, name := range test.without {
				if s.modules[name] != nil {
					t.Errorf("%s should not be there", name)
				}
			}
		})
	}
}

func TestClassThatFindsNothingIsAnError(t *testing.T) {
	files := map[string][]byte{modulesDir + "kernel/fs/ext4/ext4.ko": module()}
	_, err := selected(t, files, Options{Storage: []string{"virtual"}})
	if err == nil || !strings.Contains(err.Error(), "storage class virtual finds none of its modules") {
		t.Fatalf("got %v", err)
	}
	files = map[string][]byte{modulesDir + "modules.dep": nil}
	if _, err := selected(t, files, Options{}); err == nil || !strings.Contains(err.Error(), "no module below") {
		t.Fatalf("got %v", err)
	}
}

func TestUpdatesOverrideTheKernelsOwnModules(t *testing.T) {
	s, err := selected(t, kernelFiles(), Options{ExtraModules: []string{"megaraid_sas"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.modules["megaraid_sas"].rel; got != "updates/megaraid_sas.ko" {
		t.Errorf("took %s", got)
	}
}

func TestIndexesOfTheChosenModules(t *testing.T) {
	files := map[string][]byte{
		modulesDir + "kernel/a.ko.xz":     module("depends=b,c", "alias=pci:v1 d*", "softdep=pre: d post: nobody"),
		modulesDir + "kernel/b.ko":        module("depends=c"),
		modulesDir + "kernel/c.ko":        module("alias=char-major-1-2\nalias fs-evil a"),
		modulesDir + "kernel/d.ko":        module(),
		modulesDir + "kernel/unwanted.ko": module("alias=pci:*"),
		modulesDir + "modules.order":      []byte("kernel/unwanted.ko\nkernel/c.ko\nkernel/b.ko\n"),
		modulesDir + "modules.builtin":    []byte("kernel/z.ko\nkernel/y.ko\n"),
	}
	s, err := selected(t, files, Options{ExtraModules: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.names(), []string{"a", "b", "c", "d"}) {
		t.Fatalf("chose %v", s.names())
	}
	for _, test := range []struct{ name, got, want string }{
		{"modules.dep lists needs so that loading from the right works", s.depText(),
			"kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/d.ko:\n"},
		{"modules.alias has no line that a module forged", s.aliasText(), "# Aliases extracted from modules themselves.\nalias pci:v1 d* a\n"},
		{"modules.softdep keeps both directions", s.softdepText(), "# Soft dependencies extracted from modules themselves.\nsoftdep a pre: d post: nobody\n"},
		{"modules.order begins with the kernel's order", s.orderText(), "kernel/c.ko\nkernel/b.ko\nkernel/a.ko\nkernel/d.ko\n"},
		{"modules.builtin is whole", s.builtinText(), "kernel/y.ko\nkernel/z.ko\n"},
	} {
		if test.got != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q", test.name, test.got, test.want)
		}
	}
}
