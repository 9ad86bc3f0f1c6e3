// Package dnf drives the build host's dnf. In go a profile's repositories and packages; out come the configuration files
// dnf reads instead of the host's, its command lines, its progress and mistakes as a person would say them, and the lock
// of what was chosen.
//
// It never lets dnf or rpm read the host's configuration, and never turns off the check of a signature.
package dnf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"imgbuild/profiles"
)

// Private is the directory, below an installation's root, where dnf's cache, state and log are shown while it runs: dnf
// puts these below the installation's root whatever its configuration says.
const Private = "/.imgbuild"

// Config is what dnf is told.
type Config struct {
	Distro       profiles.Distro
	Arch         string
	Repositories map[string]profiles.Repository
	Packages     profiles.Packages
	// Keys are the files with each repository's GPG keys.
	Keys map[string][]string
}

// WithOverride returns the repositories that are enabled, each at the address that override gives for it, if any.
func WithOverride(repos map[string]profiles.Repository, override map[string]string) (map[string]profiles.Repository, error) {
	out := map[string]profiles.Repository{}
	for id, r := range repos {
		if r.Enabled != nil && !*r.Enabled {
			continue
		}
		out[id] = r
	}
	for id, url := range override {
		r, ok := repos[id]
		if !ok {
			return nil, fmt.Errorf("use %s for repository %s: the profile has no such repository, only %s", url, id, strings.Join(slices.Sorted(maps.Keys(repos)), ", "))
		}
		r.BaseURL, r.MirrorList, r.Metalink = []string{url}, "", ""
		out[id] = r
	}
	return out, nil
}

// Text returns dnf.conf with all repositories. Directory is where the configuration lies.
func (c Config) Text(directory string) string {
	var b strings.Builder
	set := func(key, format string, a ...any) { fmt.Fprintf(&b, "%s=%s\n", key, fmt.Sprintf(format, a...)) }
	flag := func(v bool) string {
		if v {
			return "1"
		}
		return "0"
	}
	b.WriteString("[main]\n")
	set("gpgcheck", "1")
	set("localpkg_gpgcheck", "1")
	set("reposdir", "%s/none", directory)
	set("varsdir", "%s/vars", directory)
	set("pluginconfpath", "%s/none", directory)
	set("plugins", "0")
	set("cachedir", "%s/cache", Private)
	set("persistdir", "%s/persist", Private)
	set("logdir", "%s/log", Private)
	set("system_cachedir", "%s/cache", Private)
	set("keepcache", "1")
	set("metadata_expire", "-1") // Refresh asks for what is new, once a build
	set("best", "1")
	set("strict", "1")
	set("skip_if_unavailable", "0")
	set("install_weak_deps", "%s", flag(isTrue(c.Packages.WeakDeps)))
	set("module_platform_id", "platform:el%d", c.Distro.Major)
	set("assumeyes", "1")
	set("color", "never")
	set("retries", "5")
	set("timeout", "30")
	set("max_parallel_downloads", "8")
	set("zchunk", "0")
	if !isTrue(c.Packages.Docs) {
		set("tsflags", "nodocs")
	}
	if len(c.Packages.Exclude) > 0 {
		set("excludepkgs", "%s", strings.Join(c.Packages.Exclude, ","))
	}
	for _, id := range slices.Sorted(maps.Keys(c.Repositories)) {
		c.repository(&b, id, c.Repositories[id])
	}
	return b.String()
}

func (c Config) repository(b *strings.Builder, id string, r profiles.Repository) {
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(b, "%s=%s\n", key, value)
		}
	}
	name := r.Name
	if name == "" {
		name = id
	}
	fmt.Fprintf(b, "\n[%s]\n", id)
	line("name", name)
	line("baseurl", strings.Join(r.BaseURL, "\n        "))
	line("mirrorlist", r.MirrorList)
	line("metalink", r.Metalink)
	line("enabled", "1")
	line("gpgcheck", "1")
	if r.CheckMetadata {
		line("repo_gpgcheck", "1")
	}
	var keys []string
	for _, k := range c.Keys[id] {
		keys = append(keys, "file://"+k)
	}
	line("gpgkey", strings.Join(keys, "\n       "))
	if r.Priority != 0 {
		line("priority", fmt.Sprint(r.Priority))
	}
	line("excludepkgs", strings.Join(r.Exclude, ","))
	line("includepkgs", strings.Join(r.Include, ","))
	line("sslcacert", r.CACert)
}

// DatabasePath is where rpm keeps its database in an EL major release.
func DatabasePath(major int) string {
	if major >= 10 {
		return "/usr/lib/sysimage/rpm"
	}
	return "/var/lib/rpm"
}

// NeedsOwnDatabase reports whether a major release's rpm cannot read the database that the host's rpm writes (sqlite),
// so that it has to write its own.
func NeedsOwnDatabase(major int) bool { return major <= 8 }

// Macros returns ~/.rpmmacros: rpm reads it last, so it has the last word over the host's macros. Debian's rpm, for
// one, would otherwise keep the database in the home directory.
func (c Config) Macros() string {
	var b strings.Builder
	path := DatabasePath(c.Distro.Major)
	fmt.Fprintf(&b, "%%_dbpath %s\n%%_dbpath_rebuild %s\n%%_db_backend sqlite\n", path, path)
	fmt.Fprintf(&b, "%%_keyring rpmdb\n%%_pkgverify_level signature\n%%_build_id_links none\n")
	if len(c.Packages.Languages) > 0 {
		fmt.Fprintf(&b, "%%_install_langs %s\n", strings.Join(c.Packages.Languages, ":"))
	} else {
		b.WriteString("%_install_langs all\n")
	}
	return b.String()
}

// Variables returns dnf's variables by name.
func (c Config) Variables() map[string]string { return c.Distro.Vars }

// Specs returns what dnf is asked to install, in the order of the profile, each once.
func (c Config) Specs() []string {
	var out []string
	for _, p := range c.Packages.Install {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func isTrue(b *bool) bool { return b != nil && *b }
