package cmdline

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"imgbuild/image"
	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

func TestTheLineIsCutAsTheKernelCutsIt(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want []Param
	}{
		"plain words and values":           {"quiet root=/dev/sda1\n", []Param{{"quiet", "", false}, {"root", "/dev/sda1", true}}},
		"tabs and several blanks":          {" a \t b=1  ", []Param{{"a", "", false}, {"b", "1", true}}},
		"a quoted value keeps its blanks":  {`d="SN 1 2" x`, []Param{{"d", "SN 1 2", true}, {"x", "", false}}},
		"the whole argument quoted":        {`"d=SN 1 2" x`, []Param{{"d", "SN 1 2", true}, {"x", "", false}}},
		"quotes inside a value stay":       {`d=a"b c"d`, []Param{{"d", `a"b c"d`, true}}},
		"a quote that is never closed":     {`d="SN 1`, []Param{{"d", "SN 1", true}}},
		"a second = belongs to the value":  {"d=a=b", []Param{{"d", "a=b", true}}},
		"an empty value":                   {"d= e", []Param{{"d", "", true}, {"e", "", false}}},
		"an empty quoted value":            {`d=""`, []Param{{"d", "", true}}},
		"the end of the kernel's own":      {"a -- b", []Param{{"a", "", false}, {"b", "", false}}},
		"an argument that is only quotes":  {`"" a`, []Param{{"", "", false}, {"a", "", false}}},
		"a quoted argument that is only =": {`"="`, []Param{{"", "", true}}},
		"nothing":                          {"\n", nil},
	} {
		if got := Split(c.line); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

const manifest = "imgbuild.manifest=http://10.0.0.1/demo/1/manifest.json "

func TestArgumentsBecomeWhatTheyMean(t *testing.T) {
	a, err := Parse("console=ttyS0 BOOTIF=01-52-54-00-aa-bb-cc " + manifest +
		`imgbuild.disk="SN 42" imgbuild.wipe=/dev/vda imgbuild.wipe=WD-1 imgbuild.wipe=WD-1 imgbuild.onerror=poweroff imgbuild.done=wait loglevel=7`)
	if err != nil {
		t.Fatal(err)
	}
	want := Args{Mode: ModeInstall, Manifest: "http://10.0.0.1/demo/1/manifest.json", Disks: []string{"SN 42"}, Wipe: []string{"/dev/vda", "WD-1"},
		OnError: OnErrorPoweroff, Done: DonePoweroff, Transport: plan.TransportHTTP, Verbose: true, BootIF: a.BootIF}
	want.Done = DoneWait
	if !reflect.DeepEqual(a, want) || a.BootIF.String() != "52:54:00:aa:bb:cc" {
		t.Errorf("got %+v", a)
	}
	a, err = Parse(manifest + "imgbuild.disk=B imgbuild.disk=A imgbuild.disk=B imgbuild.wipe=A imgbuild.unseal=SN-1 imgbuild.unseal=SN-2 imgbuild.keep=none imgbuild.layout=mirror imgbuild.done=kexec")
	if err != nil || !slices.Equal(a.Disks, []string{"B", "A"}) || !slices.Equal(a.Unseal, []string{"SN-1", "SN-2"}) || !a.Fresh || a.Preset != layout.Mirror || a.Done != DoneKexec {
		t.Errorf("several disks: %+v, %v", a, err)
	}
	a, err = Parse(manifest + "imgbuild.transport=torrent imgbuild.mirror=http://10.0.0.2/demo/1 imgbuild.mirror=https://10.0.0.3/demo/1/ imgbuild.proxy=http://10.0.0.4:3128")
	if err != nil || a.Transport != plan.TransportTorrent || !slices.Equal(a.Mirrors, []string{"http://10.0.0.2/demo/1/", "https://10.0.0.3/demo/1/"}) || a.Proxy.Host != "10.0.0.4:3128" {
		t.Errorf("ways to the files: %+v, %v", a, err)
	}
	a, err = Parse(manifest + "imgbuild.mode=preview")
	if err != nil || a.Mode != ModePreview || a.Done != DoneWait {
		t.Errorf("a preview is there to be read: %+v, %v", a, err)
	}
	if a, err = Parse(manifest + "imgbuild.mode=preview imgbuild.done=reboot"); err != nil || a.Done != DoneReboot {
		t.Errorf("a preview ends as was asked: %+v, %v", a, err)
	}
	a, err = Parse(manifest)
	if err != nil || a.OnError != OnErrorWait || a.Done != DoneReboot || a.Mode != ModeInstall || a.Verbose {
		t.Errorf("defaults: %+v, %v", a, err)
	}
}

func TestWhatOtherBootServersAddDoesNoHarm(t *testing.T) {
	const mac = "52:54:00:12:34:56"
	for name, c := range map[string]struct{ line, bootIF string }{
		"Cobbler 3 with PXELINUX": {"BOOT_IMAGE=/images/x/vmlinuz initrd=/images/x/initramfs.img %s console=tty0 kssendmac inst.ks=http://10.0.0.1/cblr/svc/op/autoinstall/system/n1 BOOTIF=01-52-54-00-12-34-56", mac},
		"Cobbler 2 with PXELINUX": {"initrd=/images/x/initramfs.img ksdevice=bootif lang=  text %s kssendmac  ks=http://10.0.0.1/cblr/svc/op/ks/profile/x BOOTIF=01-52-54-00-12-34-56", mac},
		"Cobbler with GRUB":       {"BOOT_IMAGE=(tftp,10.0.0.1)/images/x/vmlinuz %s kssendmac inst.ks=http://10.0.0.1/k autoyast=http://10.0.0.1/a netdevice=52:54:00:12:34:56", ""},
		"Foreman's Kickstart":     {"%s network ksdevice=bootif ks.device=bootif BOOTIF=00-52-54-00-12-34-56 kssendmac ks.sendmac inst.ks.sendmac ip=dhcp nameserver=10.0.0.1 inst.stage2=http://10.0.0.1/s", mac},
		"both IPAPPEND bits":      {"%s ip=10.0.0.100:10.0.0.1:10.0.0.254:255.255.255.0 BOOTIF=01-52-54-00-12-34-56", mac},
		"SYSAPPEND with all bits": {"%s SYSUUID=0 CPU=6PXL SYSVENDOR=QEMU SYSSERIAL=X ip=10.0.0.100:10.0.0.1::255.0.0.0 BOOTIF=01-52-54-00-12-34-56", mac},
		"GRUB's own notation":     {"BOOTIF=52:54:00:12:34:56 %s", mac},
		"another server's live":   {"root=live:http://10.0.0.1/x rd.live.image rd.neednet=1 netboot=nfs boot=casper nomodeset vga=788 rw ro %s --- quiet", ""},
	} {
		a, err := Parse(fmt.Sprintf(c.line, manifest+"imgbuild.disk=D"))
		if err != nil || len(a.Warnings) > 0 || a.BootIF.String() != c.bootIF || !slices.Equal(a.Disks, []string{"D"}) || a.Mode != ModeInstall {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for _, line := range []string{"BOOTIF=01-52-54-00-12-34-56 BOOTIF=", "BOOTIF=${net0/mac} BOOTIF=01-52-54-00-12-34-56"} {
		if a, err := Parse(manifest + line); err != nil || a.BootIF.String() != mac || len(a.Warnings) != 1 {
			t.Errorf("%s: the card that is named is kept: %+v, %v", line, a, err)
		}
	}
}

func TestAPersonIsAsked(t *testing.T) {
	for _, line := range []string{"imgbuild.medium=X imgbuild.interactive", manifest + "imgbuild.interactive imgbuild.mode=install", manifest + "imgbuild.interactive=yes"} {
		if a, err := Parse(line); err != nil || !a.Interactive || a.Mode != ModeInstall {
			t.Errorf("%s: %+v, %v", line, a, err)
		}
	}
	for line, want := range map[string]string{
		manifest + "imgbuild.answers=medium":                               "add imgbuild.medium=LABEL",
		manifest + "imgbuild.answers=http://a/b.json imgbuild.interactive": "without asking",
		manifest + "imgbuild.answers=/srv/a.json":                          "or write medium",
	} {
		if _, err := Parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", line, err)
		}
	}
	if a, err := Parse("imgbuild.medium=X imgbuild.answers=medium"); err != nil || a.Answers != AnswersOnMedium {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := Parse(manifest + "imgbuild.interactive imgbuild.mode=live"); err == nil || !strings.Contains(err.Error(), "belongs to imgbuild.mode=install") {
		t.Errorf("got %v", err)
	}
}

func TestALiveSystemIsAskedFor(t *testing.T) {
	a, err := Parse(manifest + "imgbuild.mode=live live.size=25% imgbuild.live.persist=/var=V live.persist=/home=H live.root=nfs:10.0.0.1:/srv")
	want := plan.LiveOptions{Size: "25%", Persist: []string{"/var=V", "/home=H"}, Root: "nfs:10.0.0.1:/srv"}
	if err != nil || a.Mode != ModeLive || !reflect.DeepEqual(a.Live, want) || len(a.Warnings) > 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = Parse("imgbuild.medium=DEMO-1"); err != nil || a.Medium != "DEMO-1" || a.Mode != ModeInstall {
		t.Errorf("%+v, %v", a, err)
	}
	pl := plan.Plan{Action: plan.Live, Manifest: "http://10.0.0.1/m.json", Live: &plan.LiveOptions{Size: "1GiB"}}
	if a, err = (Args{Mode: ModeInstall}).WithPlan(pl); err != nil || a.Mode != ModeLive || a.Live.Size != "1GiB" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestWhatIsWrongIsSaidInOneSentence(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"nothing asked":                  {"quiet", "nothing on the kernel command line says what to do"},
		"a mode without a release":       {"imgbuild.mode=install", "needs a release: add imgbuild.manifest=URL"},
		"a relay without a server":       {manifest + "imgbuild.transport=relay", "imgbuild.transport=relay reads from machines that a server names"},
		"a proxy of another kind":        {manifest + "imgbuild.proxy=socks5://10.0.0.1", "use http:// or https://"},
		"a mirror without a host":        {manifest + "imgbuild.mirror=demo/1", "imgbuild.mirror=: the URL starts with"},
		"a misspelt mode":                {manifest + "imgbuild.mode=instal", "was install meant?"},
		"a mode of another version":      {manifest + "imgbuild.mode=repair", "imgbuild.mode=repair is not known: use install, preview, inspect, live, check"},
		"a medium and a manifest":        {manifest + "imgbuild.medium=X", "imgbuild.medium= has the release"},
		"a check of no medium":           {manifest + "imgbuild.mode=check", "add imgbuild.medium=LABEL"},
		"a medium and a mirror":          {"imgbuild.medium=X imgbuild.mirror=http://a/b", "leave out imgbuild.transport= and imgbuild.mirror="},
		"a label that is none":           {"imgbuild.medium=../x", "is no volume label"},
		"live options of another mode":   {manifest + "live.size=2GiB", "are for imgbuild.mode=live"},
		"a live size that is none":       {manifest + "imgbuild.mode=live live.size=200%", "1% to 90%"},
		"a root that is no NFS":          {manifest + "imgbuild.mode=live live.root=/dev/sda", "write nfs:SERVER:/PATH"},
		"two manifests":                  {manifest + "imgbuild.manifest=http://b/x.json", "given twice with different values"},
		"two ends":                       {manifest + "imgbuild.done=wait imgbuild.done=reboot", `"wait" and "reboot"`},
		"two layouts":                    {manifest + "imgbuild.layout=lvm imgbuild.layout=simple", `"lvm" and "simple"`},
		"a misspelt layout":              {manifest + "imgbuild.layout=mirrors", "was mirror meant?"},
		"a layout that is none":          {manifest + "imgbuild.layout=zfs", "use simple, lvm, server, mirror"},
		"something to keep":              {manifest + "imgbuild.keep=/home", "imgbuild.keep=/home is not known: use none"},
		"a blank seal":                   {manifest + `imgbuild.unseal=" "`, "is blank: give the serial number"},
		"a preview that starts what was": {manifest + "imgbuild.mode=preview imgbuild.done=kexec", "installs nothing"},
		"a preview of nothing":           {"imgbuild.mode=preview", "imgbuild.mode=preview needs a release"},
		"no value":                       {manifest + "imgbuild.disk", "imgbuild.disk has no value"},
		"an empty value":                 {manifest + "imgbuild.wipe=", "imgbuild.wipe has no value"},
		"a URL of another kind":          {"imgbuild.manifest=ftp://a/b", `starts with "ftp:"`},
		"a path and no URL":              {"imgbuild.manifest=/srv/manifest.json", "use http:// or https://"},
		"a URL without host":             {"imgbuild.manifest=http:///manifest.json", "names no host"},
		"a URL of a directory":           {"imgbuild.manifest=http://a/b/", "names a directory"},
		"an iPXE variable left over":     {"imgbuild.manifest=http://${next-server}/manifest.json", "not"},
		"a disk outside /dev":            {manifest + "imgbuild.disk=/etc/passwd", "does not lie below /dev"},
		"a disk that climbs":             {manifest + "imgbuild.disk=/dev/../etc", "does not lie below /dev"},
		"a blank disk":                   {manifest + `imgbuild.disk=" "`, "is blank"},
		"a misspelt onerror":             {manifest + "imgbuild.onerror=rebot", "was reboot meant?"},
		"an unknown done":                {manifest + "imgbuild.done=dance", "use reboot, kexec, poweroff, wait"},
		"everything at once is reported": {"imgbuild.disk= imgbuild.done=x", "imgbuild.done=x"},
	} {
		_, err := Parse(c.line)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want something with %q", name, err, c.want)
		}
	}
}

const nonce = "imgbuild.boot=AAECAwQFBgcICQoLDA0ODw "

// serverArgs is what a server's boot script gives.
func serverArgs(t testing.TB) (string, image.PublicKey) {
	t.Helper()
	key, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return "imgbuild.server=http://10.0.0.1:8080/ imgbuild.serverkey=" + key.Public().Text() + " " + nonce, key.Public()
}

func TestAServersBootScriptSaysWhereThePlanIs(t *testing.T) {
	line, key := serverArgs(t)
	for name, c := range map[string]struct {
		more string
		mode Mode
	}{"without a mode": {"", ModeInstall}, "to install": {"imgbuild.mode=install", ModeInstall}, "to inspect": {"imgbuild.mode=inspect", ModeInspect},
		"to preview": {"imgbuild.mode=preview", ModePreview}, "to plan": {"imgbuild.mode=plan", ModePreview}} {
		a, err := Parse(line + c.more)
		if err != nil || a.Server != "http://10.0.0.1:8080" || a.ServerKey.Text() != key.Text() || a.Boot != "AAECAwQFBgcICQoLDA0ODw" || a.Mode != c.mode || a.Manifest != "" {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for name, c := range map[string]struct{ line, want string }{
		"a manifest too":              {line + manifest, "both say what to do"},
		"a disk":                      {line + "imgbuild.disk=SN1", "imgbuild.disk= is the order's to say"},
		"a disk to wipe":              {line + "imgbuild.wipe=SN1", "imgbuild.wipe= is the order's to say"},
		"a seal to break":             {line + "imgbuild.unseal=SN1", "imgbuild.unseal= is the order's to say"},
		"what is not kept":            {line + "imgbuild.keep=none", "imgbuild.keep= is the order's to say"},
		"a layout":                    {line + "imgbuild.layout=lvm", "imgbuild.layout= is the order's to say"},
		"what happens then":           {line + "imgbuild.done=wait", "imgbuild.done= is the order's to say"},
		"no key":                      {"imgbuild.server=http://a " + nonce, "needs imgbuild.serverkey="},
		"no nonce":                    {strings.Replace(line, nonce, "", 1), "needs imgbuild.boot="},
		"a key that is none":          {"imgbuild.server=http://a imgbuild.serverkey=AAAA " + nonce, "imgbuild.serverkey="},
		"a nonce that is none":        {"imgbuild.server=http://a imgbuild.boot=x", "imgbuild.boot= is not what"},
		"two servers":                 {line + "imgbuild.server=http://other", "given twice with different values"},
		"a server with a password":    {"imgbuild.server=http://u:secret@a " + nonce, "user name"},
		"a server with a question":    {"imgbuild.server=http://a/?x=1 " + nonce, "after ?"},
		"a key without a server":      {manifest + nonce, "add imgbuild.server=URL"},
		"inspection without a server": {manifest + "imgbuild.mode=inspect", "add imgbuild.server=URL"},
		"inspection of nothing":       {"imgbuild.mode=inspect", "add imgbuild.server=URL"},
	} {
		_, err := Parse(c.line)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want something with %q", name, err, c.want)
		}
	}
}

func TestAPlanCompletesTheArgumentsByTheSameRules(t *testing.T) {
	line, _ := serverArgs(t)
	a, err := Parse(line + "imgbuild.onerror=reboot")
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.WithPlan(plan.Plan{Manifest: "http://10.0.0.1/images/demo/1/manifest.json", Disks: []string{"SN 1"}, Wipe: []string{"SN 1"}, Done: "poweroff"})
	if err != nil || got.Manifest != "http://10.0.0.1/images/demo/1/manifest.json" || !slices.Equal(got.Disks, []string{"SN 1"}) || len(got.Wipe) != 1 || got.Done != DonePoweroff || got.OnError != OnErrorReboot {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := a.WithPlan(plan.Plan{Manifest: "http://a/manifest.json"}); err != nil || got.Done != DoneReboot || got.Disks != nil || got.Wipe != nil {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = a.WithPlan(plan.Plan{Action: plan.Preview, Manifest: "http://a/manifest.json", Disks: []string{"B", "A"}, Unseal: []string{"SN 9"}, Fresh: true, Done: "kexec"})
	if err != nil || got.Mode != ModePreview || !slices.Equal(got.Disks, []string{"B", "A"}) || !slices.Equal(got.Unseal, []string{"SN 9"}) || !got.Fresh || got.Done != DoneKexec {
		t.Errorf("%+v, %v", got, err)
	}
	for name, p := range map[string]plan.Plan{
		"a seal of nobody":          {Manifest: "http://a/m", Unseal: []string{""}},
		"a manifest that is a file": {Manifest: "file:///x/manifest.json"}, "a disk that climbs": {Manifest: "http://a/m", Disks: []string{"/dev/../etc"}},
		"an unknown end": {Manifest: "http://a/m", Done: "dance"}, "a blank wipe": {Manifest: "http://a/m", Wipe: []string{" "}},
	} {
		if _, err := a.WithPlan(p); err == nil || !strings.Contains(err.Error(), "the server's plan") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownArgumentsAreWarningsWithAGuess(t *testing.T) {
	for line, want := range map[string]string{
		"imgbuild.dsik=x":     "was imgbuild.disk meant?",
		"imgbuild.wipes=x":    "was imgbuild.wipe meant?",
		"imgbiuld.disk=x":     "was imgbuild.disk meant?",
		"imgbuild_onerror=x":  "was imgbuild.onerror meant?",
		"imgbuild.frobnicate": "it knows imgbuild.mode",
		"BOOTIF=nonsense":     "not a MAC address",
	} {
		a, err := Parse(manifest + line)
		if err != nil || len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], want) {
			t.Errorf("%s: got %q, %v", line, a.Warnings, err)
		}
	}
	a, err := Parse(manifest + "rd.lvm=0 nvme_core.multipath=N systemd.unit=x img.disk=y")
	if err != nil || len(a.Warnings) != 0 {
		t.Errorf("the arguments of others: %q, %v", a.Warnings, err)
	}
}

func TestAPasswordInAURLIsNotRepeated(t *testing.T) {
	for _, line := range []string{"imgbuild.manifest=http://u:secret@a:b/x", "imgbuild.manifest=ftp://u:secret@h/x", "imgbuild.manifest=http://u:secret@h/x#y",
		"imgbuild.manifest=http://u:secret@h/x imgbuild.manifest=http://h/x"} {
		_, err := Parse(line)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestAFailureIsHandledAsAskedEvenWhenOtherArgumentsAreWrong(t *testing.T) {
	a, err := Parse("imgbuild.onerror=poweroff imgbuild.disk=")
	if err == nil || a.OnError != OnErrorPoweroff {
		t.Errorf("got %+v, %v", a, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(manifest + `imgbuild.disk="a b" imgbuild.wipe=/dev/x -- y`)
	f.Add(`"imgbuild.manifest=http://[::1]/x" BOOTIF=01-00-00-00-00-00-01`)
	f.Add(`"=" "" = ==`)
	line, _ := serverArgs(f)
	f.Add(line)
	f.Fuzz(func(t *testing.T, line string) {
		a, err := Parse(line)
		if err == nil && (a.Mode == "" || (a.Manifest == "") == (a.Server == "")) {
			t.Errorf("accepted without mode, manifest or server: %+v", a)
		}
		if err == nil && a.Server != "" && (a.Boot == "" || a.ServerKey.Text() == "") {
			t.Errorf("a server without its key or nonce was accepted: %+v", a)
		}
		if a.OnError == "" || a.Done == "" {
			t.Errorf("no behaviour at the end: %+v", a)
		}
		for _, w := range slices.Concat(a.Wipe, a.Disks) {
			if strings.Contains(w, "..") && strings.HasPrefix(w, "/") && checkDisk(w) != nil {
				t.Errorf("disk %q was let through", w)
			}
		}
	})
}

func TestAdviceIsWhatAPersonCanDo(t *testing.T) {
	for name, c := range map[string]struct {
		args   Args
		values []string
		want   string
	}{
		"on the kernel command line":      {Args{}, []string{"S1", "SN 2"}, `boot with imgbuild.wipe=S1 imgbuild.wipe="SN 2"`},
		"with the order, where it has it": {Args{Server: "http://a"}, []string{"S1", "SN 2"}, `order it with --wipe S1 --wipe "SN 2"`},
	} {
		if got := c.args.Advice("wipe", c.values...); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
