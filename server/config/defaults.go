package config

import (
	"path/filepath"
	"time"
)

// defaultState is where the database and certificates are without systemd.
const defaultState = "/var/lib/imgserve"

// releaseKey is where imgbuild keeps the public half of the key that it signs with.
const releaseKey = "/etc/imgbuild/release.key.pub"

// fillDefaults gives every key that was not written its value.
func (c *Config) fillDefaults(s Surroundings) {
	fill(&c.Listen, ":8080")
	if c.State == "" {
		c.State = defaultState
		if s.State != "" {
			c.State = s.State
		}
	}
	fill(&c.Database, filepath.Join(c.State, "imgserve.db"))
	if len(c.Trust) == 0 && s.Exists != nil && s.Exists(releaseKey) {
		c.Trust = []string{releaseKey}
	}
	fill(&c.Unknown, "inspect")
	fillDuration(&c.OrderExpiry, 24*time.Hour)
	fillDuration(&c.KeepProgress, 30*24*time.Hour)
	fillInt(&c.Limits.Global, 50)
	fillInt(&c.Limits.PerRack, 0)
	fillInt(&c.Limits.PerImage, 0)
	fill(&c.Transport, "relay")
	c.Torrent.fillDefaults(c.Transport)
	switch {
	case c.DHCP.Mode != "":
	case len(c.DHCP.Subnets) > 0:
		c.DHCP.Mode = "server"
	case c.Interface != "" || len(c.DHCP.Interfaces) > 0:
		c.DHCP.Mode = "proxy"
	default:
		c.DHCP.Mode = "off"
	}
	fillBool(&c.DHCP.Probe, true)
	for i := range c.DHCP.Subnets {
		fillDuration(&c.DHCP.Subnets[i].Lease, 12*time.Hour)
	}
	fillBool(&c.TFTP.Enabled, c.DHCP.Mode != "off")
	fill(&c.TFTP.Listen, ":69")
	if c.TLS.On() {
		fill(&c.TLS.Listen, ":8443")
	}
	fill(&c.Log, "info")
}

func fill(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func fillInt(p **int, value int) {
	if *p == nil {
		*p = &value
	}
}

func fillBool(p **bool, value bool) {
	if *p == nil {
		*p = &value
	}
}

func fillDuration(d *Duration, value time.Duration) {
	if *d == 0 {
		*d = Duration(value)
	}
}
