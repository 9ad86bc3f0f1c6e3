package standin

import (
	"archive/tar"
	"bytes"
	"testing"
)

func TestRemap(t *testing.T) {
	for in, want := range map[string]string{
		"./bin/ls":                      "/usr/bin/ls",
		"./bin/":                        "/usr/bin",
		"./lib64/ld-linux-x86-64.so.2":  "/usr/lib64/ld-linux-x86-64.so.2",
		"./usr/lib/x":                   "/usr/lib/x",
		"./library/x":                   "/library/x",
		"./sbin/../bin/x":               "/usr/bin/x",
		"../../etc/passwd":              "/etc/passwd",
		"./var/run/sshd":                "/run/sshd",
		"./":                            "/",
		"./lib/systemd/system/x.socket": "/usr/lib/systemd/system/x.socket",
	} {
		if got := remap(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestRemapLink(t *testing.T) {
	for name, c := range map[string]struct{ from, target, want string }{
		"a neighbour stays":                        {"/usr/lib/a.so", "a.so.1", "a.so.1"},
		"a neighbour in a merged directory stays":  {"/bin/sh", "dash", "dash"},
		"an absolute target is merged":             {"/usr/lib/a.so", "/lib/a.so.1", "/usr/lib/a.so.1"},
		"a target that climbs from /bin to /usr":   {"/bin/x", "../usr/bin/y", "y"},
		"a target that climbs from /usr to /lib":   {"/usr/lib/a/b.so", "../../../lib/c/d.so", "../c/d.so"},
		"a target in /etc from a merged directory": {"/lib/x", "../etc/x", "../../etc/x"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := remapLink(c.from, remap(c.from), c.target); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestDataTar(t *testing.T) {
	in := tarOf(t,
		tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./bin/gunzip", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: body("x")},
		tar.Header{Name: "./bin/uncompress", Typeflag: tar.TypeLink, Linkname: "./bin/gunzip"},
		tar.Header{Name: "./usr/bin/gunzip", Typeflag: tar.TypeSymlink, Linkname: "../../bin/gunzip"},
		tar.Header{Name: "./usr/bin/wall", Typeflag: tar.TypeReg, Mode: 0o2755, Uname: "root", Gname: "tty", PAXRecords: body("w")},
		tar.Header{Name: "./etc/x.conf", Typeflag: tar.TypeReg, Mode: 0o640, PAXRecords: body("c")},
		tar.Header{Name: "./usr/share/doc/x/copyright", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: body("d")},
		tar.Header{Name: "./usr/share/locale/de/LC_MESSAGES/x.mo", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: body("m")},
	)
	tr, err := readTar(bytes.NewReader(in), []string{"/etc/x.conf"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.finish(false, map[string]bool{"/usr/bin": true}); err != nil {
		t.Fatal(err)
	}
	if f := tr["/usr/bin/gunzip"]; f == nil || f.kind() != modeRegular || string(f.Body) != "x" {
		t.Errorf("the file did not win over the link to itself: %+v", f)
	}
	if f := tr["/usr/bin/uncompress"]; f == nil || f.Link != "/usr/bin/gunzip" || f.kind() != modeRegular {
		t.Errorf("neighbours are no hard links any more: %+v", f)
	}
	if f := tr["/usr/bin/wall"]; f.Mode != modeRegular|0o2755 || f.Group != "tty" {
		t.Errorf("setgid or group lost: %+v", f)
	}
	if tr["/usr/bin"] != nil {
		t.Error("a directory of the filesystem package is still there")
	}
	if !tr["/etc/x.conf"].Config || tr["/usr/bin/wall"].Config {
		t.Error("configuration is marked wrongly")
	}
	if !tr["/usr/share/doc/x/copyright"].Doc || tr["/usr/share/locale/de/LC_MESSAGES/x.mo"].Lang != "de" {
		t.Error("documentation or language is not marked")
	}
}

func TestHardLinksThatAreNoNeighboursBecomeSymbolic(t *testing.T) {
	in := tarOf(t,
		tar.Header{Name: "./usr/bin/z", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: body("x")},
		tar.Header{Name: "./usr/sbin/a", Typeflag: tar.TypeLink, Linkname: "./usr/bin/z"},
		tar.Header{Name: "./usr/bin/zz", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: body("y")})
	tr, err := readTar(bytes.NewReader(in), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.finish(false, nil); err != nil {
		t.Fatal(err)
	}
	a, z := tr["/usr/sbin/a"], tr["/usr/bin/z"]
	if a.kind() != modeSymlink || string(a.Body) != "../bin/z" || a.Link != "" || z.Link != "" {
		t.Errorf("got %+v and %+v", a, z)
	}
}

func TestDataTarRefuses(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"a device":                   {Name: "./dev/x", Typeflag: tar.TypeChar},
		"a hard link to nothing":     {Name: "./a", Typeflag: tar.TypeLink, Linkname: "./b"},
		"a hard link out of the set": {Name: "./a", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readTar(bytes.NewReader(tarOf(t, h)), nil); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestRelative(t *testing.T) {
	for _, c := range [][3]string{
		{"/usr/bin", "/usr/bin/x", "x"}, {"/usr/bin", "/etc/x", "../../etc/x"}, {"/", "/usr", "usr"}, {"/a/b", "/a/b", "../b"},
	} {
		if got := relative(c[0], c[1]); got != c[2] {
			t.Errorf("%s from %s: got %s, want %s", c[1], c[0], got, c[2])
		}
	}
}
