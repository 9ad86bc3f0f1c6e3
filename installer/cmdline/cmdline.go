// Package cmdline turns the kernel's command line into what the installer is asked to do. The text of /proc/cmdline
// comes in; typed arguments, warnings and errors go out.
//
// Everything that is wrong is found before anything is touched: a malformed or contradictory argument is an error, an
// unknown one a warning. The package reads no files and never guesses what a person meant.
package cmdline

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

// Prefix starts every argument that is the installer's.
const Prefix = "imgbuild."

// Mode is what the machine is to do.
type Mode string

// The modes. ModeInstall writes an image onto disks; with a server, it does what the server's plan says. ModePreview says
// what an installation would erase and write; ModeInspect says to a server what the machine is; ModeLive runs the image from memory;
// ModeCheck says whether all of a medium is as it was written. Only ModeInstall writes to a disk, whatever the plan says.
const (
	ModeInstall Mode = "install"
	ModePreview Mode = "preview"
	ModeInspect Mode = "inspect"
	ModeLive    Mode = "live"
	ModeCheck   Mode = "check"
)

// OnError is what happens after a failure.
type OnError string

// What can happen after a failure. OnErrorWait reboots after a countdown that a key press stops.
const (
	OnErrorWait     OnError = "wait"
	OnErrorReboot   OnError = "reboot"
	OnErrorPoweroff OnError = "poweroff"
	OnErrorShell    OnError = "shell"
)

// Done is what happens after success.
type Done string

// What can happen after success. DoneKexec starts the installed kernel without the firmware.
const (
	DoneReboot   Done = "reboot"
	DoneKexec    Done = "kexec"
	DonePoweroff Done = "poweroff"
	DoneWait     Done = "wait"
	// DoneLive makes what was mounted the root and starts it. It is no argument: ModeLive ends so.
	DoneLive Done = "live"
)

// Args is what the installer was asked to do.
type Args struct {
	Mode Mode
	// Server is the http or https address of the server that has this boot's plan, without a slash at its end; empty where
	// Manifest says what to install. ServerKey is the key that signs the plan, Boot the nonce of this boot.
	Server    string
	ServerKey image.PublicKey
	Boot      string
	// Manifest is an absolute http or https URL; the other files of the release lie beside it.
	Manifest string
	// Medium is the volume label of a medium of this machine that has the release, in place of Manifest.
	Medium string
	// Live says how ModeLive runs the image; with a server it is the plan's to say.
	Live plan.LiveOptions
	// Interactive is true when a person at a console is to say what is installed, and where.
	Interactive bool
	// Answers is the absolute http or https URL of an answer file (package answers), or AnswersOnMedium; empty for none.
	Answers string
	// Disks are serial numbers, WWNs or paths below /dev, in the order of the layout's disks; without them the layout's hints
	// choose, or the only eligible disk is taken.
	Disks []string
	// Wipe names disks, as Disks does, whose contents may be destroyed.
	Wipe []string
	// Unseal are the serial numbers whose seals may be destroyed although they are another machine's, or say that they are
	// protected.
	Unseal []string
	// Fresh makes anew what the layout would keep.
	Fresh bool
	// Preset takes the place of the manifest's layout; empty leaves that as it is.
	Preset  layout.Preset
	OnError OnError
	Done    Done
	// Transport is the way the root file system comes; with a server it is the plan's to say.
	Transport plan.Transport
	// Mirrors are absolute http or https URLs of the release's directory elsewhere, each with a slash at its end.
	Mirrors []string
	// Proxy is the http or https URL of a proxy for the release's files; nil is none.
	Proxy *url.URL
	// BootIF is the MAC address of the interface that the firmware booted from (BOOTIF=, as PXELINUX and iPXE write it); nil
	// if nobody said.
	BootIF net.HardwareAddr
	// Verbose is true when the kernel was asked for more messages (debug, loglevel=7 or ignore_loglevel): the kernel's
	// messages then stay on the consoles.
	Verbose bool
	// Warnings are sentences to show: unknown arguments, and what they were probably meant to be.
	Warnings []string
}

// AnswersOnMedium is the value of answers for the file beside the release on its medium.
const AnswersOnMedium = "medium"

// interactive is the only argument without a value.
const interactive = "interactive"

// keys are the arguments that this version knows, without Prefix.
func keys() []string {
	return []string{"mode", "manifest", "server", "serverkey", "boot", "disk", "wipe", "unseal", "keep", "layout", "onerror", "done", "transport", "mirror", "proxy",
		"medium", "answers", interactive, "live.size", "live.persist", "live.root"}
}

// several are the arguments that may be given more than once with different values.
func several() []string { return []string{"disk", "wipe", "unseal", "mirror", "live.persist"} }

// ordered are the arguments that are a server's to say where there is one.
func ordered() []string {
	return []string{"disk", "wipe", "unseal", "keep", "layout", "done", "transport", "mirror", "answers", interactive, "live.size", "live.persist", "live.root"}
}

// Parse reads a kernel command line. The returned Args are usable for OnError and Verbose even when there is an error,
// so that the failure can be shown as was asked. The error joins everything that is wrong.
func Parse(line string) (Args, error) {
	p := parser{args: Args{Transport: plan.TransportHTTP}, seen: map[string][]string{}}
	for _, param := range Split(line) {
		p.param(param)
	}
	if p.args.OnError == "" {
		p.args.OnError = OnErrorWait
	}
	switch {
	case p.args.Done != "":
	case p.args.Mode == ModePreview && p.args.Server == "":
		p.args.Done = DoneWait // for whoever wants to read it
	default:
		p.args.Done = DoneReboot
	}
	if len(p.errs) == 0 {
		p.agree()
	}
	return p.args, errors.Join(p.errs...)
}

// agree finds what is missing and what contradicts something else.
func (p *parser) agree() {
	a := &p.args
	given := func(key string) bool { return len(p.seen[key]) > 0 }
	switch {
	case a.Medium != "" && (a.Manifest != "" || a.Server != ""):
		p.bad("%smedium= has the release, and %smanifest= and %sserver= too: give one of them", Prefix, Prefix, Prefix)
	case a.Server != "" && a.Manifest != "":
		p.bad("%sserver= and %smanifest= both say what to do: give one of them", Prefix, Prefix)
	case a.Server != "":
		for _, key := range []string{"serverkey", "boot"} {
			if !given(key) {
				p.bad("%sserver= needs %s%s=, which the server's boot script gives: boot through the server", Prefix, Prefix, key)
			}
		}
		for _, key := range ordered() {
			if given(key) {
				p.bad("%s%s= is the order's to say when there is a server: give it with the order, and leave it out here", Prefix, key)
			}
		}
	case given("serverkey") || given("boot"):
		p.bad("%sserverkey= and %sboot= belong to a server: add %sserver=URL", Prefix, Prefix, Prefix)
	case a.Mode == ModeCheck && a.Medium == "":
		p.bad("%smode=check checks a medium: add %smedium=LABEL", Prefix, Prefix)
	case a.Answers != "" && (a.Interactive || a.Mode != ModeInstall && a.Mode != ModePreview && a.Mode != ""):
		p.bad("%sanswers= says what is installed without asking: leave out %sinteractive, and use %smode=install or preview", Prefix, Prefix, Prefix)
	case a.Answers == AnswersOnMedium && a.Medium == "":
		p.bad("%sanswers=%s is a file on a medium: add %smedium=LABEL", Prefix, AnswersOnMedium, Prefix)
	case a.Interactive && a.Mode != ModeInstall && a.Mode != "":
		p.bad("%sinteractive asks what to install: it belongs to %smode=install", Prefix, Prefix)
	case a.Mode != ModeLive && (given("live.size") || given("live.persist") || given("live.root")):
		p.bad("%slive.size=, %slive.persist= and %slive.root= are for %smode=live: add that, or leave them out", Prefix, Prefix, Prefix, Prefix)
	case a.Mode == ModeInspect:
		p.bad("%smode=inspect reports to a server: add %sserver=URL", Prefix, Prefix)
	case a.Transport == plan.TransportRelay:
		p.bad("%stransport=relay reads from machines that a server names: boot through an imgserve, or leave it out", Prefix)
	case a.Medium != "":
		if a.Transport != plan.TransportHTTP || len(a.Mirrors) > 0 {
			p.bad("%smedium= has all of the release: leave out %stransport= and %smirror=", Prefix, Prefix, Prefix)
		}
	case a.Manifest == "" && a.Mode == "":
		p.bad("nothing on the kernel command line says what to do: add %smanifest=URL", Prefix)
	case a.Manifest == "":
		p.bad("%smode=%s needs a release: add %smanifest=URL", Prefix, a.Mode, Prefix)
	case a.Mode == ModePreview && a.Done == DoneKexec:
		p.bad("%sdone=kexec starts what was installed, and %smode=preview installs nothing: leave one of them out", Prefix, Prefix)
	}
	if a.Mode == "" && len(p.errs) == 0 {
		a.Mode = ModeInstall
	}
}

// WithPlan returns the arguments as a server's plan completes them: what to install, where, and what happens then. A plan
// is held against the same rules as a command line. A plan to preview makes it ModePreview.
func (a Args) WithPlan(pl plan.Plan) (Args, error) {
	p := parser{args: a}
	p.args.Disks, p.args.Wipe, p.args.Unseal, p.args.Fresh = nil, nil, nil, pl.Fresh
	switch pl.Action {
	case plan.Preview:
		p.args.Mode = ModePreview
	case plan.Live:
		p.args.Mode, p.args.Live = ModeLive, plan.LiveOptions{}
		if pl.Live != nil {
			p.args.Live = *pl.Live
		}
	}
	p.args.Mirrors = nil
	for _, v := range []struct{ key, value string }{{"manifest", pl.Manifest}, {"done", pl.Done}, {"transport", string(pl.Transport)}} {
		if v.value != "" {
			p.value(v.key, v.value)
		}
	}
	for _, v := range []struct {
		key    string
		values []string
	}{{"disk", pl.Disks}, {"wipe", pl.Wipe}, {"unseal", pl.Unseal}, {"mirror", pl.Mirrors}} {
		for _, value := range v.values {
			p.value(v.key, value)
		}
	}
	if err := errors.Join(p.errs...); err != nil {
		return a, fmt.Errorf("read the server's plan: %w", err)
	}
	return p.args, nil
}

// Argument is how a person says an argument that Args have from one: imgbuild.wipe=SN on the kernel command line, or, where a server
// has the order, --wipe SN of imgctl.
func (a Args) Argument(key, value string) string {
	if strings.ContainsAny(value, " \t") {
		value = strconv.Quote(value)
	}
	if a.Server != "" {
		return "--" + key + " " + value
	}
	return Prefix + key + "=" + value
}

// Advice tells a person to give an argument once for each value.
func (a Args) Advice(key string, values ...string) string {
	text := "boot with"
	if a.Server != "" {
		text = "order it with"
	}
	for _, v := range values {
		text += " " + a.Argument(key, v)
	}
	return text
}

type parser struct {
	args Args
	seen map[string][]string // values by key
	errs []error
}

func (p *parser) bad(format string, a ...any) { p.errs = append(p.errs, fmt.Errorf(format, a...)) }

func (p *parser) warn(format string, a ...any) {
	p.args.Warnings = append(p.args.Warnings, fmt.Sprintf(format, a...))
}

func (p *parser) param(param Param) {
	switch param.Key {
	case "debug", "ignore_loglevel":
		p.args.Verbose = p.args.Verbose || !param.HasValue
		return
	case "loglevel":
		p.args.Verbose = len(param.Value) == 1 && param.Value >= "6" && param.Value <= "9"
		return
	case "quiet":
		return
	case "BOOTIF":
		if mac := parseBootIF(param.Value); mac != nil {
			p.args.BootIF = mac
		} else {
			p.warn("BOOTIF=%s is not a MAC address and is passed over", param.Value)
		}
		return
	}
	key, ok := strings.CutPrefix(param.Key, Prefix)
	if !ok && strings.HasPrefix(param.Key, "live.") {
		key, ok = param.Key, true // as people write them
	}
	if !ok {
		if meant := nearPrefix(param.Key); meant != "" {
			p.warn("argument %s is unknown; was %s meant?", param.Key, meant)
		}
		return
	}
	if !slices.Contains(keys(), key) {
		if meant := nearest(key, keys()); meant != "" {
			p.warn("argument %s is unknown; was %s%s meant?", param.Key, Prefix, meant)
		} else {
			p.warn("argument %s is unknown to this installer; it knows %s", param.Key, Prefix+strings.Join(keys(), ", "+Prefix))
		}
		return
	}
	if key == interactive {
		p.args.Interactive, p.seen[key] = true, []string{param.Value}
		return
	}
	if param.Value == "" {
		p.bad("argument %s has no value: write %s=VALUE", param.Key, param.Key)
		return
	}
	old := p.seen[key]
	if len(old) == 0 || slices.Contains(several(), key) {
		p.seen[key] = append(old, param.Value)
		p.value(key, param.Value)
		return
	}
	switch {
	case old[0] == param.Value:
	case key == "manifest" || key == "server" || key == "proxy" || key == "answers": // each may hold a password
		p.bad("argument %s is given twice with different values: give it once", param.Key)
	default:
		p.bad("argument %s is given twice with different values, %q and %q: give it once", param.Key, old[0], param.Value)
	}
}

func (p *parser) value(key, value string) {
	switch key {
	case "mode":
		if value == "plan" { // as imgctl calls it
			value = string(ModePreview)
		}
		p.args.Mode = oneOf(p, key, value, ModeInstall, ModePreview, ModeInspect, ModeLive, ModeCheck)
	case "onerror":
		p.args.OnError = oneOf(p, key, value, OnErrorWait, OnErrorReboot, OnErrorPoweroff, OnErrorShell)
	case "done":
		p.args.Done = oneOf(p, key, value, DoneReboot, DoneKexec, DonePoweroff, DoneWait)
	case "keep":
		p.args.Fresh = oneOf(p, key, value, keepNone) == keepNone
	case "layout":
		p.args.Preset = oneOf(p, key, value, layout.Simple, layout.LVM, layout.Server, layout.Mirror)
	case "transport":
		p.args.Transport = oneOf(p, key, value, plan.TransportHTTP, plan.TransportTorrent, plan.TransportRelay)
	case "mirror":
		if _, err := checkAddress(value); err != nil {
			p.bad("argument %smirror=: %w", Prefix, err)
			return
		}
		p.args.Mirrors = append(p.args.Mirrors, strings.TrimRight(value, "/")+"/")
	case "manifest":
		if err := checkURL(value); err != nil {
			p.bad("argument %smanifest=: %w", Prefix, err)
			return
		}
		p.args.Manifest = value
	case "proxy":
		u, err := checkAddress(value)
		if err != nil {
			p.bad("argument %sproxy=: %w", Prefix, err)
			return
		}
		p.args.Proxy = u
	case "server":
		if err := checkServer(value); err != nil {
			p.bad("argument %sserver=: %w", Prefix, err)
			return
		}
		p.args.Server = strings.TrimRight(value, "/")
	case "serverkey":
		k, err := image.ParsePublicKeyText(value)
		if err != nil {
			p.bad("argument %sserverkey=: %w", Prefix, err)
			return
		}
		p.args.ServerKey = k
	case "boot":
		if !isNonce(value) {
			p.bad("argument %sboot= is not what a server's boot script gives, which is 16 to 128 letters, digits, dashes and underscores", Prefix)
			return
		}
		p.args.Boot = value
	case "disk":
		p.list(&p.args.Disks, key, value, checkDisk(value))
	case "wipe":
		p.list(&p.args.Wipe, key, value, checkDisk(value))
	case "medium":
		if p.args.Medium = value; !isLabel(value) {
			p.bad("argument %smedium=%s is no volume label: it has at most 32 letters, digits, dots, dashes and underscores", Prefix, value)
		}
	case "answers":
		if err := checkURL(value); value != AnswersOnMedium && err != nil {
			p.bad("argument %sanswers=: %w; or write %s for the file on the medium", Prefix, err, AnswersOnMedium)
		}
		p.args.Answers = value
	case "live.size":
		p.args.Live.Size = value
		p.live(key, value, plan.LiveOptions{Size: value})
	case "live.persist":
		p.args.Live.Persist = append(p.args.Live.Persist, value)
		p.live(key, value, plan.LiveOptions{Persist: []string{value}})
	case "live.root":
		p.args.Live.Root = value
		p.live(key, value, plan.LiveOptions{Root: value})
	case "unseal":
		p.list(&p.args.Unseal, key, value, checkSerial(value))
	}
}

// keepNone is the only value of keep: what the layout keeps is the layout's to say.
const keepNone = "none"

// list adds a value that is not there yet, unless something is wrong with it.
func (p *parser) list(to *[]string, key, value string, err error) {
	switch {
	case err != nil:
		p.bad("argument %s%s=%s: %w", Prefix, key, value, err)
	case !slices.Contains(*to, value):
		*to = append(*to, value)
	}
}

// oneOf returns the value if it is one of the allowed; otherwise it notes the error and returns the empty value, which
// later takes its default.
func oneOf[T ~string](p *parser, key, value string, allowed ...T) T {
	if slices.Contains(allowed, T(value)) {
		return T(value)
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	if meant := nearest(value, names); meant != "" {
		p.bad("argument %s%s=%s is not known; was %s meant?", Prefix, key, value, meant)
	} else {
		p.bad("argument %s%s=%s is not known: use %s", Prefix, key, value, strings.Join(names, ", "))
	}
	return ""
}
