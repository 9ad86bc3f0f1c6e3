package profiles

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"imgbuild/profiles/strict"
)

// distro finds what the distribution's release does not have.
func (x *crossChecker) distro() {
	d := x.p.Distro
	if d.Release == "" || x.isBad("distro", "major") {
		return
	}
	if m := releaseMajor(d.Release); m < 7 || m > 10 {
		x.at([]string{"distro", "release"}, "distro.release is %s; the releases 7 to 10 are known", strict.Clip(d.Release))
		return
	} else if d.Major != m {
		x.contradict([]string{"distro", "major"}, []string{"distro", "release"}, "distro.major is %d, and the release is %s", d.Major, d.Release)
		return
	}
	switch {
	case d.ID == "centos-stream" && d.Major < 8:
		x.at([]string{"distro", "id"}, "distro.id is centos-stream, which begins with release 8; CentOS 7 is centos")
	case d.ID == "centos" && d.Major > 8:
		x.at([]string{"distro", "id"}, "distro.id is centos, which ends with release 8; release %d is centos-stream", d.Major)
	case (d.ID == "rocky" || d.ID == "almalinux") && d.Major < 8:
		x.at([]string{"distro", "id"}, "distro.id is %s, which begins with release 8", d.ID)
	}
	if len(x.p.Packages.Modules) > 0 && d.Major != 8 && d.Major != 9 {
		x.at([]string{"packages", "modules"}, "packages.modules: EL%d has no module streams; EL8 and EL9 have them", d.Major)
	}
	switch {
	case d.Major == 10 && x.p.System.Network == "ifcfg":
		x.at([]string{"system", "network"}, "system.network is ifcfg, which NetworkManager of EL10 does not read; take nm-keyfile")
	case d.Major == 7 && x.p.System.Network == "nm-keyfile":
		x.at([]string{"system", "network"}, "system.network is nm-keyfile, which EL7's network scripts do not read; take ifcfg")
	}
	if d.Major == 7 && x.p.Initramfs.Compression == "zstd" {
		x.at([]string{"initramfs", "compression"}, "initramfs.compression is zstd, which the kernel of EL7 cannot unpack; take auto, xz or gzip")
	}
	if d.Major == 7 {
		x.crypt7([]string{"root", "password"}, x.p.Root.Password)
		for _, name := range slices.Sorted(maps.Keys(x.p.Users)) {
			x.crypt7([]string{"users", name, "password"}, x.p.Users[name].Password)
		}
	}
}

// crypt7 reports hashes that glibc 2.17 of EL7 does not know.
func (x *crossChecker) crypt7(path []string, hash string) {
	if hash != "" && !strings.HasPrefix(hash, "$5$") && !strings.HasPrefix(hash, "$6$") {
		x.at(path, "%s is a hash that EL7 does not know; make one with `openssl passwd -6`", keyPath(path))
	}
}

var dnfVariable = regexp.MustCompile(`\$(?:\{([A-Za-z0-9_]*)\}|([A-Za-z0-9_]+))`)

func (x *crossChecker) repositories() {
	known := append([]string{"releasever", "basearch", "arch"}, slices.Sorted(maps.Keys(x.p.Distro.Vars))...)
	for _, id := range slices.Sorted(maps.Keys(x.p.Repositories)) {
		r := x.p.Repositories[id]
		path := []string{"repositories", id}
		if len(r.GPGKeys) == 0 && !x.isBad(append(path, "gpgkeys")...) && !x.isBad(path...) {
			x.at(append(path, "gpgkeys"), "%s has no gpgkeys; packages are installed only with a checked signature", keyPath(path))
		}
		for i, u := range r.BaseURL {
			x.variables([]string{"repositories", id, "baseurl", strconv.Itoa(i)}, u, known)
		}
		x.variables([]string{"repositories", id, "mirrorlist"}, r.MirrorList, known)
		x.variables([]string{"repositories", id, "metalink"}, r.Metalink, known)
	}
}

// variables reports variables of an address that dnf would leave as they are.
func (x *crossChecker) variables(path []string, address string, known []string) {
	for _, m := range dnfVariable.FindAllStringSubmatch(address, -1) {
		if name := m[1] + m[2]; !slices.Contains(known, name) {
			x.at(path, "%s has the variable $%s, which distro.vars does not give%s", label(path), name, strict.DidYouMean(name, known))
		}
	}
}

func (x *crossChecker) accounts() {
	x.rootAccount()
	uids, gids := map[int]string{}, map[int]string{}
	for _, name := range slices.Sorted(maps.Keys(x.p.Users)) {
		u := x.p.Users[name]
		path := []string{"users", name}
		if name == "root" {
			x.at(path, "users has root; root is the key root: of the profile itself")
			continue
		}
		if u.Sudo == "all" && u.Password == "" && !x.isBad(append(path, "password")...) {
			x.at(append(path, "sudo"), "users.%s.sudo is all, which asks for a password, and the user has none; take nopasswd or give a password", name)
		}
		if u.UID == nil {
			continue
		}
		if other, twice := uids[*u.UID]; twice {
			x.contradict(append(path, "uid"), []string{"users", other, "uid"}, "the users %s and %s have the same uid %d", other, name, *u.UID)
		}
		uids[*u.UID] = name
	}
	for _, name := range slices.Sorted(maps.Keys(x.p.Groups)) {
		g := x.p.Groups[name]
		if g.GID == nil {
			continue
		}
		if other, twice := gids[*g.GID]; twice {
			x.contradict([]string{"groups", name, "gid"}, []string{"groups", other, "gid"}, "the groups %s and %s have the same gid %d", other, name, *g.GID)
		}
		gids[*g.GID] = name
	}
	f := x.p.System.Firewall
	if f.Enabled != nil && !*f.Enabled && (f.Zone != "" || len(f.Services) > 0 || len(f.Ports) > 0) {
		x.at([]string{"system", "firewall", "enabled"}, "system.firewall.enabled is false, and the firewall is configured; take one of the two out")
	}
}

func (x *crossChecker) rootAccount() {
	r := x.p.Root
	locked := []string{"root", "locked"}
	switch {
	case x.isBad("root", "password"), x.isBad(locked...):
	case *r.Locked && r.Password != "":
		x.contradict(locked, []string{"root", "password"}, "root has a password and is locked; %s", x.remedy(locked, []string{"root", "password"}, "password: !reset"))
	case !*r.Locked && r.Password == "":
		x.at(locked, "root.locked is false and root has no password, so anybody could log in as root; give root.password")
	}
}
