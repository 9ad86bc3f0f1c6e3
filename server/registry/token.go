package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"
)

// Role is what the owner of a token may do. Each may do what those before it may.
type Role string

// The roles.
const (
	RoleRead    Role = "read"    // look
	RoleOperate Role = "operate" // write hosts, make orders
	RoleAdmin   Role = "admin"   // make tokens
)

func (r Role) rank() int {
	switch r {
	case RoleRead:
		return 1
	case RoleOperate:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// Allows reports whether the role may do what needs another.
func (r Role) Allows(need Role) bool { return need.rank() > 0 && r.rank() >= need.rank() }

// Token is a person's or program's key to the API. Its secret is not kept.
type Token struct {
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero is never
}

// tokenPrefix lets people and scanners know a secret that has got somewhere where it should not be.
const tokenPrefix = "imgt_"

// Digest is how secrets and nonces are stored: SHA-256, in hex. They are long and random, so that no salt and no slow hash
// makes them safer.
func Digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func scanToken(row scanner) (t Token, err error) {
	var role string
	var created, expires int64
	err = row.Scan(&t.Name, &role, &created, &expires)
	t.Role, t.Created, t.Expires = Role(role), moment(created), moment(expires)
	return t, err
}

// CreateToken makes a token and returns its secret, which nobody can be told again. A zero expires is never. A name that is
// taken is ErrConflict, unless that token has expired.
func (s *Store) CreateToken(ctx context.Context, name string, role Role, expires time.Time) (secret string, token *Token, err error) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // it never fails (crypto/rand)
	secret = tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	err = s.write(ctx, "create token "+name, func(ctx context.Context, t *tx) error {
		var e Invalid
		if problem := checkLine(name); problem != "" || name == "" {
			e.add("name", "a name of one line is wanted")
		}
		if role.rank() == 0 {
			e.add("role", "%q is none of read, operate and admin", role)
		}
		if !expires.IsZero() && !t.now.Before(expires) {
			e.add("expires", "%s has passed", expires.UTC().Format(time.RFC3339))
		}
		if err := e.orNil(); err != nil {
			return err
		}
		if _, err := t.exec(ctx, `DELETE FROM tokens WHERE name = ? AND expires > 0 AND expires <= ?`, name, stamp(t.now)); err != nil {
			return err
		}
		n, err := t.exec(ctx, `INSERT INTO tokens (name, digest, role, created, expires) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			name, Digest(secret), string(role), stamp(t.now), stamp(expires))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("there is a token of this name: revoke it first: %w", ErrConflict)
		}
		t.append(Event{Kind: "token", Text: fmt.Sprintf("token %s with the role %s created", name, role)})
		token = &Token{Name: name, Role: role, Created: moment(stamp(t.now)), Expires: moment(stamp(expires))}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return secret, token, nil
}

// Authenticate returns the token that a secret belongs to; ErrNotFound if there is none, or it has expired.
func (s *Store) Authenticate(ctx context.Context, secret string) (token *Token, err error) {
	err = s.ask(ctx, "check token", func(ctx context.Context, t *tx) error {
		token, err = first(ctx, t, scanToken, `SELECT name, role, created, expires FROM tokens WHERE digest = ? AND (expires = 0 OR expires > ?)`, Digest(secret), stamp(t.now))
		if err == nil && token == nil {
			err = fmt.Errorf("it is not known or has expired: %w", ErrNotFound)
		}
		return err
	})
	return token, err
}

// Tokens lists all tokens by name, those that have expired too.
func (s *Store) Tokens(ctx context.Context) (list []Token, err error) {
	err = s.ask(ctx, "list tokens", func(ctx context.Context, t *tx) (err error) {
		list, err = all(ctx, t, scanToken, `SELECT name, role, created, expires FROM tokens ORDER BY name`)
		return err
	})
	return list, err
}

// RevokeToken makes a token's secret worthless at once.
func (s *Store) RevokeToken(ctx context.Context, name string) error {
	return s.write(ctx, "revoke token "+name, func(ctx context.Context, t *tx) error {
		n, err := t.exec(ctx, `DELETE FROM tokens WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		t.append(Event{Kind: "token", Text: "token " + name + " revoked"})
		return nil
	})
}
