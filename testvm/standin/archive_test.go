package standin

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

// arOf makes an ar archive of members in order.
func arOf(members ...[2]string) []byte {
	var b bytes.Buffer
	b.WriteString(arMagic)
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", m[0], 1700000000, 0, 0, 0o100644, len(m[1]), m[1])
		if len(m[1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// tarOf makes a tar archive.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.PAXRecords["body"]
		h.PAXRecords = nil
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func body(s string) map[string]string { return map[string]string{"body": s} }

func TestControlArchive(t *testing.T) {
	ctl := tarOf(t,
		tar.Header{Name: "./control", Typeflag: tar.TypeReg, PAXRecords: body("Package: x\n")},
		tar.Header{Name: "./conffiles", Typeflag: tar.TypeReg, PAXRecords: body("/etc/a.conf\nremove-on-upgrade /etc/gone\n/etc/b\n")})
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)
	if _, err := gz.Write(ctl); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"plain": arOf([2]string{"debian-binary", "2.0\n"}, [2]string{"control.tar", string(ctl)}, [2]string{"data.tar.xz", "x"}),
		"gzip":  arOf([2]string{"odd", "123"}, [2]string{"control.tar.gz", z.String()}),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseControlArchive(bytes.NewReader(in))
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"/etc/a.conf", "/etc/b"}; !reflect.DeepEqual(c.Conffiles, want) || c.Built.Unix() != 1700000000 {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestControlArchiveThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"something else":          {[]byte("PK\x03\x04......"), "not an ar archive"},
		"nothing":                 {nil, "ar magic"},
		"no control member":       {arOf([2]string{"debian-binary", "2.0\n"}), "no control.tar"},
		"a truncated member":      {arOf([2]string{"debian-binary", "2.0\n"})[:70], "skip an ar member"},
		"an unknown compression":  {arOf([2]string{"control.tar.lz9", "x"}), `".lz9"`},
		"a broken header":         {append(arOf(), bytes.Repeat([]byte("x"), 60)...), "not in the magic"},
		"a size that is negative": {[]byte(strings.Replace(string(arOf([2]string{"a", "bb"})), "2         `", "-2        `", 1)), `size "-2"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseControlArchive(bytes.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

func FuzzControlArchive(f *testing.F) {
	f.Add(arOf([2]string{"debian-binary", "2.0\n"}, [2]string{"control.tar", string(tarOf(f,
		tar.Header{Name: "conffiles", Typeflag: tar.TypeReg, PAXRecords: body("/etc/x\n")}))}))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseControlArchive(bytes.NewReader(in))
		for _, p := range c.Conffiles {
			if err == nil && !strings.HasPrefix(p, "/") {
				t.Errorf("conffile %q", p)
			}
		}
	})
}

func FuzzDataTar(f *testing.F) {
	f.Add(tarOf(f,
		tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./bin/a", Typeflag: tar.TypeReg, Mode: 0o4755, PAXRecords: body("a")},
		tar.Header{Name: "./bin/b", Typeflag: tar.TypeLink, Linkname: "./bin/a"},
		tar.Header{Name: "./usr/bin/c", Typeflag: tar.TypeSymlink, Linkname: "../../bin/a"}))
	f.Fuzz(func(t *testing.T, in []byte) {
		tr, err := readTar(bytes.NewReader(in), []string{"/etc/x"})
		if err != nil {
			return
		}
		for name, file := range tr {
			if name != file.Path || !strings.HasPrefix(name, "/") || name == "/" || strings.Contains(name+"/", "/../") {
				t.Errorf("%q holds %q", name, file.Path)
			}
			for _, d := range mergedDirs() {
				if strings.HasPrefix(name, d+"/") {
					t.Errorf("%q is not merged into /usr", name)
				}
			}
		}
	})
}

func TestArReaderEndsWhereTheArchiveDoes(t *testing.T) {
	ar, err := newArReader(bytes.NewReader(arOf([2]string{"a/", "x"})))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ar.Next()
	if err != nil || m.Name != "a" || m.Size != 1 {
		t.Fatalf("got %+v, %v", m, err)
	}
	if _, err := ar.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last member: %v, want EOF", err)
	}
}
