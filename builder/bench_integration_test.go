//go:build integration

package builder

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgbuild/builder/progress"
	"imgbuild/initramfs/installerbin"
	"imgbuild/profiles"
	"imgbuild/testvm/standin"
)

// BenchmarkBuildAgainstDnfAndMksquashfs builds the profile demo with an empty cache, and then does by hand what its stages
// packages and squashfs do: dnf --installroot with the same packages, and mksquashfs with the same compressor, level and
// block size. Both read the same repository on this host, from memory. Figures are seconds per run.
func BenchmarkBuildAgainstDnfAndMksquashfs(b *testing.B) {
	needRoot(b, "dnf", "rpm", "createrepo_c", "mksquashfs")
	repo, err := standin.Make(b.Context(), standin.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := profiles.Load(b.Context(), "demo")
	if err != nil {
		b.Fatal(err)
	}
	var stages []StageTime
	var whole, dnf, squash time.Duration
	for b.Loop() {
		readAll(b, repo.Dir)
		result, took := coldBuild(b, p)
		whole += took
		stages = addTimes(stages, result.Stages)
		d, s := plainBuild(b, p)
		dnf, squash = dnf+d, squash+s
	}
	n := float64(b.N)
	ours := map[string]time.Duration{}
	fmt.Println() // b.Log would keep ten lines
	for _, s := range stages {
		fmt.Printf("%-14s %7.1f s  %s\n", s.Name, s.Duration.Seconds()/n, s.Note)
		ours[s.Name] = s.Duration
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(whole.Seconds()/n, "build-s")
	// Plain dnf reads metadata, resolves and installs in one go, and the kernel package's scriptlets run dracut.
	packages := ours[StageRepos] + ours[StageResolve] + ours[StagePackages] + ours[StageKernel]
	b.ReportMetric(packages.Seconds()/n, "packages+kernel-s")
	b.ReportMetric(dnf.Seconds()/n, "plain-dnf-s")
	b.ReportMetric(packages.Seconds()/dnf.Seconds(), "of-plain-dnf")
	b.ReportMetric(ours[StageSquashfs].Seconds()/n, "squashfs-s")
	b.ReportMetric(squash.Seconds()/n, "plain-mksquashfs-s")
	b.ReportMetric(ours[StageSquashfs].Seconds()/squash.Seconds(), "of-plain-mksquashfs")
}

func addTimes(sum, times []StageTime) []StageTime {
	if sum == nil {
		return append(sum, times...)
	}
	for i := range sum {
		sum[i].Duration += times[i].Duration
	}
	return sum
}

func readAll(b *testing.B, dir string) {
	b.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func coldBuild(b *testing.B, p *profiles.Profile) (Result, time.Duration) {
	b.Helper()
	dir := b.TempDir()
	plan, err := NewPlan(Options{
		Profile: p, Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"), KeyFile: filepath.Join(dir, "key"),
		Installer: installerbin.Get, Report: progress.NewPlain(io.Discard),
	})
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	result, err := Run(b.Context(), plan)
	if err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return result, took
}

// plainBuild is what somebody with a shell would type.
func plainBuild(b *testing.B, p *profiles.Profile) (dnf, squash time.Duration) {
	b.Helper()
	dir := b.TempDir()
	root, conf := filepath.Join(dir, "root"), filepath.Join(dir, "dnf.conf")
	var text strings.Builder
	fmt.Fprintf(&text, "[main]\ngpgcheck=1\nreposdir=/dev/null\nplugins=0\ncachedir=%s\nlogdir=%s\ninstall_weak_deps=0\ntsflags=nodocs\nassumeyes=1\n", filepath.Join(dir, "cache"), dir)
	for id, r := range p.Repositories {
		fmt.Fprintf(&text, "[%s]\nname=%s\nbaseurl=%s\ngpgkey=file://%s\n", id, id, strings.Join(r.BaseURL, " "), r.GPGKeys[0].File)
	}
	// Debian's rpm would keep the database in the home directory, where an installed system does not look.
	macros := "%_dbpath /var/lib/rpm\n%_install_langs " + strings.Join(p.Packages.Languages, ":") + "\n"
	for file, content := range map[string]string{conf: text.String(), filepath.Join(dir, ".rpmmacros"): macros} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	start := time.Now()
	argv := append([]string{"dnf", "-q", "-c", conf, "--installroot", root, "--releasever", p.Distro.Release, "install"}, p.Packages.Install...)
	runTool(b, []string{"HOME=" + dir}, argv...)
	dnf = time.Since(start)
	if found, err := filepath.Glob(filepath.Join(root, "boot/initramfs-*")); err != nil || len(found) == 0 {
		b.Fatalf("plain dnf made no initramfs, so it did less than the build's stages: %v", err)
	}
	block, err := profiles.ParseSize(p.Pack.BlockSize)
	if err != nil {
		b.Fatal(err)
	}
	start = time.Now()
	runTool(b, nil, "mksquashfs", root, filepath.Join(dir, "rootfs.squashfs"), "-noappend", "-no-progress", "-quiet", "-xattrs",
		"-b", strconv.FormatInt(block, 10), "-comp", p.Pack.Compressor, "-Xcompression-level", strconv.Itoa(p.Pack.CompressionLevel))
	squash = time.Since(start)
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return dnf, squash
}
