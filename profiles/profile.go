// Package profiles is what an image is to be: the types of a profile, the strict loading of people's YAML into them
// (inheritance, defaults, and every mistake at once with its place), the JSON Schema and reference made from the same
// types, and the profiles and GPG keys that are shipped.
//
// In come the name of a shipped profile or a file; out goes one merged, checked Profile or a list of Errors. It reads
// files of the build host and nothing else: it never builds, never asks the network and never runs a program.
package profiles

import (
	"imgbuild/image/layout"
	"imgbuild/profiles/strict"
)

// The comments of these types and fields are the descriptions in the schema and in docs/profile-reference.md. The tags are
// those of package strict, and two more:
//
//	inherit:"no"  an ancestor's value is not taken over
//	only:"G"      exactly one field of the group G is given
//
// defaults.go fills in what the tag default shows.

// Profile says what an image is to be: from which distribution and repositories, which packages, how it is configured and
// how it is packed.
type Profile struct {
	// Extends names the profile that this one adds to: a shipped profile by name, or a file relative to this one. Maps are
	// merged, lists are appended (what is there twice is kept once), anything else is replaced. The tag !reset on a value
	// drops what was inherited before the value is taken; on an item of a list it takes that inherited item out.
	Extends string `yaml:"extends,omitempty" check:"extends" inherit:"no"`
	// Name is the image's name. It is a folder's name in the output, and is not inherited. Default: the file's name without .yaml.
	Name string `yaml:"name" check:"image-name" inherit:"no"`
	// Version is the image's version. It is a folder's name in the output, and is not inherited.
	Version string `yaml:"version" check:"image-version" inherit:"no" default:"1"`
	// Description says in one line what the image is for. It is not inherited.
	Description string `yaml:"description,omitempty" check:"line" inherit:"no"`
	// Arch is the machines' architecture.
	Arch string `yaml:"arch" check:"arch" default:"x86_64"`
	// Distro says which distribution and release this is.
	Distro Distro `yaml:"distro"`
	// Repositories are dnf repositories by ID. There is at least one.
	Repositories map[string]Repository `yaml:"repositories" keys:"repository-id"`
	// Packages says what is installed.
	Packages Packages `yaml:"packages"`
	// Users are accounts by login name. Root has its own key.
	Users map[string]User `yaml:"users,omitempty" keys:"user-name" bare:"yes"`
	// Groups are groups by name.
	Groups map[string]Group `yaml:"groups,omitempty" keys:"group-name" bare:"yes"`
	// Root is the root account.
	Root Root `yaml:"root"`
	// Sudo are sudoers rules by file name below /etc/sudoers.d; checked with visudo when the image has it.
	Sudo map[string]string `yaml:"sudo,omitempty" keys:"sudoers-name" check:"text"`
	// Services says which systemd units start.
	Services Services `yaml:"services"`
	// System is what the installed system is like everywhere.
	System System `yaml:"system"`
	// Kernel is the kernel and how it is started.
	Kernel Kernel `yaml:"kernel"`
	// Files are files, directories and links by their absolute path in the image.
	Files map[string]File `yaml:"files,omitempty" keys:"image-path"`
	// Scripts run in the image's root, in order, after everything else is configured.
	Scripts []Script `yaml:"scripts,omitempty"`
	// InstallScripts run on the machine when it is installed, in order: in the installed system's root, after everything
	// else is configured, without network. One that fails ends the installation, and the disk does not boot.
	InstallScripts []MachineScript `yaml:"install_scripts,omitempty"`
	// FirstBootScripts run on the machine, in order, when the installed system has started for the first time, before it
	// tells its server that it has booted. One that fails is reported and holds up none of the others.
	FirstBootScripts []MachineScript `yaml:"first_boot_scripts,omitempty"`
	// Layout is what becomes of the disks of machines that the image is installed on, where the registry or the installer's
	// arguments say nothing else. `imgbuild layout` shows it for disks of your choice.
	Layout layout.Layout `yaml:"layout"`
	// Pack says how hard the root file system is compressed.
	Pack Pack `yaml:"pack"`
	// Torrent is what the release's rootfs.torrent says besides what the root file system is. None of it is needed where there is
	// an imgserve: machines are told of it when they are installed, and people fetch /torrent/NAME/VERSION.torrent from it.
	Torrent Torrent `yaml:"torrent,omitempty"`
	// Initramfs is what goes into the mini initramfs besides the installer.
	Initramfs Initramfs `yaml:"initramfs"`
	// ISO writes live.iso into the release: a medium for CDs, sticks and BMCs with all of the release on it. It makes the release twice
	// as large.
	ISO *bool `yaml:"iso,omitempty" default:"true"`

	// Dir is the directory of the profile's file; empty for a shipped one. The loader makes every path of the build host
	// absolute, so nothing is left that starts from Dir.
	Dir string `yaml:"-"`
	// Sources are the files that this profile was made from, the first ancestor first; shipped ones as "shipped:NAME".
	Sources []string `yaml:"-"`

	tree *strict.Node // the merged nodes with their places, for Where
}

// Distro is the distribution of the image.
type Distro struct {
	// ID is the distribution. The stand-in is made by `testvm standin` where no mirror can be reached.
	ID string `yaml:"id" check:"distro"`
	// Release is dnf's $releasever: "9", "10", "7".
	Release string `yaml:"release" check:"release"`
	// Major is the EL major release that decides how things are done. Default: from release.
	Major int `yaml:"major,omitempty" check:"el-major"`
	// Vars are further dnf variables, used as $name in repositories' addresses.
	Vars map[string]string `yaml:"vars,omitempty" keys:"dnf-var" check:"line" loose:"yes"`
}

// Repository is one dnf repository. Exactly one of baseurl, mirrorlist and metalink says where it is, and at least one key
// signs its packages: signatures are always checked.
type Repository struct {
	// Name is the name that people read. Default: the ID.
	Name string `yaml:"name,omitempty" check:"line"`
	// BaseURL is one address or more of the same repository, tried in order.
	BaseURL []string `yaml:"baseurl,omitempty" check:"url" only:"address"`
	// MirrorList is an address that answers with a list of addresses.
	MirrorList string `yaml:"mirrorlist,omitempty" check:"url" only:"address"`
	// Metalink is an address that answers with a metalink: addresses, and digests of the metadata.
	Metalink string `yaml:"metalink,omitempty" check:"url" only:"address"`
	// GPGKeys are the keys that sign this repository's packages. There is at least one.
	GPGKeys []GPGKey `yaml:"gpgkeys,omitempty"`
	// CheckMetadata also demands a signature over the repository's metadata (repo_gpgcheck).
	CheckMetadata bool `yaml:"check_metadata,omitempty" default:"false"`
	// Priority decides between repositories with the same package: 1 is first, 99 last.
	Priority int `yaml:"priority,omitempty" check:"priority" default:"99"`
	// Exclude are packages that are never taken from this repository.
	Exclude []string `yaml:"exclude,omitempty" check:"package-glob"`
	// Include are the only packages that are taken from this repository.
	Include []string `yaml:"include,omitempty" check:"package-glob"`
	// Enabled says whether the repository is used.
	Enabled *bool `yaml:"enabled,omitempty" default:"true"`
	// Keep writes a .repo file for this repository into the image. Without it the installed system knows the repositories
	// that its packages bring.
	Keep bool `yaml:"keep,omitempty" default:"false"`
	// CACert is a file of the build host with the CA that the server's certificate is checked against.
	CACert string `yaml:"cacert,omitempty" check:"host-path"`
}

// GPGKey is one public key. Exactly one of shipped and file says where it is.
type GPGKey struct {
	// Shipped is the name of a key that comes with the profiles. Its fingerprint is pinned.
	Shipped string `yaml:"shipped,omitempty" check:"shipped-key" only:"key"`
	// File is an armored key of the build host.
	File string `yaml:"file,omitempty" check:"host-path" only:"key"`
	// Fingerprint pins the key: the file must hold this key and no other. Blanks are allowed. Demanded for shipped keys.
	Fingerprint string `yaml:"fingerprint,omitempty" check:"fingerprint"`
}

// Packages says what is installed.
type Packages struct {
	// Install are package names, globs, @groups or @^environments. There is at least one.
	Install []string `yaml:"install,omitempty" check:"package"`
	// Exclude are packages that are never installed, not even as a dependency.
	Exclude []string `yaml:"exclude,omitempty" check:"package-glob"`
	// WeakDeps installs recommended packages too.
	WeakDeps *bool `yaml:"weak_deps,omitempty" default:"false"`
	// Docs installs files that are marked as documentation.
	Docs *bool `yaml:"docs,omitempty" default:"false"`
	// Languages are the locales whose files are kept (%_install_langs). Default: all.
	Languages []string `yaml:"languages,omitempty" check:"language"`
	// Modules are module streams to enable; EL8 and EL9 have them.
	Modules []string `yaml:"modules,omitempty" check:"module-stream"`
}

// User is one account.
type User struct {
	// UID is the user ID. Default: the next free one.
	UID *int `yaml:"uid,omitempty" check:"id"`
	// Group is the primary group's name. Default: a group of the user's name.
	Group string `yaml:"group,omitempty" check:"group-name"`
	// Groups are further groups that the user belongs to.
	Groups []string `yaml:"groups,omitempty" check:"group-name"`
	// Password is a crypt(5) hash as `openssl passwd -6` makes it. Without one the password is locked. A plain password is refused.
	Password string `yaml:"password,omitempty" check:"crypt"`
	// SSHKeys are public keys, one line each as in authorized_keys.
	SSHKeys []string `yaml:"ssh_keys,omitempty" check:"ssh-key"`
	// Home is the home directory. Default: /home/ and the name.
	Home string `yaml:"home,omitempty" check:"absolute"`
	// Shell is the login shell. Default: /bin/bash; for system users /sbin/nologin.
	Shell string `yaml:"shell,omitempty" check:"absolute"`
	// Comment is the person's name or the purpose (GECOS).
	Comment string `yaml:"comment,omitempty" check:"gecos"`
	// System makes a system account: a low user ID and no home directory.
	System bool `yaml:"system,omitempty" default:"false"`
	// Sudo lets the user become root: all asks for the password, nopasswd does not.
	Sudo string `yaml:"sudo,omitempty" check:"user-sudo"`
}

// Group is one group.
type Group struct {
	// GID is the group ID. Default: the next free one.
	GID *int `yaml:"gid,omitempty" check:"id"`
	// System makes a system group: a low group ID.
	System bool `yaml:"system,omitempty" default:"false"`
}

// Root is the root account.
type Root struct {
	// Password is a crypt(5) hash as `openssl passwd -6` makes it. A plain password is refused.
	Password string `yaml:"password,omitempty" check:"crypt"`
	// Locked says that no password lets root in; SSH keys still do. Default: true without a password.
	Locked *bool `yaml:"locked,omitempty"`
	// SSHKeys are public keys, one line each as in authorized_keys.
	SSHKeys []string `yaml:"ssh_keys,omitempty" check:"ssh-key"`
}

// Services says which systemd units start. A name without a suffix is a .service.
type Services struct {
	// Enable are units that start with the system.
	Enable []string `yaml:"enable,omitempty" check:"unit"`
	// Disable are units that do not start with the system, whatever their package's preset says.
	Disable []string `yaml:"disable,omitempty" check:"unit"`
	// Mask are units that cannot be started at all.
	Mask []string `yaml:"mask,omitempty" check:"unit"`
	// Target is what the system starts into.
	Target string `yaml:"target,omitempty" check:"target" default:"multi-user.target"`
}

// System is what the installed system is like everywhere.
type System struct {
	// Timezone is a name of the tz database.
	Timezone string `yaml:"timezone,omitempty" check:"timezone" default:"UTC"`
	// Locale is the system's locale. Default: C.UTF-8; on EL7, which has no such locale, en_US.UTF-8.
	Locale string `yaml:"locale,omitempty" check:"locale"`
	// Keyboard is the console's keymap.
	Keyboard string `yaml:"keyboard,omitempty" check:"keymap" default:"us"`
	// Hostname is the name of a machine that nobody has given a name.
	Hostname string `yaml:"hostname,omitempty" check:"hostname" default:"localhost.localdomain"`
	// SELinux is the mode that the installed system starts with.
	SELinux string `yaml:"selinux,omitempty" check:"selinux" default:"enforcing"`
	// Firewall is firewalld's default zone. Without it the packages' own setting stays.
	Firewall Firewall `yaml:"firewall,omitempty"`
	// Network is the format in which the machine's network configuration is written. Default: nm-keyfile; on EL7 ifcfg.
	Network string `yaml:"network,omitempty" check:"network"`
	// Sysctl are kernel parameters, written to /etc/sysctl.d/90-imgbuild.conf.
	Sysctl map[string]string `yaml:"sysctl,omitempty" keys:"sysctl" check:"line" loose:"yes"`
}

// Firewall is firewalld's default zone.
type Firewall struct {
	// Enabled says whether firewalld starts. Default: true when anything else is said here.
	Enabled *bool `yaml:"enabled,omitempty"`
	// Zone is the default zone.
	Zone string `yaml:"zone,omitempty" check:"firewall-name"`
	// Services are firewalld's services that are let in.
	Services []string `yaml:"services,omitempty" check:"firewall-name"`
	// Ports are ports or ranges that are let in.
	Ports []string `yaml:"ports,omitempty" check:"port"`
}

// Kernel is the kernel and how it is started.
type Kernel struct {
	// Package is the package whose kernel is booted.
	Package string `yaml:"package,omitempty" check:"package-name" default:"kernel"`
	// Args are kernel arguments of the installed system. root= and the like belong to the installer.
	Args []string `yaml:"args,omitempty" check:"kernel-arg"`
	// Serial is the serial console. Default: none.
	Serial string `yaml:"serial,omitempty" check:"serial"`
	// NoKexec are models whose devices do not survive kexec: the installer starts no kernel there without the firmware, but reboots.
	// Globs over vendor and product, with a blank between them, without regard to case.
	NoKexec []string `yaml:"no_kexec,omitempty" check:"model-glob"`
	// Modules are loaded when the system starts.
	Modules []string `yaml:"modules,omitempty" check:"module"`
	// Blacklist are modules that are never loaded for a device.
	Blacklist []string `yaml:"blacklist,omitempty" check:"module"`
	// Options are module options by module.
	Options map[string]string `yaml:"options,omitempty" keys:"module" check:"line" loose:"yes"`
}

// File is one file, directory or symbolic link. Exactly one of content, source, template, link and directory says what.
type File struct {
	// Content is the file's text.
	Content *string `yaml:"content,omitempty" only:"kind"`
	// Source is a path of the build host; a directory is copied whole.
	Source string `yaml:"source,omitempty" check:"host-path" only:"kind"`
	// Template is a Go text/template, inline, given the profile as .Profile and vars as .Vars, as in {{.Vars.zone}}.
	Template *string `yaml:"template,omitempty" check:"template" only:"kind"`
	// Vars are values for the template.
	Vars map[string]string `yaml:"vars,omitempty" keys:"template-var" loose:"yes"`
	// Link makes a symbolic link; this is where it leads.
	Link string `yaml:"link,omitempty" check:"link-target" only:"kind"`
	// Directory makes a directory.
	Directory bool `yaml:"directory,omitempty" only:"kind"`
	// Mode is octal, in quotes. Default: "0644"; "0755" for directories, texts that begin with #! and sources that are executable.
	Mode string `yaml:"mode,omitempty" check:"mode"`
	// Owner is a user of the image.
	Owner string `yaml:"owner,omitempty" check:"owner" default:"root"`
	// Group is a group of the image.
	Group string `yaml:"group,omitempty" check:"owner" default:"root"`
}

// Script is one build script. Exactly one of run and file says what runs.
type Script struct {
	// Name is the name that the build shows. No two scripts have the same.
	Name string `yaml:"name" check:"script-name"`
	// Run is the script's text. Without a #! line it is run by /bin/sh -e.
	Run string `yaml:"run,omitempty" check:"text" only:"script"`
	// File is a script of the build host.
	File string `yaml:"file,omitempty" check:"host-path" only:"script"`
	// Network gives the script the build host's network.
	Network bool `yaml:"network,omitempty" default:"false"`
}

// MachineScript is one script that is stored in the image and runs on each machine, as root. Exactly one of run and file
// says what runs. It finds the metadata that the server holds for the machine as JSON in the file that IMGBUILD_METADATA
// names, and its texts, numbers and booleans as IMGBUILD_META_KEY, with KEY in capitals; the machine's serial number is
// IMGBUILD_SERIAL. Without a server there is no metadata.
type MachineScript struct {
	// Name is the name that the machine shows. No two scripts of the same kind have the same.
	Name string `yaml:"name" check:"script-name"`
	// Run is the script's text. Without a #! line it is run by /bin/sh -e.
	Run string `yaml:"run,omitempty" check:"text" only:"script"`
	// File is a script of the build host; it is copied into the image.
	File string `yaml:"file,omitempty" check:"host-path" only:"script"`
}

// Pack says how hard the root file system is compressed.
type Pack struct {
	// Level sets what the keys below do not: fast is zstd 3 with blocks of 128KiB, normal zstd 9 with 256KiB, release zstd 15 with 1MiB.
	Level string `yaml:"level,omitempty" check:"pack-level" default:"normal"`
	// Compressor is squashfs's. The installer reads them all; the image runs live where its own kernel does, and that of EL7 mounts no
	// zstd. Default: zstd, and xz for EL7.
	Compressor string `yaml:"compressor,omitempty" check:"compressor"`
	// CompressionLevel is 1 to 22 for zstd and 1 to 9 for gzip; xz and lz4 have none.
	CompressionLevel int `yaml:"compression_level,omitempty" check:"compression-level"`
	// BlockSize is squashfs's block size: a power of two from 4KiB to 1MiB.
	BlockSize string `yaml:"block_size,omitempty" check:"block-size"`
	// Exclude are paths that are not packed, as globs from the root of the image.
	Exclude []string `yaml:"exclude,omitempty" check:"image-glob"`
}

// Torrent is what the release's rootfs.torrent says besides what the root file system is.
type Torrent struct {
	// Trackers are addresses of trackers, asked one after the other until one answers.
	Trackers []string `yaml:"trackers,omitempty" check:"tracker"`
	// WebSeeds are addresses of directories of releases on web servers: BitTorrent clients find the root file system as
	// NAME/VERSION/rootfs.squashfs below.
	WebSeeds []string `yaml:"web_seeds,omitempty" check:"web-seed"`
}

// Initramfs is what goes into the mini initramfs besides the installer.
type Initramfs struct {
	// Network are classes of network drivers: server has every server NIC, virtual those of hypervisors. Default: server.
	Network []string `yaml:"network,omitempty" check:"driver-class"`
	// Storage are classes of disk drivers: server has every server's controller, virtual those of hypervisors. Default: server.
	Storage []string `yaml:"storage,omitempty" check:"driver-class"`
	// Tools are further programs for making file systems and volumes, with their kernel modules and the packages that the
	// installed system needs for the same. Those that the profile's own layout needs are there anyway; machines whose layouts
	// the registry holds may need more.
	Tools []string `yaml:"tools,omitempty" check:"layout-tool"`
	// Modules are further kernel modules.
	Modules []string `yaml:"modules,omitempty" check:"module"`
	// Firmware are further firmware files, as globs below /lib/firmware.
	Firmware []string `yaml:"firmware,omitempty" check:"firmware-glob"`
	// CACerts are files of the build host with the CAs, in PEM form, that the installer checks web servers' certificates against, besides
	// those of the image.
	CACerts []string `yaml:"cacerts,omitempty" check:"host-path"`
	// Compression is the initramfs's: auto is zstd where the image's kernel can, else xz.
	Compression string `yaml:"compression,omitempty" check:"initramfs-compression" default:"auto"`
	// Torrent puts in an installer that can fetch by BitTorrent; it is larger, and the build says by how much. Without it machines
	// install over HTTP and from each other. Default: true if network or storage has server.
	Torrent *bool `yaml:"torrent,omitempty"`
	// Shell puts a rescue shell in, which is started only when imgbuild.onerror=shell asks for it.
	Shell *bool `yaml:"shell,omitempty" default:"false"`
}
