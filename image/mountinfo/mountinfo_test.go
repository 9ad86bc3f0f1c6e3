package mountinfo

import (
	"slices"
	"testing"
)

func TestMountsAreReadAsTheKernelWritesThem(t *testing.T) {
	got := Parse("24 1 8:3 / / rw,relatime shared:1 - xfs /dev/sda3 rw\n" +
		"no mount\n" +
		"31 24 0:40 / /mnt/a\\040b rw - btrfs /dev/mapper/x\\134y rw\n" +
		"32 24 0:41 / /short rw - tmpfs\n")
	want := []Mount{{"8:3", "/", "xfs", "/dev/sda3"}, {"0:40", "/mnt/a b", "btrfs", `/dev/mapper/x\y`}}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for in, out := range map[string]string{"": "", `\04`: `\04`, `\999`: `\999`, `a\011b\`: "a\tb\\"} {
		if got := Unescape(in); got != out {
			t.Errorf("%q became %q and not %q", in, got, out)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("24 1 8:3 / / rw - xfs /dev/sda3 rw\n")
	f.Add("27 1 254:0 / /a\\040b rw,relatime shared:1 - ext4 /dev/vda rw\n")
	f.Add("\\04 - \\")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range Parse(text) {
			if m.Dev == "" || m.Target == "" || m.FS == "" || m.Source == "" {
				t.Errorf("%+v", m)
			}
		}
	})
}
