package profiles

import "testing"

func TestTheInstallerHasTorrentWhereThereAreServers(t *testing.T) {
	yes, no := true, false
	for name, test := range map[string]struct {
		initramfs Initramfs
		want      bool
	}{
		"nothing is said":                {Initramfs{}, true},
		"servers and hypervisors":        {Initramfs{Network: []string{"virtual", "server"}, Storage: []string{"virtual"}}, true},
		"a server's disks":               {Initramfs{Network: []string{"virtual"}, Storage: []string{"server"}}, true},
		"hypervisors alone":              {Initramfs{Network: []string{"virtual"}, Storage: []string{"virtual"}}, false},
		"hypervisors alone, and a wish":  {Initramfs{Network: []string{"virtual"}, Storage: []string{"virtual"}, Torrent: &yes}, true},
		"servers, and a wish against it": {Initramfs{Torrent: &no}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := Profile{Initramfs: test.initramfs}
			p.fillDefaults()
			if *p.Initramfs.Torrent != test.want {
				t.Errorf("it is %v", *p.Initramfs.Torrent)
			}
		})
	}
}
