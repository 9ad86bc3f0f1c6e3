package testvm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// RunLive starts the release on the machine from memory, logs in on its console, asks it for facts and has it power itself off. An
// installer that refuses is an *InstallerError.
func (h *Host) RunLive(ctx context.Context, s Scenario) (f Facts, err error) {
	s = s.withDefaults()
	s.Args = append([]string{modeArg + "live"}, s.Args...)
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("the live start took longer than %v", s.Timeout))
	defer cancel()
	if _, err := Manifest(s.Release); err != nil {
		return f, err
	}
	n, err := h.NewNetwork(ctx, NetworkConfig{Dir: s.Release})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	boot, err := s.bootInstaller(n)
	if err != nil {
		return f, err
	}
	if err := s.makeDisks(); err != nil {
		return f, err
	}
	if s.Prepare != nil {
		s.Prepare(n)
	}
	m, err := n.Start(ctx, s.config(boot, false), s.console("live"))
	if err != nil {
		return f, err
	}
	failed := regexp.MustCompile(`imgbuild: failed: `)
	match, err := m.Console().Expect(ctx, append([]*regexp.Regexp{loginPrompt(), failed}, deadBoots()...)...)
	switch {
	case err != nil:
		return f, fmt.Errorf("start machine %s from memory: %w", s.Name, err)
	case match.Index == 1:
		rest, err := m.Console().expectLine(ctx, []*regexp.Regexp{regexp.MustCompile(`.+`)})
		if err != nil {
			return f, err
		}
		return f, &InstallerError{Sentence: rest.Groups[0]}
	case match.Index != 0:
		return f, fmt.Errorf("start machine %s from memory: it says %q; the console's last lines:\n%s", s.Name, match.Groups[0], m.Console().Tail(25))
	}
	return s.askAndPowerOff(ctx, m)
}

// askAndPowerOff logs in at the prompt, asks for facts, and has the machine power itself off.
func (s Scenario) askAndPowerOff(ctx context.Context, m *Machine) (f Facts, err error) {
	if err := m.Console().logInAtPrompt(ctx, s.User, s.Password); err != nil {
		return f, err
	}
	if f, err = GatherFacts(ctx, m.Console(), FactsOptions{VerifyPackages: s.VerifyPackages}); err != nil {
		return f, err
	}
	if s.Ask != nil {
		if err := s.Ask(ctx, m.Console()); err != nil {
			return f, err
		}
	}
	if err := m.Console().Send("systemctl poweroff\n"); err != nil {
		return f, err
	}
	exit, err := m.Wait(ctx)
	if err == nil && !exit.PoweredOff() {
		err = fmt.Errorf("power machine %s off: it ended by %q; the console's last lines:\n%s", s.Name, exit.Reason, m.Console().Tail(25))
	}
	return f, err
}
