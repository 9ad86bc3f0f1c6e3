// Package initramfs assembles the mini initramfs that machines boot into. In go an image's root directory (its
// kernel modules, firmware, tools and libraries), the installer's binary and the public key of the release; out comes
// one compressed newc cpio archive, the same bytes for the same input.
//
// It never runs anything of the image, never needs root, and never knows what is installed with the initramfs.
package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options says what goes into an initramfs.
type Options struct {
	Root          string    // image root directory
	KernelRelease string    // as in uname -r: 5.14.0-503.el9.x86_64
	Installer     []byte    // static ELF program that becomes /init
	Other         []byte    // another installer, which does not go in: the report says what it would weigh; nil for none
	PublicKey     []byte    // Ed25519 release key as text, stored as /etc/imgbuild/release.pub
	CACerts       []byte    // certificates of authorities in PEM form, besides those of the image; empty for none
	Network       []string  // module classes, see NetworkClasses
	Storage       []string  // module classes, see StorageClasses
	ExtraModules  []string  // module names, patterns of names, or patterns of paths below the release's directory
	Firmware      []string  // patterns below /lib/firmware, beside what the chosen modules name
	Tools         []Tool    // programs that the installer runs
	Files         []File    // further files
	Compression   string    // Zstd, XZ, Gzip; "" takes the best the kernel's configuration has
	Small         bool      // zstd as small as it gets: 13 % less for half a minute of one core
	SourceDate    time.Time // modification time of everything; the zero Time means 1 January 1970
}

// File is a file that is copied into the initramfs as it is.
type File struct {
	// Name is its absolute path in the initramfs.
	Name string
	// Candidates are the absolute paths at which it may lie in the image; the first that is there is taken.
	Candidates []string
	// FallbackToHost takes the build host's file when the image has none.
	FallbackToHost bool
}

// Report says what went into an initramfs.
type Report struct {
	Compression     string
	Modules         []string         // names, sorted
	MissingModules  []string         // names of the classes that this kernel has neither as a module nor built in
	Firmware        []string         // paths below /lib/firmware
	MissingFirmware []string         // named by modules, not in the image
	Tools           []string         // absolute paths in the initramfs
	CABundle        string           // the file of Root that HTTPS certificates are checked against, "" for none
	Raw, Packed     int64            // bytes before and after compression
	InstallerPacked int64            // bytes of the installer when it is compressed alone; 0 unless there was another one
	OtherPacked     int64            // the same of the other installer
	BySection       map[string]int64 // bytes before compression: installer, modules, firmware, tools, libraries, files
}

// Build writes the initramfs to w. Nothing is written before every part has been found, so an error about the image
// leaves w untouched; an error while reading or writing leaves it incomplete.
func Build(ctx context.Context, o Options, w io.Writer) (report Report, err error) {
	root, err := openTree(o.Root)
	if err != nil {
		return Report{}, fmt.Errorf("build the initramfs: %w", err)
	}
	a := newArchive()
	a.trees = append(a.trees, root)
	defer func() { err = errors.Join(err, a.close()) }()
	if report, err = assemble(ctx, a, root, o); err != nil {
		return Report{}, fmt.Errorf("build the initramfs: %w", err)
	}
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return pack(running, a, o, &report, w) })
	if o.Other != nil {
		g.Go(func() error { return weigh(running, o.Installer, report.Compression, o.Small, &report.InstallerPacked) })
		g.Go(func() error { return weigh(running, o.Other, report.Compression, o.Small, &report.OtherPacked) })
	}
	if err = g.Wait(); err != nil {
		return Report{}, fmt.Errorf("build the initramfs: %w", err)
	}
	return report, nil
}

// weigh compresses data alone, to see how many bytes that makes.
func weigh(ctx context.Context, data []byte, compression string, small bool, packed *int64) error {
	out := &counter{w: io.Discard}
	compressed, err := compressor(ctx, compression, small, out)
	if err != nil {
		return err
	}
	_, err = compressed.Write(data)
	if err = errors.Join(err, compressed.Close()); err != nil {
		return fmt.Errorf("weigh an installer: %w", err)
	}
	*packed = out.n
	return nil
}

// assemble collects everything that goes into the archive.
func assemble(ctx context.Context, a *archive, root *tree, o Options) (Report, error) {
	report := Report{Compression: o.Compression}
	if err := addInstaller(a, o); err != nil {
		return Report{}, err
	}
	kernel, err := openModules(root, o.KernelRelease)
	if err != nil {
		return Report{}, err
	}
	if report.Compression == "" {
		if report.Compression, err = chooseCompression(root, o.KernelRelease); err != nil {
			return Report{}, err
		}
	}
	modules, err := selectModules(ctx, kernel, o)
	if err != nil {
		return Report{}, err
	}
	if err := modules.store(a); err != nil {
		return Report{}, err
	}
	report.Modules, report.MissingModules = modules.names(), sortedKeys(modules.missing)
	if report.Firmware, report.MissingFirmware, err = storeFirmware(ctx, a, root, modules, o.Firmware); err != nil {
		return Report{}, err
	}
	if report.Tools, err = storeTools(ctx, a, root, o.Tools); err != nil {
		return Report{}, err
	}
	report.CABundle, err = addFiles(a, root, o)
	return report, err
}

// pack writes the archive, compressed, and fills in the sizes.
func pack(ctx context.Context, a *archive, o Options, report *Report, w io.Writer) error {
	date := o.SourceDate
	if date.IsZero() {
		date = time.Unix(0, 0)
	}
	if seconds := date.Unix(); seconds < 0 || seconds > math.MaxUint32 {
		return fmt.Errorf("the source date %s does not fit a cpio archive (1970 to 2106)", date.UTC().Format(time.RFC3339))
	}
	packed := &counter{w: w}
	compressed, err := compressor(ctx, report.Compression, o.Small, packed)
	if err != nil {
		return err
	}
	raw := &counter{w: compressed}
	report.BySection, err = a.write(ctx, raw, date)
	if closed := compressed.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("end the %s stream: %w", report.Compression, closed))
	}
	report.Raw, report.Packed = raw.n, packed.n
	return err
}
