// Package plan is what passes between a server and a machine: what the machine says of itself (Inventory), what it is told
// to do (Plan, signed for that one boot), and what it reports on the way (Event).
//
// Bytes and Go values come in and go out; the package does no I/O and decides nothing. A field that is not known is an
// error, on both sides: a machine never does half of what it was told.
package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

// Schema is the version of what is here. Both sides refuse another.
const Schema = 1

// Paths of the machine's side of the server, below the server's address. Claim is asked with the boot nonce of the kernel's
// arguments; all others with the plan's token, as a bearer token (RFC 6750, 2.1).
const (
	ClaimPath  = "/machine/v1/claim"  // POST Claim, answers Signed
	EventsPath = "/machine/v1/events" // POST Report, answers Answer
	BootedPath = "/machine/v1/booted" // POST Booted, answers nothing (204)
)

// MaxBytes bounds every body in either direction.
const MaxBytes = 4 << 20

// Action is what a machine is to do.
type Action string

// The actions. A machine that is to wait asks again, with the same claim, after the plan's RetrySeconds.
const (
	Install   Action = "install"
	Preview   Action = "preview"   // say what an installation would erase and write, touch nothing, then boot the local disk
	Live      Action = "live"      // run a release from memory, touch no disk but those that LiveOptions name
	Inspect   Action = "inspect"   // say what it is, touch nothing, then boot the local disk
	Wait      Action = "wait"      // for its turn
	LocalBoot Action = "localboot" // boot the local disk
)

// Claim is how a machine asks for its plan.
type Claim struct {
	Schema int `json:"schema"`
	// Boot is the nonce that the boot script gave this boot: whoever has it is the boot that the server answered.
	Boot      string    `json:"boot"`
	Inventory Inventory `json:"inventory"`
}

// Plan is what the server tells one boot of one machine.
type Plan struct {
	Schema int `json:"schema"`
	// Boot and Serial are those of the claim. A plan for another boot or machine is refused.
	Boot   string    `json:"boot"`
	Serial string    `json:"serial"`
	Action Action    `json:"action"`
	Issued time.Time `json:"issued"`
	// Reason says, in one sentence for the console, why the action is this one.
	Reason string `json:"reason"`
	// Place is the machine's place in the queue, from 1; RetrySeconds is when to ask again. Both with the action wait only.
	Place        int `json:"place,omitempty"`
	RetrySeconds int `json:"retry_seconds,omitempty"`
	// Token authorises this installation's reports. It is a secret.
	Token string `json:"token,omitempty"`

	// Live comes with the action live only, as do Manifest, Transport, Mirrors and Host of what follows.
	Live *LiveOptions `json:"live,omitempty"`

	// What follows comes with the actions install and preview only.

	// Order is the ID of the order that is carried out.
	Order string `json:"order,omitempty"`
	// Manifest is the URL of the release's manifest.
	Manifest string `json:"manifest,omitempty"`
	// Transport is the way the root file system comes; empty is TransportHTTP.
	Transport Transport `json:"transport,omitempty"`
	// Mirrors are URLs of the release's directory elsewhere, each with a slash at its end.
	Mirrors []string `json:"mirrors,omitempty"`
	// Disks and Wipe are as imgbuild.disk= and imgbuild.wipe=: serial numbers, WWNs or paths below /dev. Disks are in the order
	// of the layout's.
	Disks []string `json:"disks,omitempty"`
	Wipe  []string `json:"wipe,omitempty"`
	// Layout takes the place of the manifest's.
	Layout *layout.Layout `json:"layout,omitempty"`
	// Seal is the record that goes onto the boot disks, as seal.Sign makes it.
	Seal []byte `json:"seal,omitempty"`
	// Unseal are serial numbers whose seals the order covers although they are not this machine's, or are protected.
	Unseal []string `json:"unseal,omitempty"`
	// Fresh makes anew what the layout would keep.
	Fresh bool `json:"fresh,omitempty"`
	// Done is what happens after success: reboot, kexec, poweroff or wait.
	Done string `json:"done,omitempty"`
	Host Host   `json:"host"`
	// CheckNetwork brings the host's own network up before anything is erased, and stops if it does not work.
	CheckNetwork bool `json:"check_network,omitempty"`
}

// Host is what the installed system becomes besides what its image is.
type Host struct {
	Hostname string   `json:"hostname,omitempty"` // fully qualified or not; empty keeps the image's
	Network  *Network `json:"network,omitempty"`  // nil keeps the image's: DHCP on every link
	// SerialConsole is added to the kernel's arguments, as ttyS1,115200n8.
	SerialConsole string `json:"serial_console,omitempty"`
	Users         []User `json:"users,omitempty"`
	Files         []File `json:"files,omitempty"`
	// Metadata is handed to the machine as it is: a JSON object, in /etc/imgbuild/host.json.
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

// User is an account that is added to, or changed in, the installed system. Root is one.
type User struct {
	Name     string   `json:"name"`
	Password string   `json:"password,omitempty"` // a crypt(5) hash; empty keeps what the image has, or locks a new account
	SSHKeys  []string `json:"ssh_keys,omitempty"` // as in authorized_keys; added
	Groups   []string `json:"groups,omitempty"`   // must exist in the image
	Sudo     string   `json:"sudo,omitempty"`     // all or nopasswd
	UID      int      `json:"uid,omitempty"`
	Shell    string   `json:"shell,omitempty"`
	Comment  string   `json:"comment,omitempty"`
}

// File is a file of the installed system.
type File struct {
	Path    string `json:"path"` // absolute
	Content string `json:"content"`
	Mode    string `json:"mode,omitempty"`  // octal, default 0644
	Owner   string `json:"owner,omitempty"` // default root
	Group   string `json:"group,omitempty"` // default root
}

// Signed is a plan as it travels.
type Signed struct {
	Plan      []byte `json:"plan"`      // the JSON of a Plan, as it was signed
	Signature []byte `json:"signature"` // as image.SignPlan makes it
}

// Sign encodes and signs a plan.
func Sign(p Plan, key image.PrivateKey) (Signed, error) {
	p.Schema = Schema
	data, err := json.Marshal(p)
	if err != nil {
		return Signed{}, fmt.Errorf("encode plan: %w", err)
	}
	return Signed{Plan: data, Signature: image.SignPlan(data, key)}, nil
}

// Open checks that a plan was signed by the server's key for this boot of this machine, and decodes it.
func Open(s Signed, key image.PublicKey, boot, serial string) (Plan, error) {
	var p Plan
	if err := image.VerifyPlan(s.Plan, s.Signature, key); err != nil {
		return Plan{}, err
	}
	if err := Decode(bytes.NewReader(s.Plan), &p); err != nil {
		return Plan{}, fmt.Errorf("read plan: %w", err)
	}
	switch {
	case p.Schema != Schema:
		return Plan{}, fmt.Errorf("read plan: its schema is %d and this installer knows %d: boot the initramfs of a release that fits the server", p.Schema, Schema)
	case p.Boot != boot:
		return Plan{}, errors.New("read plan: it was made for another boot")
	case p.Serial != serial:
		return Plan{}, fmt.Errorf("read plan: it was made for the machine with serial number %q and this one has %q", p.Serial, serial)
	}
	return p, p.Validate()
}

// Decode reads one JSON value of at most MaxBytes and refuses unknown fields and whatever follows.
func Decode(r io.Reader, v any) error {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return err
	}
	if len(data) > MaxBytes {
		return fmt.Errorf("more than %d bytes", MaxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more after the JSON value")
	}
	return nil
}

// Kind is what an event tells.
type Kind string

// The kinds of events.
const (
	KindStep     Kind = "step"     // Step of Of begins: Text
	KindProgress Kind = "progress" // Done of Total bytes of Text, at Rate
	KindInfo     Kind = "info"
	KindWarn     Kind = "warn"
	KindFailed   Kind = "failed" // the installation ended, and the disk is as Text says
	KindDone     Kind = "done"   // the disk boots; the machine does what the plan's Done says
	KindPreview  Kind = "preview"
)

// Event is one thing that an installation has to say.
type Event struct {
	// Seq counts a boot's events from 1: one that comes twice is kept once.
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"` // the machine's clock
	Kind Kind      `json:"kind"`
	Text string    `json:"text,omitempty"`
	Step int       `json:"step,omitempty"`
	Of   int       `json:"of,omitempty"`
	// Done and Total are bytes, Rate bytes a second.
	Done  int64   `json:"done,omitempty"`
	Total int64   `json:"total,omitempty"`
	Rate  float64 `json:"rate,omitempty"`
	// Mix is how many of a transfer's bytes came from which kind of source, and Limit how much of what its network and its disk
	// can do the transfer does: 1 is all.
	Mix   map[SourceKind]int64 `json:"mix,omitempty"`
	Limit float64              `json:"limit,omitempty"`
	// Outlook comes with the kind preview.
	Outlook *Outlook `json:"outlook,omitempty"`
}

// Outlook is what an installation would do to a machine.
type Outlook struct {
	// Refused says why the installation would not be done, in one sentence; empty if it would.
	Refused string         `json:"refused,omitempty"`
	Disks   []OutlookDisk  `json:"disks"`
	Scheme  *layout.Scheme `json:"scheme,omitempty"`
	// Text is what the machine's console shows: what would be erased and what would be written.
	Text string `json:"text"`
}

// OutlookDisk is one disk of the machine.
type OutlookDisk struct {
	Disk
	// Use is erased, kept in part or untouched.
	Use string `json:"use"`
	// Keeps are the names of what stays.
	Keeps []string `json:"keeps,omitempty"`
}

// HeartbeatSeconds is how often a machine reports at least, with no events if it has none. One that is silent for
// LostSeconds is lost.
const (
	HeartbeatSeconds = 10
	LostSeconds      = 90
)

// Report is a batch of events, oldest first. An empty one is a heartbeat.
type Report struct {
	Schema int     `json:"schema"`
	Events []Event `json:"events"`
}

// Answer is what the server says to a report.
type Answer struct {
	// Seq is the last event that the server has on its disk: what came before need not be sent again.
	Seq int64 `json:"seq"`
	// Stop asks the machine to stop before it writes to the disk; after that it is passed over. Reason says why.
	Stop   bool   `json:"stop,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Booted is what the installed system says when it has started for the first time.
type Booted struct {
	Schema   int      `json:"schema"`
	Serial   string   `json:"serial"`
	Hostname string   `json:"hostname"`
	Kernel   string   `json:"kernel"`
	System   string   `json:"system"` // PRETTY_NAME of /etc/os-release
	Failed   []string `json:"failed_units,omitempty"`
	// Addresses are those of the links, with prefix lengths.
	Addresses []string `json:"addresses,omitempty"`
	// BootSeconds is from the kernel's start to this report.
	BootSeconds float64 `json:"boot_seconds,omitempty"`
}
