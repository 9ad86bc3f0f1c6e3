package profiles

// Profile is a profile after inheritance and merging: what an image is to be. Zero values mean "not said", and
// Defaults fills them. The yaml tags are the keys that people write.
type Profile struct {
	// Extends names the profile that this one adds to: a shipped profile by name, or a file relative to this one.
	Extends string `yaml:"extends,omitempty"`
	// Name is the image's name: small letters, digits, dots, dashes. Default: the file's name without .yaml.
	Name string `yaml:"name"`
	// Version is the image's version. Default: "1".
	Version string `yaml:"version"`
	// Description says in one line what the image is for.
	Description string `yaml:"description,omitempty"`
	// Arch is x86_64 (default) or aarch64.
	Arch string `yaml:"arch"`
	// Distro says which distribution and major release this is.
	Distro Distro `yaml:"distro"`
	// Repositories are dnf repositories by ID.
	Repositories map[string]Repository `yaml:"repositories"`
	Packages     Packages              `yaml:"packages"`
	// Users are accounts by login name. Root has its own key.
	Users map[string]User `yaml:"users,omitempty"`
	// Groups are groups by name; the value gives the GID.
	Groups map[string]Group `yaml:"groups,omitempty"`
	Root   Root             `yaml:"root"`
	// Sudo are sudoers rules by file name below /etc/sudoers.d; checked with visudo when the image has it.
	Sudo     map[string]string `yaml:"sudo,omitempty"`
	Services Services          `yaml:"services"`
	System   System            `yaml:"system"`
	Kernel   Kernel            `yaml:"kernel"`
	// Files are files, directories and links by absolute path in the image.
	Files map[string]File `yaml:"files,omitempty"`
	// Scripts run in the chroot, in order, after everything else is configured.
	Scripts   []Script  `yaml:"scripts,omitempty"`
	Disk      Disk      `yaml:"disk"`
	Pack      Pack      `yaml:"pack"`
	Initramfs Initramfs `yaml:"initramfs"`

	// Dir is the directory that relative paths in this profile start from; the loader rewrites the paths of a
	// profile it inherits from to absolute ones.
	Dir string `yaml:"-"`
	// Sources are the files that this profile was made from, the first ancestor first; shipped ones as "shipped:NAME".
	Sources []string `yaml:"-"`
}

// Distro is the distribution of the image.
type Distro struct {
	// ID is centos-stream, centos, rocky, almalinux, rhel or standin.
	ID string `yaml:"id"`
	// Release is dnf's $releasever: "9", "10", "7".
	Release string `yaml:"release"`
	// Major is the EL major release that decides how things are done: 7, 8, 9 or 10. Default: from Release.
	Major int `yaml:"major,omitempty"`
	// Vars are further dnf variables, e.g. stream: 9-stream.
	Vars map[string]string `yaml:"vars,omitempty"`
}

// Repository is one dnf repository. Exactly one of BaseURL, MirrorList and Metalink says where it is.
type Repository struct {
	Name       string   `yaml:"name,omitempty"`
	BaseURL    []string `yaml:"baseurl,omitempty"`
	MirrorList string   `yaml:"mirrorlist,omitempty"`
	Metalink   string   `yaml:"metalink,omitempty"`
	// GPGKeys are the keys that sign this repository's packages. There is at least one: gpgcheck is never off.
	GPGKeys []GPGKey `yaml:"gpgkeys,omitempty"`
	// CheckMetadata also demands a signature over the repository's metadata (repo_gpgcheck).
	CheckMetadata bool `yaml:"check_metadata,omitempty"`
	// Priority is 1 (first) to 99 (default).
	Priority int `yaml:"priority,omitempty"`
	// Exclude and Include are package globs.
	Exclude []string `yaml:"exclude,omitempty"`
	Include []string `yaml:"include,omitempty"`
	// Enabled is true unless said otherwise.
	Enabled *bool `yaml:"enabled,omitempty"`
	// Keep leaves the repository's own .repo file for the installed system to the image's packages; when true a .repo
	// file for this repository is written into the image.
	Keep bool `yaml:"keep,omitempty"`
	// CACert is a file with the CA that the server's certificate is checked against.
	CACert string `yaml:"cacert,omitempty"`
}

// GPGKey is one public key. Exactly one of Shipped and File says where it is.
type GPGKey struct {
	// Shipped is the name of a key that comes with the profiles.
	Shipped string `yaml:"shipped,omitempty"`
	File    string `yaml:"file,omitempty"`
	// Fingerprint is the primary key's fingerprint, 40 or 64 hex digits, blanks allowed. Demanded for shipped keys.
	Fingerprint string `yaml:"fingerprint,omitempty"`
}

// Packages says what is installed.
type Packages struct {
	// Install are package names, globs, @groups or @^environments.
	Install []string `yaml:"install,omitempty"`
	// Exclude are packages that are never installed.
	Exclude []string `yaml:"exclude,omitempty"`
	// WeakDeps installs recommended packages too. Default: false.
	WeakDeps *bool `yaml:"weak_deps,omitempty"`
	// Docs installs files marked as documentation. Default: false.
	Docs *bool `yaml:"docs,omitempty"`
	// Languages are the locales to keep (%_install_langs), e.g. [en_US]; empty means all.
	Languages []string `yaml:"languages,omitempty"`
	// Modules are module streams to enable (EL8 and EL9), e.g. "nodejs:20".
	Modules []string `yaml:"modules,omitempty"`
}

// User is one account.
type User struct {
	UID *int `yaml:"uid,omitempty"`
	// Group is the primary group's name. Default: a group of the user's name.
	Group  string   `yaml:"group,omitempty"`
	Groups []string `yaml:"groups,omitempty"`
	// Password is a crypt(5) hash such as $6$…; empty means locked. A plain password is refused.
	Password string   `yaml:"password,omitempty"`
	SSHKeys  []string `yaml:"ssh_keys,omitempty"`
	Home     string   `yaml:"home,omitempty"`
	Shell    string   `yaml:"shell,omitempty"`
	Comment  string   `yaml:"comment,omitempty"`
	System   bool     `yaml:"system,omitempty"`
	// Sudo is a rule for this user: "all", "nopasswd" or empty for none.
	Sudo string `yaml:"sudo,omitempty"`
}

// Group is one group.
type Group struct {
	GID    *int `yaml:"gid,omitempty"`
	System bool `yaml:"system,omitempty"`
}

// Root is the root account. Default: locked.
type Root struct {
	Password string   `yaml:"password,omitempty"`
	Locked   *bool    `yaml:"locked,omitempty"`
	SSHKeys  []string `yaml:"ssh_keys,omitempty"`
}

// Services are systemd units.
type Services struct {
	Enable  []string `yaml:"enable,omitempty"`
	Disable []string `yaml:"disable,omitempty"`
	Mask    []string `yaml:"mask,omitempty"`
	// Target is the default target. Default: multi-user.target.
	Target string `yaml:"target,omitempty"`
}

// System is what the installed system is like everywhere.
type System struct {
	Timezone string   `yaml:"timezone,omitempty"` // e.g. Europe/Berlin; default UTC
	Locale   string   `yaml:"locale,omitempty"`   // default C.UTF-8 (EL7: en_US.UTF-8)
	Keyboard string   `yaml:"keyboard,omitempty"` // default us
	Hostname string   `yaml:"hostname,omitempty"` // default localhost.localdomain
	SELinux  string   `yaml:"selinux,omitempty"`  // enforcing (default), permissive, disabled
	Firewall Firewall `yaml:"firewall,omitempty"`
	// Network is nm-keyfile, ifcfg or networkd. Default: ifcfg on EL7, else nm-keyfile.
	Network string `yaml:"network,omitempty"`
	// Sysctl are kernel parameters, written to /etc/sysctl.d/90-imgbuild.conf.
	Sysctl map[string]string `yaml:"sysctl,omitempty"`
}

// Firewall is firewalld's default zone.
type Firewall struct {
	Enabled  *bool    `yaml:"enabled,omitempty"`
	Zone     string   `yaml:"zone,omitempty"`
	Services []string `yaml:"services,omitempty"`
	Ports    []string `yaml:"ports,omitempty"` // e.g. 8080/tcp
}

// Kernel is the kernel and how it is started.
type Kernel struct {
	// Package is the package whose kernel is booted. Default: kernel.
	Package string `yaml:"package,omitempty"`
	// Args are kernel arguments of the installed system.
	Args []string `yaml:"args,omitempty"`
	// Serial is the serial console, e.g. ttyS0,115200n8; empty means none.
	Serial string `yaml:"serial,omitempty"`
	// Modules are loaded at boot; Blacklist are never loaded automatically; Options are module options by module.
	Modules   []string          `yaml:"modules,omitempty"`
	Blacklist []string          `yaml:"blacklist,omitempty"`
	Options   map[string]string `yaml:"options,omitempty"`
}

// File is one file, directory or symbolic link. Exactly one of Content, Source, Template, Link and Directory says what.
type File struct {
	Content *string `yaml:"content,omitempty"`
	// Source is a path on the build host; a directory is copied whole.
	Source string `yaml:"source,omitempty"`
	// Template is a Go text/template, inline, given the profile and Vars.
	Template  *string           `yaml:"template,omitempty"`
	Vars      map[string]string `yaml:"vars,omitempty"`
	Link      string            `yaml:"link,omitempty"`
	Directory bool              `yaml:"directory,omitempty"`
	// Mode is octal in quotes, e.g. "0644" (default; directories and executables "0755").
	Mode  string `yaml:"mode,omitempty"`
	Owner string `yaml:"owner,omitempty"` // default root
	Group string `yaml:"group,omitempty"` // default root
}

// Script is one build script.
type Script struct {
	Name string `yaml:"name"`
	// Run is the script's text; it starts with a #! line, else it is run by /bin/sh -e in the chroot.
	Run string `yaml:"run,omitempty"`
	// File is a script on the build host.
	File string `yaml:"file,omitempty"`
	// Network gives the script the build host's network. Default: none.
	Network bool `yaml:"network,omitempty"`
}

// Disk is the default layout of the disk that the image is installed to: BIOS boot, ESP, /boot and root.
type Disk struct {
	// Filesystem is root's: xfs (default) or ext4.
	Filesystem string `yaml:"filesystem,omitempty"`
	// BootSize, ESPSize: e.g. 1GiB (default), 512MiB (default).
	BootSize string `yaml:"boot_size,omitempty"`
	ESPSize  string `yaml:"esp_size,omitempty"`
	// RootMin is the least size of the root partition, which takes the rest of the disk. Default: from the image's size.
	RootMin string `yaml:"root_min,omitempty"`
	// MountOptions are root's mount options in fstab. Default: defaults.
	MountOptions string `yaml:"mount_options,omitempty"`
}

// Pack says how hard the root file system is compressed.
type Pack struct {
	// Level is fast, normal (default) or release; it sets what Compressor, CompressionLevel and BlockSize do not.
	Level            string `yaml:"level,omitempty"`
	Compressor       string `yaml:"compressor,omitempty"` // zstd (default), xz, gzip, lz4
	CompressionLevel int    `yaml:"compression_level,omitempty"`
	BlockSize        string `yaml:"block_size,omitempty"` // 4KiB to 1MiB
	// Exclude are paths that are not packed, as globs from the root of the image.
	Exclude []string `yaml:"exclude,omitempty"`
}

// Initramfs is what goes into the mini initramfs besides the installer.
type Initramfs struct {
	// Network and Storage are classes: server (default: every server NIC and storage driver) or virtual.
	Network []string `yaml:"network,omitempty"`
	Storage []string `yaml:"storage,omitempty"`
	// Modules and Firmware are further modules, and firmware files as globs below /lib/firmware.
	Modules  []string `yaml:"modules,omitempty"`
	Firmware []string `yaml:"firmware,omitempty"`
	// Compression is auto (default), zstd, xz or gzip.
	Compression string `yaml:"compression,omitempty"`
	// Shell puts a rescue shell in, which is started only when imgbuild.onerror=shell asks for it. Default: false.
	Shell *bool `yaml:"shell,omitempty"`
}
