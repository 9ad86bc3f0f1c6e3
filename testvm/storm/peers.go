package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"imgbuild/testvm"
)

// peers has n machines ask dnsmasq and nginx for what these can do.
func (l *lab) peers(ctx context.Context, n int) error {
	machines := newMachines(n)
	if l.o.Dnsmasq == "" {
		fmt.Fprintln(l.o.Out, "    there is no dnsmasq to compare DHCP with")
	} else if err := l.dnsmasq(ctx, machines); err != nil {
		return err
	}
	if l.o.Nginx == "" {
		fmt.Fprintln(l.o.Out, "    there is no nginx to compare HTTP with")
		return nil
	}
	return l.nginx(ctx, machines)
}

// dnsmasqParallel is how many machines ask dnsmasq at the same time: its socket has room for some hundred messages, and it
// loses what comes beyond them, which then comes again seconds later.
const dnsmasqParallel = 64

// dnsmasq gives each machine the address that is written down for its MAC, as imgserve does, and tells iPXE the same.
func (l *lab) dnsmasq(ctx context.Context, machines []*machine) error {
	dir, err := l.work("dnsmasq")
	if err != nil {
		return err
	}
	var hosts strings.Builder
	for _, m := range machines {
		fmt.Fprintf(&hosts, "%s,%s,%s\n", m.mac, m.addr, m.sn)
	}
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, []byte(hosts.String()), 0o644); err != nil {
		return fmt.Errorf("write dnsmasq's hosts: %w", err)
	}
	p, err := l.network.Namespace().Start(exec.Command(l.o.Dnsmasq,
		"--no-daemon", "--conf-file=/dev/null", "--log-facility="+filepath.Join(dir, "log"), "--user=root", "--pid-file=", "--port=0", "--no-hosts", "--no-resolv",
		"--interface="+bridgeName, "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
		"--dhcp-leasefile="+filepath.Join(dir, "leases"), fmt.Sprintf("--dhcp-lease-max=%d", 2*MostMachines), "--dhcp-hostsfile="+file,
		"--dhcp-range=10.80.0.2,static,255.255.0.0,12h", "--dhcp-match=set:ipxe,175", "--dhcp-boot=tag:ipxe,"+testvm.ServerURL+"/boot/ipxe"))
	if err != nil {
		return err
	}
	defer p.Kill()
	l.relay.repeated.Store(0)
	// The first machine asks until dnsmasq is there, and again with the others.
	if _, _, err := l.relay.lease(ctx, machines[0]); err != nil {
		return fmt.Errorf("dnsmasq: %w", err)
	}
	l.relay.repeated.Store(0)
	var lost atomic.Int64
	what := fmt.Sprintf("dnsmasq: DHCP, %d at a time", dnsmasqParallel)
	r, err := wave(ctx, what, len(machines), dnsmasqParallel, &usage{p.PID()}, func(ctx context.Context, i int) error {
		if _, _, err := l.relay.lease(ctx, machines[i]); err != nil {
			lost.Add(1) // that is a figure too
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.repeated = l.relay.repeated.Load()
	l.table.print(r)
	if n := lost.Load(); n > 0 {
		fmt.Fprintf(l.o.Out, "    dnsmasq has not answered %d of %d machines\n", n, len(machines))
	}
	l.table.compare(l.ours.dhcp, r, "dnsmasq")
	return nil
}

// nginxAddr is where nginx listens, beside imgserve's address.
const nginxAddr = "10.77.0.1:8081"

// nginx serves a file like the script, and the release.
func (l *lab) nginx(ctx context.Context, machines []*machine) error {
	dir, err := l.work("nginx")
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`worker_processes auto;
daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
    access_log %[1]s/access.log;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
    server {
        listen %[2]s;
        location / { root %[1]s; }
        location /images/ { alias %[3]s/; }
    }
}
user root;
`, dir, nginxAddr, filepath.Dir(filepath.Dir(l.o.Release)))
	for name, data := range map[string][]byte{"nginx.conf": []byte(conf), "ipxe": l.ours.scriptText} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("write nginx's files: %w", err)
		}
	}
	// nginx's workers outlive a master that is killed; no process outlives the first of its PID namespace.
	p, err := l.network.Namespace().Start(exec.Command("unshare", "--pid", "--fork", "--kill-child", l.o.Nginx, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", filepath.Join(dir, "nginx.conf")))
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := awaitTCP(ctx, nginxAddr, p); err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	for _, c := range []struct {
		what string
		ours *row
		get  func(context.Context, *machine) error
	}{
		{"nginx: a file as long as the script", l.ours.script, func(ctx context.Context, m *machine) error {
			_, err := l.fetch(ctx, m, nginxAddr, "/ipxe")
			return err
		}},
		{"nginx: " + smallFile + " of the release", l.ours.file, func(ctx context.Context, m *machine) error {
			return l.fetchFile(ctx, m, nginxAddr, "/images/"+l.releaseRef()+"/"+smallFile)
		}},
	} {
		r, err := wave(ctx, c.what, len(machines), l.o.Parallel, &usage{p.PID()}, func(ctx context.Context, i int) error { return c.get(ctx, machines[i]) })
		if err != nil {
			return err
		}
		l.table.print(r)
		l.table.compare(c.ours, r, "nginx")
	}
	return nil
}

// awaitTCP waits until a program that says nothing when it is ready takes connections.
func awaitTCP(ctx context.Context, address string, p *testvm.Process) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp4", address)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-t.C:
		case <-p.Done():
			return fmt.Errorf("it ended at once: %w", p.Err())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
