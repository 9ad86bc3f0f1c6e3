package ctl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"imgbuild/server/client"
	"imgbuild/server/ctl/show"
	"imgbuild/server/registry"
)

// Images lists the releases that machines can be installed with.
func (t *Tool) Images(ctx context.Context) error {
	images, err := t.Client.Images(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	slices.SortStableFunc(images, func(a, b client.Image) int { return cmp.Compare(a.Name, b.Name) })
	var rows [][]string
	for _, i := range images {
		size := ""
		if i.Bytes > 0 {
			size = show.Bytes(i.Bytes)
		}
		rows = append(rows, []string{i.ID(), i.Arch, i.Kernel, size, cmp.Or(i.Problem, "good")})
	}
	return t.print(orEmpty(images), []string{"IMAGE", "ARCH", "KERNEL", "SIZE", "STATE"}, rows, "the server has no image")
}

// Queue prints who installs and who waits.
func (t *Tool) Queue(ctx context.Context) error {
	q, err := t.Client.Queue(ctx)
	if err != nil {
		return fmt.Errorf("read the queue: %w", err)
	}
	if t.Format != show.Table {
		return show.Value(t.Out, t.Format, q)
	}
	now := t.Now().In(t.Zone)
	var rows [][]string
	add := func(place string, o registry.Order, since string) {
		rows = append(rows, []string{place, o.SN, o.Image, o.ID, o.By, since})
	}
	for _, o := range q.Running {
		add("runs", o, "for "+show.Duration(now.Sub(o.Started)))
	}
	for i, o := range q.Waiting {
		add(strconv.Itoa(i+1), o, "for "+show.Duration(now.Sub(o.Consumed)))
	}
	return t.print(q, []string{"PLACE", "SN", "IMAGE", "ORDER", "BY", "SINCE"}, rows, "nothing installs and nothing waits")
}

// Tokens lists the API's tokens.
func (t *Tool) Tokens(ctx context.Context) error {
	tokens, err := t.Client.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	now := t.Now().In(t.Zone)
	var rows [][]string
	for _, k := range tokens {
		rows = append(rows, []string{k.Name, string(k.Role), show.Ago(k.Created, now), cmp.Or(show.Ago(k.Expires, now), "never")})
	}
	return t.print(orEmpty(tokens), []string{"NAME", "ROLE", "MADE", "EXPIRES"}, rows, "there is no token")
}

// CreateToken makes a token and prints its secret, this once: alone on Out, so that it can go straight into a file.
func (t *Tool) CreateToken(ctx context.Context, name, role, expires string) error {
	at, err := parseExpiry(expires, t.Now().In(t.Zone))
	if err != nil {
		return err
	}
	k, err := t.Client.CreateToken(ctx, client.NewToken{Name: name, Role: role, Expires: at})
	if err != nil {
		return fmt.Errorf("make a token for %s: %w", name, err)
	}
	if t.Format != show.Table {
		return show.Value(t.Out, t.Format, k)
	}
	fmt.Fprintf(t.Err, "a token for %s with the role %s; the server does not show it again:\n", show.Clean(k.Name), k.Role)
	_, err = fmt.Fprintln(t.Out, k.Secret)
	return err
}

// RevokeTokens ends tokens, by their names.
func (t *Tool) RevokeTokens(ctx context.Context, names []string) error {
	out, err := each(ctx, t, "tokens revoked", names, itself, func(ctx context.Context, name string) (string, error) {
		return name, t.Client.RevokeToken(ctx, name)
	})
	if err != nil {
		return fmt.Errorf("revoke tokens: %w", err)
	}
	for _, name := range good(out) {
		t.said("%s: revoked", show.Clean(name))
	}
	return failures(t, "tokens", out)
}
