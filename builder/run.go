package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imgbuild/builder/dnf"
	"imgbuild/builder/progress"
	"imgbuild/builder/sandbox"
	"imgbuild/builder/tool"
	"imgbuild/builder/tree"
	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/initramfs"
)

// build is one run of a plan.
type build struct {
	*Plan
	o       Options
	runner  *tool.Runner
	logFile string
	began   time.Time
	date    time.Time // the time stamp of what is made
	times   []StageTime

	key      image.PrivateKey
	cache    *cache
	work     string // this run's directory in the cache
	staging  string // the release until it is complete
	inputs   string // digest of what is asked for
	lock     *dnf.Lock
	treeDir  string // the installed packages, in the cache
	root     string // the image: the installed packages with the configuration over them
	tree     *tree.Tree
	fresh    string // a new tree being made, "" if the cache has it
	release  string // of the kernel
	distro   image.Distro
	loaders  image.BootLoader
	tools    []initramfs.Tool // of the mini initramfs
	unpacked int64            // bytes
	mounts   *sandbox.Mounts
	torrent  *torrent.Metainfo
	files    map[string]image.File
	isoSize  int64 // bytes; 0 for a release without a medium
	manifest *image.Manifest
}

// outcome is what a stage says of itself.
type outcome struct {
	bytes  int64
	note   string
	reused bool
}

// Run runs the plan. It has to be called in a process that Isolate has made. When nothing has changed since the release
// in the output directory was built, it returns that one in well under a second, without asking the network: changed
// means the profile, the files and scripts it names, the lock, the metadata of repositories on this host, the installer,
// this program, the host's tools or the signing key. Repositories on the network are asked when packages are resolved:
// the first time, when the profile asks for others, or when a build is forced.
func Run(ctx context.Context, p *Plan) (result Result, err error) {
	b := newBuild(p)
	if err := b.local(); err != nil {
		return Result{}, err
	}
	unlock, err := b.cache.lockCache(ctx, b.o.Report)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if done, err := b.upToDate(); err != nil || done {
		return Result{Dir: b.o.dir(), Reused: done}, err
	}
	if !sandbox.Isolated() {
		return Result{}, errors.New("build: this process shares its mounts and process IDs with the host; the program has to call builder.Isolate first")
	}
	unix.Umask(0o022)
	if err := b.open(); err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.all(ctx); err != nil {
		return Result{}, fmt.Errorf("%w\n  everything that was run is in %s", err, b.logFile)
	}
	b.o.Report.Finish(b.summary(false, ""))
	return Result{Dir: b.o.dir(), Stages: b.times, Manifest: b.manifest}, nil
}

func newBuild(p *Plan) *build {
	return &build{
		Plan: p, o: p.options, began: time.Now(), files: map[string]image.File{}, mounts: &sandbox.Mounts{}, cache: &cache{dir: p.options.Cache},
	}
}

// local checks what no build works without, before anything is read or locked.
func (b *build) local() error {
	if os.Geteuid() != 0 {
		return errors.New("a build needs root: it installs packages with their owners and mounts file systems; run it with sudo")
	}
	return nil
}

// upToDate reports whether the release that is there is what would be built.
func (b *build) upToDate() (bool, error) {
	if b.o.Force {
		return false, nil
	}
	lock, err := os.ReadFile(filepath.Join(b.o.dir(), image.LockFile))
	if err != nil {
		return false, nil // there is no release yet, or none that can be used
	}
	digest, err := b.releaseDigest(lock)
	if err != nil {
		return false, err
	}
	same, err := b.cache.built(b.o.dir(), digest)
	if err != nil || !same {
		return false, err
	}
	b.o.Report.Finish(b.summary(true, "the profile, its files, the lock, the tools and the key are those that it was built with"))
	return true, nil
}

func (b *build) summary(reused bool, why string) progress.Summary {
	s := progress.Summary{
		Name: b.o.Profile.Name, Version: b.o.Profile.Version, Dir: b.o.dir(), Reused: reused, Why: why,
		Total: time.Since(b.began), Stages: b.times,
	}
	for _, name := range []string{image.KernelFile, image.InitramfsFile, image.RootfsFile} {
		if f, ok := b.files[name]; ok {
			s.Files = append(s.Files, progress.FileSize{Name: name, Bytes: f.Size})
		}
	}
	if b.isoSize > 0 {
		s.Files = append(s.Files, progress.FileSize{Name: image.ISOFile, Bytes: b.isoSize})
	}
	return s
}

// open makes the run's directories and its log.
func (b *build) open() error {
	var err error
	if b.work, err = b.cache.workDir(); err != nil {
		return err
	}
	b.root = filepath.Join(b.work, "root")
	b.logFile = filepath.Join(b.o.Cache, "log", b.o.Profile.Name+"-"+b.o.Profile.Version+".log")
	if err := os.MkdirAll(filepath.Dir(b.logFile), 0o755); err != nil {
		return fmt.Errorf("make the build's log: %w", err)
	}
	f, err := os.Create(b.logFile)
	if err != nil {
		return fmt.Errorf("make the build's log: %w", err)
	}
	b.runner = tool.NewRunner(f)
	return nil
}

// close takes away what a build leaves in the cache when it ends, in whatever way.
func (b *build) close() error {
	var errs []error
	if b.tree != nil {
		errs = append(errs, b.tree.Close())
	}
	errs = append(errs, b.mounts.Close())
	if b.fresh != "" {
		errs = append(errs, os.RemoveAll(b.fresh))
	}
	if b.staging != "" {
		errs = append(errs, os.RemoveAll(b.staging))
	}
	return errors.Join(append(errs, os.RemoveAll(b.work))...)
}

// all runs the stages.
func (b *build) all(ctx context.Context) error {
	do := map[string]func(context.Context) (outcome, error){
		StagePreflight: b.preflight,
		StageRepos:     b.repositories,
		StageResolve:   b.resolve,
		StagePackages:  b.packages,
		StageConfigure: b.configure,
		StageScripts:   b.scripts,
		StageKernel:    b.kernel,
		StageClean:     b.clean,
		StageSquashfs:  b.squashfs,
		StageInitramfs: b.initramfs,
		StageManifest:  b.writeManifest,
		StageISO:       b.iso,
		StagePublish:   b.publish,
	}
	for i, s := range b.Stages {
		b.o.Report.Start(progress.Stage{N: i + 1, Of: len(b.Stages), Name: s.Name, What: s.What})
		b.runner.Heading(fmt.Sprintf("%d/%d %s: %s", i+1, len(b.Stages), s.Name, s.What))
		for _, l := range s.Inputs {
			b.runner.Note("%s", l)
		}
		began := time.Now()
		err := context.Cause(ctx)
		var out outcome
		if err == nil {
			out, err = do[s.Name](ctx)
		}
		if err != nil {
			b.runner.Note("failed: %v", err)
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		t := StageTime{Name: s.Name, Duration: time.Since(began), Bytes: out.bytes, Note: out.note, Reused: out.reused}
		b.times = append(b.times, t)
		b.o.Log.Info("stage done", "stage", s.Name, "time", t.Duration, "bytes", t.Bytes, "reused", t.Reused)
		b.o.Report.Done(t)
	}
	return nil
}

// note tells people something, on the screen and in the log.
func (b *build) note(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	b.runner.Note("%s", s)
	b.o.Report.Note(s)
}

// env is what the tools that make files are to know.
func (b *build) env() []string {
	env := slices.Clone(b.o.Env)
	if !b.date.IsZero() {
		env = append(env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.date.Unix()))
	}
	return env
}

// chroot is a command in the image, with no network and its services left alone.
func (b *build) chroot(argv ...string) tool.Command {
	return tool.Command{
		Argv: argv, Root: b.root, NoNetwork: true,
		Env: append([]string{"SYSTEMD_OFFLINE=1", "TERM=dumb"}, b.env()...),
	}
}
