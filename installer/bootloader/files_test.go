package bootloader

import (
	"strings"
	"testing"
	"time"

	"imgbuild/image"
)

func TestAFileThatIsThereAlreadyKeepsItsTimeStamp(t *testing.T) {
	from, _ := tree(t, map[string]string{"a": "same", "b": "new"})
	to, _ := tree(t, map[string]string{"a": "same", "b": "old"})
	old, src := time.Unix(1_500_000_000, 0), time.Unix(1_600_000_000, 0)
	for _, name := range []string{"a", "b"} {
		if err := to.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
		if err := from.Chtimes(name, src, src); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(from, name, to, name); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := to.Stat("a"); err != nil || !st.ModTime().Equal(old) {
		t.Errorf("the same file is now of %v, %v", st.ModTime(), err)
	}
	if st, err := to.Stat("b"); err != nil || !st.ModTime().Equal(src) {
		t.Errorf("the new file is of %v, %v", st.ModTime(), err)
	}
}

func TestAnImageWithoutItsKernelIsIncomplete(t *testing.T) {
	m := &image.Manifest{KernelRelease: "6"}
	for says, files := range map[string]map[string]string{
		"no /boot/vmlinuz-6":                       {"boot/initramfs-6.img": "x"},
		"no /boot/initramfs-6.img":                 {"boot/vmlinuz-6": "x"},
		"/boot/vmlinuz-6 of the image is empty":    {"boot/vmlinuz-6": "", "boot/initramfs-6.img": "x"},
		"initramfs-6.img of the image is empty or": {"boot/vmlinuz-6": "x", "boot/initramfs-6.img/x": "a directory"},
	} {
		root, _ := tree(t, files)
		if err := CheckKernel(root, m); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want something that says %q", err, says)
		}
	}
	root, _ := tree(t, map[string]string{"boot/vmlinuz-6": "x", "boot/initramfs-6.img": "x"})
	if err := CheckKernel(root, m); err != nil {
		t.Error(err)
	}
}
