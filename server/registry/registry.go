// Package registry is what a server knows: hosts by serial number, orders, events, tokens and leases, in SQLite or
// PostgreSQL. Values come in and go out; each method is one transaction.
//
// It never trusts an address or a MAC as a host's identity, and never forgets what it has acknowledged.
package registry

import (
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"imgbuild/image/layout"
	"imgbuild/image/plan"
)

// State is where a host is on its way.
type State string

// The states. A host is new when a machine made itself known, known when a person wrote it down, lost when its installation
// went silent.
const (
	New        State = "new"
	Known      State = "known"
	Ordered    State = "ordered"
	Installing State = "installing"
	Installed  State = "installed"
	Failed     State = "failed"
	Lost       State = "lost"
)

// Host is one machine. The five fields sn, hostname, ip, netmask and gw are those of the service that people come from.
type Host struct {
	SN       string `json:"sn" yaml:"sn"`
	Hostname string `json:"hostname" yaml:"hostname,omitempty"`
	IP       string `json:"ip" yaml:"ip,omitempty"`           // IPv4 or IPv6, without prefix length
	Netmask  string `json:"netmask" yaml:"netmask,omitempty"` // 255.255.255.0, or a prefix length: 24
	GW       string `json:"gw" yaml:"gw,omitempty"`

	DNS    []netip.Addr `json:"dns,omitempty" yaml:"dns,omitempty"`
	Search []string     `json:"search,omitempty" yaml:"search,omitempty"`
	MACs   []string     `json:"macs,omitempty" yaml:"macs,omitempty"`
	UUID   string       `json:"uuid,omitempty" yaml:"uuid,omitempty"`
	// Model is SMBIOS's product name: a machine that says another is inspected and not installed.
	Model         string `json:"model,omitempty" yaml:"model,omitempty"`
	OOB           *OOB   `json:"oob,omitempty" yaml:"oob,omitempty"`
	SerialConsole string `json:"serial_console,omitempty" yaml:"serial_console,omitempty"` // ttyS1,115200n8
	// Image is the release that the host has or is to get: name/version, or name for its newest version.
	Image    string `json:"image,omitempty" yaml:"image,omitempty"`
	Owner    string `json:"owner,omitempty" yaml:"owner,omitempty"`
	Rack     string `json:"rack,omitempty" yaml:"rack,omitempty"`
	Position string `json:"position,omitempty" yaml:"position,omitempty"`
	// Protect demands of an order that it names the host twice, and of a later one that it breaks the seal of what is installed.
	Protect bool `json:"protect,omitempty" yaml:"protect,omitempty"`
	// Network, if given, takes the place of ip, netmask and gw.
	Network *plan.Network `json:"network,omitempty" yaml:"network,omitempty"`
	// Layout, if given, takes the place of the release's.
	Layout *layout.Layout `json:"layout,omitempty" yaml:"layout,omitempty"`
	// CheckNetwork tries the host's own network before anything is erased. Default: true for a host with static addresses.
	CheckNetwork *bool       `json:"check_network,omitempty" yaml:"check_network,omitempty"`
	Users        []plan.User `json:"users,omitempty" yaml:"users,omitempty"`
	Files        []plan.File `json:"files,omitempty" yaml:"files,omitempty"`
	// Metadata is a JSON object that is handed to the machine.
	Metadata json.RawMessage `json:"metadata,omitempty" yaml:"metadata,omitempty"`
	// Live, if given, is what the host runs from memory when nothing is ordered for it.
	Live *Live `json:"live,omitempty" yaml:"live,omitempty"`

	// What follows is the server's: a client that writes it writes nothing.
	State     State           `json:"state,omitempty" yaml:"state,omitempty"`
	Inventory *plan.Inventory `json:"inventory,omitempty" yaml:"inventory,omitempty"`
	Booted    *plan.Booted    `json:"booted,omitempty" yaml:"booted,omitempty"` // of the last installation
	// LiveBoot is the last boot from memory, unless the host was installed since.
	LiveBoot *LiveBoot `json:"live_boot,omitempty" yaml:"live_boot,omitempty"`
	Created  time.Time `json:"created,omitzero" yaml:"created,omitempty"`
	Updated  time.Time `json:"updated,omitzero" yaml:"updated,omitempty"`
	// Revision counts the host's changes; it is its ETag.
	Revision int64 `json:"revision,omitempty" yaml:"revision,omitempty"`
}

// OOB is a host's management controller.
type OOB struct {
	Type    string `json:"type,omitempty" yaml:"type,omitempty"` // ipmi, redfish, ilo, idrac, …
	Address string `json:"address,omitempty" yaml:"address,omitempty"`
	Netmask string `json:"netmask,omitempty" yaml:"netmask,omitempty"`
	Gateway string `json:"gateway,omitempty" yaml:"gateway,omitempty"`
	User    string `json:"user,omitempty" yaml:"user,omitempty"`
	// Password is never given out: PasswordSet says that there is one.
	Password    string `json:"password,omitempty" yaml:"password,omitempty"`
	PasswordSet bool   `json:"password_set,omitempty" yaml:"password_set,omitempty"`
}

// OrderState is where an order is on its way.
type OrderState string

// The states of an order. Open and consumed ones are live; there is at most one live order for a host.
const (
	OrderOpen      OrderState = "open"      // nobody has come for it yet
	OrderConsumed  OrderState = "consumed"  // one boot has it
	OrderDone      OrderState = "done"      // the installed system has booted, or the preview is there
	OrderFailed    OrderState = "failed"    // the installation failed, or the machine was lost
	OrderCancelled OrderState = "cancelled" // a person took it back
	OrderExpired   OrderState = "expired"   // nobody came in time
)

// Order is a person's wish that a machine be installed, or say what that would do, once.
type Order struct {
	ID     string `json:"id"`
	SN     string `json:"sn"`
	Image  string `json:"image"` // name/version
	By     string `json:"by"`    // the person
	Reason string `json:"reason"`
	// Disks, Wipe, Unseal and Fresh are as in plan.Plan.
	Disks  []string `json:"disks,omitempty"`
	Wipe   []string `json:"wipe,omitempty"`
	Unseal []string `json:"unseal,omitempty"`
	Fresh  bool     `json:"fresh,omitempty"`
	// Layout, if given, takes the place of the host's and the release's.
	Layout *layout.Layout `json:"layout,omitempty"`
	// Preview makes the machine say what an installation would do, and do nothing. The host stays in the state that it has.
	Preview bool   `json:"preview,omitempty"`
	Done    string `json:"done,omitempty"` // reboot (default), kexec, poweroff, wait
	// Transport is the way the root file system is to come; empty is the server's.
	Transport plan.Transport `json:"transport,omitempty"`
	State     OrderState     `json:"state"`
	// Names is how often the person named the host: a protected host wants 2.
	Names int `json:"names,omitempty"`

	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Consumed time.Time `json:"consumed,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// Started is when the machine got its slot; zero while it waits for one.
	Started time.Time `json:"started,omitzero"`
	// Heard is when the machine was last heard, from its claim on.
	Heard time.Time `json:"heard,omitzero"`
	// Finished is when the installer was done: the disk boots, the slot is free, and the first boot is to come.
	Finished time.Time `json:"finished,omitzero"`
	// Lost is true of a failed order whose machine went silent. It lives again when the machine is heard.
	Lost bool `json:"lost,omitempty"`
	// Place is the place in the queue, from 1; Store.Queue sets it.
	Place int `json:"place,omitempty"`
	// Boot is the SHA-256, in hex, of the nonce of the boot that consumed the order.
	Boot string `json:"-"`

	seq int64 // of the last event that the machine sent
}

// Live reports whether the order can still become an installation, or is one.
func (o *Order) Live() bool { return o.State == OrderOpen || o.State == OrderConsumed }

// Due reports whether the order keeps its host from everything else: it is live, and not past its end.
func (o *Order) Due(now time.Time) bool {
	return o.State == OrderConsumed || o.State == OrderOpen && now.Before(o.Expires)
}

// LayoutFor is the layout that takes the place of the release's: the order's, else the host's, else nil.
func (o *Order) LayoutFor(h *Host) *layout.Layout {
	if o.Layout != nil {
		return o.Layout
	}
	return h.Layout
}

// Event is one line of a host's diary.
type Event struct {
	ID    int64     `json:"id"` // grows; over all hosts
	Time  time.Time `json:"time"`
	SN    string    `json:"sn,omitempty"`
	Order string    `json:"order,omitempty"` // its ID, or a live boot's
	// Live is true of what happens to a live boot: nothing of it shows in the host's state.
	Live bool `json:"live,omitempty"`
	// Preview is true of what happens to an order for a preview: nothing of it shows in the host's state.
	Preview bool `json:"preview,omitempty"`
	// Kind is one of plan's kinds, or one of the server's: registered, changed, deleted, ordered, cancelled, expired, claimed,
	// queued, started, lost, booted, refused, decided, …
	Kind string `json:"kind"`
	By   string `json:"by,omitempty"` // a person, or empty for the machine or the server
	Text string `json:"text"`
	// Machine is what the machine said, if it did.
	Machine *plan.Event `json:"machine,omitempty"`
}

// Errors that callers tell apart. An error that is one of them is for the caller's user; any other is the server's.
var (
	ErrNotFound = errors.New("there is none")
	ErrConflict = errors.New("it was changed meanwhile") // another revision, or a live order in the way
	ErrInvalid  = errors.New("it is not valid")          // Invalid says which field
)
