package configure

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"imgbuild/builder/tree"
	"imgbuild/profiles"
)

// System writes time zone, locale, keyboard, host name, SELinux mode, sysctl, kernel modules and arguments.
func System(t *tree.Tree, p *profiles.Profile) error {
	return errors.Join(
		timezone(t, p.System.Timezone),
		t.WriteFile("/etc/hostname", []byte(p.System.Hostname+"\n"), tree.RootFile()),
		setLines(t, "/etc/locale.conf", map[string]string{"LANG": p.System.Locale}, true),
		setLines(t, "/etc/vconsole.conf", map[string]string{"KEYMAP": p.System.Keyboard}, true),
		selinux(t, p.System.SELinux),
		firewall(t, p.System.Firewall),
		kernel(t, p),
		defaultTarget(t, p.Services.Target),
		keepRepositories(t, p),
	)
}

func timezone(t *tree.Tree, zone string) error {
	if !t.Exists(path.Join("/usr/share/zoneinfo", zone)) {
		return fmt.Errorf("set the time zone: the image has no /usr/share/zoneinfo/%s; check the name, or add the package tzdata", zone)
	}
	return t.Symlink("../usr/share/zoneinfo/"+zone, "/etc/localtime")
}

// setLines sets KEY=value lines in a file and leaves every other line as it is. Without create, a file that is not there
// is an error.
func setLines(t *tree.Tree, name string, values map[string]string, create bool) error {
	data, err := t.ReadFile(name)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || !create) {
		return fmt.Errorf("change %s in the image: %w", name, err)
	}
	meta := tree.RootFile()
	if st, err := t.Stat(name); err == nil {
		meta.Mode = st.Mode().Perm()
	}
	var out strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		key, _, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		value, ours := values[key]
		switch {
		case !ok || !ours:
			out.WriteString(strings.TrimRight(line, "\n") + "\n")
		case !seen[key]:
			out.WriteString(key + "=" + value + "\n")
			seen[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !seen[key] {
			out.WriteString(key + "=" + values[key] + "\n")
		}
	}
	return t.WriteFile(name, []byte(out.String()), meta)
}

// selinux sets the mode. An image without SELinux keeps having none.
func selinux(t *tree.Tree, mode string) error {
	const file = "/etc/selinux/config"
	if !t.Exists(file) {
		if mode == "disabled" || !t.Exists("/etc/selinux") {
			return nil
		}
	}
	return setLines(t, file, map[string]string{"SELINUX": mode}, true)
}

// Policy returns the SELinux policy that the image would load, e.g. targeted, or "" if it has none.
func Policy(t *tree.Tree) string {
	policy := "targeted"
	data, err := t.ReadFile("/etc/selinux/config")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok {
			policy = strings.TrimSpace(v)
		}
	}
	if !t.Exists(path.Join("/etc/selinux", policy, "contexts/files/file_contexts")) {
		return ""
	}
	return policy
}

// firewall writes firewalld's default zone with the services and ports of the profile.
func firewall(t *tree.Tree, f profiles.Firewall) error {
	if f.Enabled == nil || !*f.Enabled {
		return nil
	}
	if !t.Exists("/usr/lib/firewalld") {
		return errors.New("configure the firewall: the image has no firewalld; add the package firewalld, or set system.firewall.enabled to false")
	}
	zone := f.Zone
	if zone == "" {
		zone = "public"
	}
	if f.Zone != "" {
		if err := setLines(t, "/etc/firewalld/firewalld.conf", map[string]string{"DefaultZone": zone}, true); err != nil {
			return err
		}
	}
	if len(f.Services) == 0 && len(f.Ports) == 0 {
		return nil
	}
	own := "/etc/firewalld/zones/" + zone + ".xml"
	from := t.First(own, "/usr/lib/firewalld/zones/"+zone+".xml")
	text := "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone>\n  <short>" + zone + "</short>\n</zone>\n"
	if from != "" {
		data, err := t.ReadFile(from)
		if err != nil {
			return fmt.Errorf("configure the firewall: %w", err)
		}
		text = string(data)
	}
	text, err := zoneWith(t, text, f)
	if err != nil {
		return fmt.Errorf("configure the firewall's zone %s: %w", zone, err)
	}
	return t.WriteFile(own, []byte(text), tree.RootFile())
}

// zoneWith adds services and ports that are not there yet before the end of a zone's XML.
func zoneWith(t *tree.Tree, text string, f profiles.Firewall) (string, error) {
	before, after, ok := strings.Cut(text, "</zone>")
	if !ok {
		return "", errors.New("its file has no </zone>")
	}
	var add strings.Builder
	for _, s := range f.Services {
		if t.First("/usr/lib/firewalld/services/"+s+".xml", "/etc/firewalld/services/"+s+".xml") == "" {
			return "", fmt.Errorf("firewalld has no service %s", s)
		}
		if line := `<service name="` + s + `"/>`; !strings.Contains(before, line) {
			add.WriteString("  " + line + "\n")
		}
	}
	for _, p := range f.Ports {
		number, protocol, ok := strings.Cut(p, "/")
		if !ok {
			return "", fmt.Errorf("the port %s has no protocol; write it as 8080/tcp", p)
		}
		add.WriteString(`  <port protocol="` + protocol + `" port="` + number + "\"/>\n")
	}
	return strings.TrimRight(before, " \t\n") + "\n" + add.String() + "</zone>" + after, nil
}

// Arguments are the installed system's kernel arguments: the profile's, the consoles, and SELinux switched off where it
// is disabled (since EL9 the configuration file alone does not do that).
func Arguments(p *profiles.Profile) []string {
	args := slices.Clone(p.Kernel.Args)
	has := func(prefix string) bool {
		return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, prefix) })
	}
	if p.Kernel.Serial != "" && !has("console=") {
		args = append(args, "console=tty0", "console="+p.Kernel.Serial)
	}
	if p.System.SELinux == "disabled" && p.Distro.Major >= 9 && !has("selinux=") {
		args = append(args, "selinux=0")
	}
	return args
}

func kernel(t *tree.Tree, p *profiles.Profile) error {
	write := func(name string, lines []string) error {
		if len(lines) == 0 {
			return nil
		}
		return t.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), tree.RootFile())
	}
	var sysctl, modprobe []string
	for _, k := range slices.Sorted(maps.Keys(p.System.Sysctl)) {
		sysctl = append(sysctl, k+" = "+p.System.Sysctl[k])
	}
	for _, m := range p.Kernel.Blacklist {
		modprobe = append(modprobe, "blacklist "+m)
	}
	for _, m := range slices.Sorted(maps.Keys(p.Kernel.Options)) {
		modprobe = append(modprobe, "options "+m+" "+p.Kernel.Options[m])
	}
	grub := map[string]string{
		"GRUB_TIMEOUT": "5", "GRUB_DEFAULT": "saved", "GRUB_DISABLE_SUBMENU": "true", "GRUB_DISABLE_RECOVERY": `"true"`,
		"GRUB_CMDLINE_LINUX": quote(strings.Join(Arguments(p), " ")),
	}
	if p.Distro.Major >= 8 {
		grub["GRUB_ENABLE_BLSCFG"] = "true"
	}
	return errors.Join(
		write("/etc/sysctl.d/90-imgbuild.conf", sysctl),
		write("/etc/modules-load.d/imgbuild.conf", p.Kernel.Modules),
		write("/etc/modprobe.d/imgbuild.conf", modprobe),
		setLines(t, "/etc/default/grub", grub, true),
	)
}

// quote writes a value as the shell reads it between double quotes.
func quote(s string) string {
	return `"` + regexp.MustCompile("[\"\\\\$`]").ReplaceAllString(s, `\$0`) + `"`
}

func defaultTarget(t *tree.Tree, target string) error {
	for _, dir := range []string{"/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"} {
		if t.Exists(path.Join(dir, target)) {
			return t.Symlink(path.Join(dir, target), "/etc/systemd/system/default.target")
		}
	}
	return fmt.Errorf("set the default target: the image has no systemd unit %s", target)
}

// keepRepositories writes .repo files and keys of the repositories that the installed system is to keep.
func keepRepositories(t *tree.Tree, p *profiles.Profile) error {
	for _, id := range slices.Sorted(maps.Keys(p.Repositories)) {
		r := p.Repositories[id]
		if !r.Keep {
			continue
		}
		key := "/etc/pki/rpm-gpg/RPM-GPG-KEY-imgbuild-" + id
		var armored []byte
		for _, k := range r.GPGKeys {
			data, err := k.Armored()
			if err != nil {
				return fmt.Errorf("keep repository %s: %w", id, err)
			}
			armored = append(append(armored, data...), '\n')
		}
		var b strings.Builder
		fmt.Fprintf(&b, "[%s]\nname=%s\n", id, r.Name)
		for _, l := range []struct{ key, value string }{
			{"baseurl", strings.Join(r.BaseURL, " ")}, {"mirrorlist", r.MirrorList}, {"metalink", r.Metalink},
			{"excludepkgs", strings.Join(r.Exclude, ",")}, {"includepkgs", strings.Join(r.Include, ",")},
		} {
			if l.value != "" {
				fmt.Fprintf(&b, "%s=%s\n", l.key, l.value)
			}
		}
		fmt.Fprintf(&b, "enabled=1\ngpgcheck=1\ngpgkey=file://%s\n", key)
		if r.Priority != 0 && r.Priority != 99 {
			fmt.Fprintf(&b, "priority=%d\n", r.Priority)
		}
		if err := errors.Join(
			t.WriteFile(key, armored, tree.RootFile()),
			t.WriteFile("/etc/yum.repos.d/imgbuild-"+id+".repo", []byte(b.String()), tree.RootFile()),
		); err != nil {
			return err
		}
		for name, value := range p.Distro.Vars {
			if err := t.WriteFile(path.Join("/etc/dnf/vars", name), []byte(value+"\n"), tree.RootFile()); err != nil {
				return err
			}
		}
	}
	return nil
}
