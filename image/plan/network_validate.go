package plan

import (
	"errors"
	"fmt"
	"regexp"
)

var linkName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`)

// Validate checks that the network does not contradict itself; all that is wrong is in the one error.
func (n *Network) Validate() error {
	c := checker{kinds: map[string]string{}, used: map[string]string{}}
	for _, e := range n.Ethernets {
		c.name(e.Name, "ethernet")
	}
	for _, b := range n.Bonds {
		c.name(b.Name, "bond")
	}
	for _, t := range n.Teams {
		c.name(t.Name, "team")
	}
	for _, v := range n.VLANs {
		c.name(v.Name, "vlan")
	}
	for _, b := range n.Bonds {
		c.members(b.Name, b.Members)
	}
	for _, t := range n.Teams {
		c.members(t.Name, t.Members)
	}
	return errors.Join(c.errs...)
}

type checker struct {
	kinds map[string]string // by name
	used  map[string]string // the bond or team of a member
	errs  []error
}

func (c *checker) bad(format string, a ...any) {
	c.errs = append(c.errs, fmt.Errorf("network: "+format, a...))
}

func (c *checker) name(name, kind string) {
	if !linkName.MatchString(name) {
		c.bad("%s %q: a name has 1 to 15 letters, digits, dots, dashes and underscores, and begins with a letter", kind, name)
	}
	if other, ok := c.kinds[name]; ok {
		c.bad("%s %s: there is already a %s of this name", kind, name, other)
	}
	c.kinds[name] = kind
}

func (c *checker) members(of string, members []string) {
	if len(members) == 0 {
		c.bad("%s has no members", of)
	}
	for _, m := range members {
		if c.kinds[m] != "ethernet" {
			c.bad("%s: its member %s is not one of the ethernets", of, m)
		}
		if other, ok := c.used[m]; ok {
			c.bad("%s: its member %s belongs to %s already", of, m, other)
		}
		c.used[m] = of
	}
}
