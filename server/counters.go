package server

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
)

// counters shows the parts' counters to Prometheus. They keep them themselves; each field is a label.
type counters struct {
	s                              *Server
	dhcp, tftp, scripts, machines  *prometheus.Desc
	tftpActive, poolSize, poolUsed *prometheus.Desc
	seedSent, seedPeers, seedFiles *prometheus.Desc
	swarm, reading, originRate     *prometheus.Desc
}

func newCounters(s *Server) *counters {
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &counters{
		s:          s,
		dhcp:       of("imgserve_dhcp_total", "DHCP messages and what became of them.", "event"),
		tftp:       of("imgserve_tftp_total", "TFTP requests and what became of them; bytes are those of files.", "event"),
		scripts:    of("imgserve_boot_scripts_total", "Boot scripts by what they do; failed ones boot the disk since the registry or the catalogue failed.", "kind"),
		machines:   of("imgserve_machines_total", "What machines asked and told, and what became of it.", "event"),
		swarm:      of("imgserve_swarm_total", "What machines said of their transfers, and what the planner made of it.", "event"),
		reading:    of("imgserve_swarm_machines", "Machines that read a release's root file system now.", "image"),
		originRate: of("imgserve_swarm_origin_bytes_per_second", "What leaves this server and its mirrors for machines that install.", "image"),
		tftpActive: of("imgserve_tftp_active", "TFTP transfers under way."),
		seedSent:   of("imgserve_torrent_sent_bytes_total", "Bytes of root file systems that went out by BitTorrent."),
		seedPeers:  of("imgserve_torrent_peers", "BitTorrent clients that are connected."),
		seedFiles:  of("imgserve_torrent_releases", "Releases that are given away by BitTorrent now."),
		poolSize:   of("imgserve_dhcp_pool_addresses", "Addresses in a subnet's ranges.", "subnet"),
		poolUsed:   of("imgserve_dhcp_pool_used", "Addresses of a subnet that are leased, offered or in use by others.", "subnet"),
	}
}

// Describe is part of prometheus.Collector.
func (c *counters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.dhcp, c.tftp, c.scripts, c.machines, c.tftpActive, c.poolSize, c.poolUsed, c.seedSent, c.seedPeers, c.seedFiles, c.swarm, c.reading, c.originRate} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *counters) Collect(ch chan<- prometheus.Metric) {
	each(ch, c.scripts, c.s.boot.Counts())
	each(ch, c.machines, c.s.machine.Counts())
	each(ch, c.swarm, c.s.swarm.Counts())
	reading, rate := map[string]int{}, map[string]float64{}
	for _, v := range c.s.swarm.View("") {
		rate[v.Image] += v.OriginRate
		for _, m := range v.Machines {
			if !m.Done {
				reading[v.Image]++
			}
		}
	}
	for image, r := range rate {
		ch <- prometheus.MustNewConstMetric(c.reading, prometheus.GaugeValue, float64(reading[image]), image)
		ch <- prometheus.MustNewConstMetric(c.originRate, prometheus.GaugeValue, r, image)
	}
	if c.s.dhcp != nil {
		each(ch, c.dhcp, c.s.dhcp.Counters())
		for _, p := range c.s.dhcp.Pools() {
			ch <- prometheus.MustNewConstMetric(c.poolSize, prometheus.GaugeValue, float64(p.Size), p.Subnet.String())
			ch <- prometheus.MustNewConstMetric(c.poolUsed, prometheus.GaugeValue, float64(p.Active), p.Subnet.String())
		}
	}
	if c.s.torrent.seeds() {
		n := c.s.torrent.seed.Stats()
		ch <- prometheus.MustNewConstMetric(c.seedSent, prometheus.CounterValue, float64(n.Sent))
		ch <- prometheus.MustNewConstMetric(c.seedPeers, prometheus.GaugeValue, float64(n.Peers))
		ch <- prometheus.MustNewConstMetric(c.seedFiles, prometheus.GaugeValue, float64(n.Releases))
	}
	if c.s.tftp != nil {
		n := c.s.tftp.Counters()
		each(ch, c.tftp, n)
		ch <- prometheus.MustNewConstMetric(c.tftpActive, prometheus.GaugeValue, float64(n.Active))
	}
}

// each sends the fields of a struct of counters that only grow: int64 and uint64. An int goes up and down.
func each(ch chan<- prometheus.Metric, d *prometheus.Desc, counts any) {
	v := reflect.ValueOf(counts)
	for i := range v.NumField() {
		n := 0.0
		switch f := v.Field(i); f.Kind() {
		case reflect.Int64:
			n = float64(f.Int())
		case reflect.Uint64:
			n = float64(f.Uint())
		default:
			continue
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, snake(v.Type().Field(i).Name))
	}
}

// snake writes LocalBoot as local_boot.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
