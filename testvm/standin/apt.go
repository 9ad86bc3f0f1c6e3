package standin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// batch is how many packages one apt-get download is asked for: enough to use its pipelining, few enough to show
// progress.
const batch = 25

// readIndex asks apt for everything that the archive offers. Package lists that are not there are fetched first.
func readIndex(ctx context.Context, arch string) (map[string]*deb, error) {
	index, err := dumpAvail(ctx, arch)
	if err != nil {
		return nil, err
	}
	if index["libc6"] != nil && index["libc6"].SHA256 != "" {
		return index, nil
	}
	if _, err := run(ctx, "", nil, "apt-get", "-q", "update"); err != nil {
		return nil, fmt.Errorf("apt knows no packages, and its lists cannot be refreshed: %w", err)
	}
	if index, err = dumpAvail(ctx, arch); err != nil {
		return nil, err
	}
	if index["libc6"] == nil {
		return nil, errors.New("apt offers no libc6 after apt-get update: its sources are not the Debian archive; the stand-in needs a Debian host")
	}
	return index, nil
}

func dumpAvail(ctx context.Context, arch string) (map[string]*deb, error) {
	out, err := run(ctx, "", nil, "apt-cache", "dumpavail")
	if err != nil {
		return nil, fmt.Errorf("ask apt what the archive offers: %w", err)
	}
	return parseIndex(bytes.NewReader(out), arch)
}

// download brings the packages into dir, which apt-get verifies against the archive's signature, and removes other
// packages from it. What is there already with the right digest is kept. done is called with the packages that are
// there.
func download(ctx context.Context, dir string, debs []*deb, done func(n int)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the package cache: %w", err)
	}
	want := map[string]bool{}
	var missing []*deb
	for _, d := range debs {
		want[d.file()] = true
		if verify(filepath.Join(dir, d.file()), d) != nil {
			missing = append(missing, d)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the package cache: %w", err)
	}
	for _, e := range entries {
		if !want[e.Name()] {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("clean the package cache: %w", err)
			}
		}
	}
	have := len(debs) - len(missing)
	done(have)
	for part := range slices.Chunk(missing, batch) {
		args := []string{"-q", "-o", "APT::Sandbox::User=root", "download"}
		for _, d := range part {
			args = append(args, d.Name+"="+d.Version)
			if err := os.Remove(filepath.Join(dir, d.file())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove a damaged package: %w", err)
			}
		}
		if _, err := run(ctx, dir, nil, "apt-get", args...); err != nil {
			return fmt.Errorf("download packages from the Debian archive: %w", err)
		}
		for _, d := range part {
			if err := verify(filepath.Join(dir, d.file()), d); err != nil {
				return fmt.Errorf("downloaded %s: %w", d.file(), err)
			}
		}
		have += len(part)
		done(have)
	}
	return nil
}

// verify compares a file with the index's digest.
func verify(file string, d *deb) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.SHA256 {
		return fmt.Errorf("its SHA-256 is %s, the index says %s", got, d.SHA256)
	}
	return nil
}

// run runs a host tool and gives what it wrote; an error ends in the tool's last lines.
func run(ctx context.Context, dir string, env []string, tool string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, env...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed", tool)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w: %s", tool, err, tail(errs.String(), out.String()))
	}
	return out.Bytes(), nil
}

// tail gives the last lines of the first text that is not blank.
func tail(texts ...string) string {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			lines := strings.Split(t, "\n")
			return strings.Join(lines[max(0, len(lines)-5):], "; ")
		}
	}
	return "it wrote nothing"
}
