package hostfile

import (
	"strings"

	"imgbuild/profiles/strict"
)

// synonyms are names that other tools and spreadsheets use.
var synonyms = map[string]string{
	"serial": "sn", "serialnumber": "sn", "s/n": "sn", "sno": "sn", "servicetag": "sn", "assettag": "sn",
	"host": "hostname", "name": "hostname", "fqdn": "hostname", "servername": "hostname", "node": "hostname",
	"address": "ip", "addr": "ip", "ipaddress": "ip", "ipaddr": "ip", "ipv4": "ip", "ipv6": "ip",
	"mask": "netmask", "subnetmask": "netmask", "prefix": "netmask", "prefixlen": "netmask", "cidr": "netmask",
	"gateway": "gw", "defaultgateway": "gw", "defaultgw": "gw", "router": "gw", "defaultroute": "gw",
	"nameserver": "dns", "nameservers": "dns", "dnsservers": "dns", "resolver": "dns",
	"domain": "search", "domains": "search", "searchdomain": "search", "dnssearch": "search",
	"mac": "macs", "macaddress": "macs", "macaddr": "macs", "hwaddr": "macs", "ethernet": "macs",
	"product": "model", "productname": "model", "type": "model",
	"profile": "image", "os": "image", "release": "image", "distro": "image", "template": "image",
	"unit": "position", "slot": "position", "u": "position", "rackunit": "position", "cabinet": "rack",
	"console": "serial_console", "tty": "serial_console", "contact": "owner", "team": "owner", "department": "owner",
	"protected": "protect", "locked": "protect", "meta": "metadata", "tags": "metadata", "vars": "metadata", "variables": "metadata",
	"bmc": "oob.address", "ipmi": "oob.address", "ilo": "oob.address", "idrac": "oob.address", "oobip": "oob.address",
	"bmcip": "oob.address", "ipmiip": "oob.address", "bmcaddress": "oob.address", "ipmiaddress": "oob.address", "oobaddress": "oob.address",
	"bmcuser": "oob.user", "ipmiuser": "oob.user", "oobuser": "oob.user", "bmcpassword": "oob.password", "ipmipassword": "oob.password",
	"oobpassword": "oob.password", "bmctype": "oob.type", "oobtype": "oob.type", "oobnetmask": "oob.netmask", "oobgateway": "oob.gateway",
	"oobgw": "oob.gateway", "sshkeys": "users", "interfaces": "network", "networking": "network", "bonds": "network",
}

func flat(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "", ".", "").Replace(strings.ToLower(s))
}

// suggest returns the field that was probably meant by got, or nothing when none is near.
func suggest(got string, names []string) string {
	g := flat(got)
	for _, n := range names {
		if flat(n) == g || synonyms[g] == n {
			return n
		}
	}
	if s := strict.Suggest(got, names); s != "" {
		return s
	}
	for _, n := range names { // sn, ip and gw are too short to be near anything
		if len(n) == 2 && strings.HasPrefix(g, n) && len(g) <= 4 {
			return n
		}
	}
	return ""
}
