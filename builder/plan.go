package builder

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"imgbuild/builder/configure"
	"imgbuild/builder/dnf"
	"imgbuild/image"
	"imgbuild/profiles"
)

// Names of the stages.
const (
	StagePreflight = "preflight"
	StageRepos     = "repositories"
	StageResolve   = "resolve"
	StagePackages  = "packages"
	StageConfigure = "configure"
	StageScripts   = "scripts"
	StageKernel    = "kernel"
	StageClean     = "clean"
	StageSquashfs  = "squashfs"
	StageInitramfs = "initramfs"
	StageManifest  = "manifest"
	StageISO       = "iso"
	StagePublish   = "publish"
)

// Stage is one step of a plan, as data: what it does, and what it depends on, for people to read.
type Stage struct {
	Name string
	// What says in one line what the stage does.
	What string
	// Inputs are what decides its result, one a line.
	Inputs []string
}

// Plan is a build before it is work.
type Plan struct {
	Stages []Stage
	// Added are the packages that the builder needs in the image and the profile does not name.
	Added []string

	options Options
	config  dnf.Config // without keys' files, which are written when the plan is run
}

// NewPlan makes the plan. It asks neither the network nor for root, and runs nothing.
func NewPlan(o Options) (*Plan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	p := o.Profile
	repos, err := dnf.WithOverride(p.Repositories, o.RepoOverride)
	if err != nil {
		return nil, fmt.Errorf("plan the build of %s: %w", p.Name, err)
	}
	if len(repos) == 0 {
		return nil, fmt.Errorf("plan the build of %s: none of its repositories is enabled", p.Name)
	}
	if err := checkExcluded(p); err != nil {
		return nil, fmt.Errorf("plan the build of %s: %w", p.Name, err)
	}
	plan := &Plan{options: o, Added: addedPackages(p)}
	packages := p.Packages
	packages.Install = append(slices.Clone(packages.Install), plan.Added...)
	plan.config = dnf.Config{Distro: p.Distro, Arch: p.Arch, Repositories: repos, Packages: packages}
	plan.Stages = plan.stages()
	return plan, nil
}

// addedPackages are what the stages and the layout need: a kernel, dracut, tools of file systems and volumes, boot loaders.
// What the profile excludes stays out.
func addedPackages(p *profiles.Profile) []string {
	need := append([]string{p.Kernel.Package, "dracut"}, needsOf(p).packages...)
	return slices.DeleteFunc(need, func(n string) bool {
		return n == "" || slices.Contains(p.Packages.Install, n) || excludedBy(p, n) >= 0
	})
}

func (p *Plan) stages() []Stage {
	pr := p.options.Profile
	stages := []Stage{
		{StagePreflight, "check tools, disk space, keys and that every repository answers", nil},
		{StageRepos, "read the repositories' metadata", p.repositoryLines()},
		{StageResolve, "choose packages, download them, check their signatures, write the lock", p.packageLines()},
		{StagePackages, "install the locked packages into an empty root, without network", nil},
		{StageConfigure, "write the configuration", configurationLines(pr)},
	}
	if len(pr.Scripts) > 0 {
		stages = append(stages, Stage{StageScripts, "run the profile's scripts in the image", scriptLines(pr)})
	}
	stages = append(stages,
		Stage{StageKernel, "copy the kernel to /boot and make its generic initramfs, once, with the image's dracut", []string{"kernel package " + pr.Kernel.Package}},
		Stage{StageClean, "remove host keys, machine ID, logs, caches; set SELinux labels", nil},
		Stage{StageSquashfs, "pack the root file system", append([]string{packLine(pr.Pack)}, torrentLines(pr)...)},
		Stage{StageInitramfs, "assemble the mini initramfs with the installer", initramfsLines(pr)},
		Stage{StageManifest, "write boot.ipxe, rootfs.torrent and the manifest, and sign it", []string{"key " + p.options.KeyFile}},
	)
	if withISO(pr) {
		stages = append(stages, Stage{StageISO, "write " + image.ISOFile + ", with the signed release on it", isoLines(pr)})
	}
	return append(stages, Stage{StagePublish, "move the complete release into place", []string{p.options.dir()}})
}

func (p *Plan) repositoryLines() []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(p.config.Repositories)) {
		r := p.config.Repositories[id]
		where := strings.Join(r.BaseURL, " ")
		if where == "" {
			where = r.MirrorList + r.Metalink
		}
		var keys []string
		for _, k := range r.GPGKeys {
			name := k.Shipped + k.File
			if k.Fingerprint != "" {
				name += " (" + k.Fingerprint + ")"
			}
			keys = append(keys, name)
		}
		out = append(out, id+": "+where, "  signed by "+strings.Join(keys, ", "))
		if r.Priority != 0 && r.Priority != 99 {
			out = append(out, fmt.Sprintf("  priority %d", r.Priority))
		}
		if len(r.Exclude) > 0 {
			out = append(out, "  without "+strings.Join(r.Exclude, " "))
		}
		if len(r.Include) > 0 {
			out = append(out, "  only "+strings.Join(r.Include, " "))
		}
	}
	return out
}

func (p *Plan) packageLines() []string {
	pk := p.options.Profile.Packages
	out := []string{"install " + strings.Join(pk.Install, " ")}
	add := func(prefix string, items []string) {
		if len(items) > 0 {
			out = append(out, prefix+strings.Join(items, " "))
		}
	}
	add("added by the builder ", p.Added)
	add("without ", pk.Exclude)
	add("module streams ", pk.Modules)
	add("languages ", pk.Languages)
	yes := func(b *bool) string {
		if b != nil && *b {
			return "yes"
		}
		return "no"
	}
	return append(out, "weak dependencies "+yes(pk.WeakDeps)+", documentation "+yes(pk.Docs))
}

func configurationLines(p *profiles.Profile) []string {
	var out []string
	add := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	list := func(what string, items []string) {
		if len(items) > 0 {
			add("%s %s", what, strings.Join(items, " "))
		}
	}
	list("groups", slices.Sorted(maps.Keys(p.Groups)))
	list("users", slices.Sorted(maps.Keys(p.Users)))
	root := "with a password"
	if p.Root.Locked != nil && *p.Root.Locked {
		root = "locked"
	}
	if n := len(p.Root.SSHKeys); n > 0 {
		root += fmt.Sprintf(", %d SSH keys", n)
	}
	add("root %s", root)
	list("sudo rules", slices.Sorted(maps.Keys(p.Sudo)))
	list("enable", p.Services.Enable)
	list("disable", p.Services.Disable)
	list("mask", p.Services.Mask)
	add("target %s", p.Services.Target)
	s := p.System
	add("time zone %s, locale %s, keyboard %s, host name %s, SELinux %s", s.Timezone, s.Locale, s.Keyboard, s.Hostname, s.SELinux)
	if f := s.Firewall; f.Enabled != nil {
		add("firewall %s", map[bool]string{true: "on", false: "off"}[*f.Enabled])
		list("firewall allows", append(slices.Clone(f.Services), f.Ports...))
	}
	list("kernel arguments", configure.Arguments(p))
	list("kernel modules", p.Kernel.Modules)
	list("kernel modules kept out", p.Kernel.Blacklist)
	for _, model := range p.Kernel.NoKexec {
		add("no kexec on %s", model)
	}
	list("sysctl", slices.Sorted(maps.Keys(s.Sysctl)))
	list("files", slices.Sorted(maps.Keys(p.Files)))
	for _, s := range p.InstallScripts {
		add("script when a machine is installed: %s", s.Name)
	}
	for _, s := range p.FirstBootScripts {
		add("script at a machine's first boot: %s", s.Name)
	}
	return out
}

func scriptLines(p *profiles.Profile) []string {
	var out []string
	for _, s := range p.Scripts {
		line := s.Name
		if s.Network {
			line += " (with network)"
		}
		out = append(out, line)
	}
	return out
}

func packLine(k profiles.Pack) string {
	s := fmt.Sprintf("%s, %s", k.Level, k.Compressor)
	if k.CompressionLevel != 0 {
		s += fmt.Sprintf(" level %d", k.CompressionLevel)
	}
	s += ", blocks of " + k.BlockSize
	if len(k.Exclude) > 0 {
		s += ", without " + strings.Join(k.Exclude, " ")
	}
	return s
}

func initramfsLines(p *profiles.Profile) []string {
	i := p.Initramfs
	out := []string{fmt.Sprintf("network %s, storage %s, compression %s", strings.Join(i.Network, " "), strings.Join(i.Storage, " "), i.Compression)}
	if len(i.Modules) > 0 {
		out = append(out, "modules "+strings.Join(i.Modules, " "))
	}
	if len(i.Firmware) > 0 {
		out = append(out, "firmware "+strings.Join(i.Firmware, " "))
	}
	if len(i.CACerts) > 0 {
		out = append(out, "CAs "+strings.Join(i.CACerts, " "))
	}
	var tools []string
	for _, t := range initramfsTools(p) {
		tools = append(tools, t.Name)
	}
	torrent := "installer without BitTorrent"
	if withTorrent(p) {
		torrent = "installer with BitTorrent"
	}
	return append(out, "tools "+strings.Join(tools, " "), torrent, "layout: "+layoutLine(p.Layout))
}

// torrentLines are what rootfs.torrent says besides what the root file system is.
func torrentLines(p *profiles.Profile) []string {
	var out []string
	for _, t := range p.Torrent.Trackers {
		out = append(out, "tracker "+t)
	}
	for _, s := range webSeeds(p) {
		out = append(out, "web seed "+s)
	}
	return out
}

// webSeeds are where web servers have the root file system.
func webSeeds(p *profiles.Profile) []string {
	var out []string
	for _, s := range p.Torrent.WebSeeds {
		out = append(out, strings.TrimRight(s, "/")+"/"+url.PathEscape(p.Name)+"/"+url.PathEscape(p.Version)+"/"+image.RootfsFile)
	}
	return out
}

// String is the plan as people read it.
func (p *Plan) String() string {
	var b strings.Builder
	pr := p.options.Profile
	fmt.Fprintf(&b, "%s %s: %s release %s (EL%d), %s\n", pr.Name, pr.Version, pr.Distro.ID, pr.Distro.Release, pr.Distro.Major, pr.Arch)
	for i, s := range p.Stages {
		fmt.Fprintf(&b, "%2d  %-13s %s\n", i+1, s.Name, s.What)
		for _, l := range s.Inputs {
			fmt.Fprintf(&b, "      %s\n", l)
		}
	}
	return b.String()
}
