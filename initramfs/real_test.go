//go:build integration || e2e

package initramfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testCache is where packages for tests are kept between runs.
const testCache = "/var/cache/imgbuild/test"

// run runs a program and returns its output; the test ends if it fails.
func run(t testing.TB, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// requireProgram skips the test when the host lacks a program.
func requireProgram(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("this test needs %s on the host: %v", name, err)
		}
	}
}

// kernelPackage is a distribution's real kernel package, fetched once.
func kernelPackage(t testing.TB) string {
	t.Helper()
	requireProgram(t, "apt-get", "apt-cache", "dpkg-deb", "depmod")
	if err := os.MkdirAll(testCache, 0o755); err != nil {
		t.Skipf("no place to keep the kernel package: %v", err)
	}
	depends, err := exec.CommandContext(t.Context(), "apt-cache", "depends", "linux-image-amd64").Output()
	name := regexp.MustCompile(`Depends: (linux-image-[0-9]\S+)`).FindStringSubmatch(string(depends))
	if err != nil || name == nil {
		t.Skipf("apt knows no linux-image-amd64: %v", err)
	}
	pattern := filepath.Join(testCache, name[1]+"_*.deb")
	if found, _ := filepath.Glob(pattern); len(found) > 0 {
		return found[len(found)-1]
	}
	fetch := exec.CommandContext(t.Context(), "apt-get", "download", "-qq", name[1])
	fetch.Dir = testCache
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Skipf("cannot download %s: %v\n%s", name[1], err, out)
	}
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		t.Fatalf("apt-get downloaded no %s", pattern)
	}
	return found[len(found)-1]
}

// realRoot makes an image root of a real kernel package and the host's tools with their libraries, and returns it with
// the kernel release. ldd, not the code under test, says which libraries those are.
func realRoot(t testing.TB) (root, release string) {
	t.Helper()
	requireProgram(t, "mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "mkswap", "ldd")
	root = t.TempDir()
	run(t, "", "dpkg-deb", "-x", kernelPackage(t), root)
	if err := os.Rename(filepath.Join(root, "lib"), filepath.Join(root, "usr", "lib")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"lib", "lib64", "bin", "sbin"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	libraries := regexp.MustCompile(`(/\S+) \(0x`)
	for _, tool := range testTools() {
		path := tool.Candidates[0]
		copyPath(t, path, root)
		for _, match := range libraries.FindAllStringSubmatch(run(t, "", "ldd", path), -1) {
			copyPath(t, match[1], root)
		}
	}
	for _, path := range []string{"/etc/mke2fs.conf", "/etc/ssl/certs/ca-certificates.crt"} {
		if _, err := os.Stat(path); err == nil {
			copyPath(t, path, root)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, "lib", "modules"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("one kernel release expected: %v %v", entries, err)
	}
	release = entries[0].Name()
	run(t, "", "depmod", "-b", root, release)
	return root, release
}

// copyPath copies a host file, links followed, to the same path below root.
func copyPath(t testing.TB, path, root string) {
	t.Helper()
	to := filepath.Join(root, path)
	if _, err := os.Stat(to); err == nil {
		return
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func testTools() []Tool {
	var tools []Tool
	for _, name := range []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "mkswap", "extlinux"} {
		path, err := exec.LookPath(name)
		if err == nil {
			tools = append(tools, Tool{Name: name, Candidates: []string{path}})
		}
	}
	return tools
}

// testInit builds a static /init of about the real installer's size.
func testInit(t testing.TB) []byte {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test's /init: %v\n%s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// realOptions are options for a real root; class is both a network and a storage class.
func realOptions(t testing.TB, class string) Options {
	root, release := realRoot(t)
	return Options{
		Root: root, KernelRelease: release, Installer: testInit(t), PublicKey: []byte("test key\n"),
		Network: []string{class}, Storage: []string{class}, Tools: testTools(),
	}
}

// buildTo builds into a file and returns its path.
func buildTo(t testing.TB, o Options) (string, Report) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "initramfs.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Build(t.Context(), o, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path, report
}
