// Package firstboot is what the installed system does once, when it has started for the first time: it formats data disks that
// were left to it, runs the scripts of the image for that, tells the server that it has booted, and removes itself. What the
// installer left in the state directory comes in; file systems, their lines in fstab and a report to the server go out.
//
// It never runs anything that came over the network, never formats a partition that has anything on it, and reports at most
// once. A server that does not answer is asked for a day.
package firstboot

import (
	"encoding/json"
	"fmt"
	"io"
	"path"

	"imgbuild/image/plan"
)

// Where things are in the installed system, below its root.
const (
	Program  = "usr/libexec/imgbuild/firstboot" // a copy of the installer
	Word     = "firstboot"                      // its argument
	StateDir = "var/lib/imgbuild/firstboot"
	// ConfigFile has a secret: only root reads it.
	ConfigFile = StateDir + "/config.json"
	doneFile   = StateDir + "/scripts-done"

	UnitName = "imgbuild-firstboot.service"
	UnitFile = "etc/systemd/system/" + UnitName
	// WantsLink makes it start: a link to UnitTarget.
	WantsLink  = "etc/systemd/system/multi-user.target.wants/" + UnitName
	UnitTarget = "/" + UnitFile
)

// The same for data disks, which wait for neither the network nor anything else.
const (
	DataWord  = "firstboot-data" // the program's argument
	DataFile  = StateDir + "/data.json"
	dataState = StateDir + "/data-state"

	DataUnitName   = "imgbuild-data.service"
	DataUnitFile   = "etc/systemd/system/" + DataUnitName
	DataWantsLink  = "etc/systemd/system/multi-user.target.wants/" + DataUnitName
	DataUnitTarget = "/" + DataUnitFile
)

// Config is what the installer leaves for the first boot.
type Config struct {
	// Server is the server's address and Token what authorises the report. Without a server only scripts run.
	Server string `json:"server,omitempty"`
	Token  string `json:"token,omitempty"`
	Serial string `json:"serial,omitempty"`
	// Metadata is the path of the host's metadata in the system, empty if it has none.
	Metadata string `json:"metadata,omitempty"`
}

// Encode returns the text of the configuration's file.
func (c Config) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode what the first boot is to do: %w", err)
	}
	return append(b, '\n'), nil
}

// Unit is the text of the systemd unit. It does not hold up the boot: it is started when the network is up, or is not
// going to be, and the boot is complete without it.
func Unit() string {
	return fmt.Sprintf(`# Written by imgbuild when this machine was installed. It removes itself when it has run.
[Unit]
Description=First boot after the installation: the image's scripts, and the report to the server
Wants=network-online.target
After=network-online.target %s
ConditionPathExists=/%s

[Service]
Type=simple
ExecStart=/%s %s

[Install]
WantedBy=multi-user.target
`, DataUnitName, ConfigFile, Program, Word)
}

// DataUnit is the text of the unit for data disks. The boot is not complete before they are there, and does not wait for them.
func DataUnit() string {
	return fmt.Sprintf(`# Written by imgbuild when this machine was installed. It removes itself when all data disks are there.
[Unit]
Description=First boot after the installation: format and mount the data disks
After=local-fs.target
ConditionPathExists=/%s

[Service]
Type=oneshot
ExecStart=/%s %s

[Install]
WantedBy=multi-user.target
`, DataFile, Program, DataWord)
}

// decode reads the configuration strictly: a file that somebody changed is not half understood.
func decode(r io.Reader) (Config, error) {
	var c Config
	if err := plan.Decode(r, &c); err != nil {
		return c, fmt.Errorf("read /%s: %w", ConfigFile, err)
	}
	return c, nil
}

// leftovers is everything that the installer added for the scripts and the report, in the order in which it goes: the secret first,
// and what starts it before what it starts. A power failure in between leaves nothing that does harm.
func leftovers() []string { return []string{ConfigFile, WantsLink, UnitFile, doneFile} }

// dataLeftovers is the same for the data disks.
func dataLeftovers() []string { return []string{DataFile, DataWantsLink, DataUnitFile, dataState} }

// shared is what goes when neither has anything to do any more.
func shared() []string { return []string{StateDir, Program, path.Dir(Program)} }
