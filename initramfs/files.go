package initramfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Places in the initramfs that the installer knows.
const (
	// PublicKeyPath is where the installer finds the key that the manifest must be signed with.
	PublicKeyPath = "/etc/imgbuild/release.pub"
	// CABundlePath is where Go's crypto/x509 looks first for the certificates of authorities.
	CABundlePath = "/etc/ssl/certs/ca-certificates.crt"
	// CACertsPath has those that the caller adds; crypto/x509 reads all files of that directory.
	CACertsPath = "/etc/ssl/certs/imgbuild.crt"
)

// addInstaller adds /init and the release key.
func addInstaller(a *archive, o Options) error {
	if err := checkStatic(o.Installer); err != nil {
		return fmt.Errorf("the installer binary cannot be /init: %w", err)
	}
	if err := a.addBytes(sectionInstaller, "init", 0o755, o.Installer, "the installer"); err != nil {
		return err
	}
	if len(bytes.TrimSpace(o.PublicKey)) == 0 {
		return errors.New("no public key is given: the installer would have nothing to check a release against")
	}
	return a.addBytes(sectionFiles, PublicKeyPath, 0o644, o.PublicKey, "the release's public key")
}

// checkStatic refuses what the kernel could not start as PID 1 in an initramfs without libraries.
func checkStatic(binary []byte) error {
	if len(binary) == 0 {
		return errors.New("it is empty: build the installer first")
	}
	parsed, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return fmt.Errorf("it is no ELF program: %w", err)
	}
	if parsed.Type != elf.ET_EXEC && parsed.Type != elf.ET_DYN {
		return fmt.Errorf("it is no program but %s", parsed.Type)
	}
	if slices.ContainsFunc(parsed.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return errors.New("it is linked dynamically: build it with CGO_ENABLED=0")
	}
	return nil
}

// addFiles adds the caller's files, the certificates of authorities, and the two lines that C programs look up root in.
// It returns the path of the certificates in the image.
func addFiles(a *archive, root *tree, o Options) (bundle string, err error) {
	for _, f := range o.Files {
		found, err := a.findFirst(root, f.Candidates, f.FallbackToHost)
		if err != nil {
			return "", fmt.Errorf("put %s into the initramfs: %w", f.Name, err)
		}
		if err := a.addFile(sectionFiles, f.Name, 0o644, found.tree, found.file); err != nil {
			return "", err
		}
	}
	for _, account := range []struct{ name, line string }{
		{"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"},
		{"/etc/group", "root:x:0:\n"},
	} {
		if a.has(account.name) {
			continue
		}
		if err := a.addBytes(sectionFiles, account.name, 0o644, []byte(account.line), "the account of root"); err != nil {
			return "", err
		}
	}
	if len(o.CACerts) > 0 {
		if err := a.addBytes(sectionFiles, CACertsPath, 0o644, o.CACerts, "the added certificates of authorities"); err != nil {
			return "", err
		}
	}
	if a.has(CABundlePath) {
		return CABundlePath, nil
	}
	found, err := a.findFirst(root, []string{
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // EL
		"/etc/pki/tls/certs/ca-bundle.crt",
		CABundlePath, // Debian, SUSE
	}, false)
	if errors.Is(err, fs.ErrNotExist) || err == nil && found.file.size == 0 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("put the certificates of authorities into the initramfs: %w", err)
	}
	return found.name, a.addFile(sectionFiles, CABundlePath, 0o644, found.tree, found.file)
}
