package builder

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"imgbuild/builder/configure"
	"imgbuild/builder/progress"
	"imgbuild/builder/sandbox"
	"imgbuild/builder/tool"
	"imgbuild/builder/tree"
)

// selinuxAttribute holds a file's SELinux label.
const selinuxAttribute = "security.selinux"

// clean removes what is not to be packed and labels what is new.
func (b *build) clean(ctx context.Context) (outcome, error) {
	if err := configure.Clean(b.tree); err != nil {
		return outcome{}, err
	}
	note := ""
	if b.o.Profile.System.SELinux == "disabled" {
		note = "SELinux is disabled: no labels"
	} else if err := b.label(ctx, b.tree, b.root, "/.autorelabel"); err != nil {
		return outcome{}, err
	} else if configure.Policy(b.tree) != "" {
		note = "labelled for SELinux"
	}
	return outcome{note: note}, nil
}

// label has the image's setfiles give every file the label that the image's policy has for it. The host's policy, if it
// has any, does not matter as long as root may write the attribute. Where labels cannot be set, the file named by
// instead is made, which has the installed system label itself when it first boots; empty means do nothing then.
func (b *build) label(ctx context.Context, t *tree.Tree, root, instead string) error {
	policy := configure.Policy(t)
	if policy == "" || b.o.Profile.System.SELinux == "disabled" {
		return nil
	}
	err := b.setfiles(ctx, t, root, policy)
	if ctx.Err() != nil {
		return err
	}
	if err == nil && labelled(t, root) {
		return nil
	}
	b.runner.Note("labels could not be set: %v", err)
	if instead == "" {
		return nil
	}
	b.note("SELinux labels cannot be set on this host: the installed system sets them at its first boot and reboots once")
	return t.WriteFile(instead, nil, tree.RootFile())
}

func (b *build) setfiles(ctx context.Context, t *tree.Tree, root, policy string) error {
	setfiles := t.First("/usr/sbin/setfiles", "/sbin/setfiles")
	if setfiles == "" {
		return errors.New("the image has no setfiles (package policycoreutils)")
	}
	contexts := path.Join("/etc/selinux", policy, "contexts/files/file_contexts")
	m := &sandbox.Mounts{}
	err := m.Populate(root, sandbox.System{})
	if err == nil {
		// -m: the kernel's list of file systems with labels is the host's, and says nothing here.
		err = b.runner.Run(ctx, tool.Command{
			Argv: []string{setfiles, "-F", "-m", "-e", "/proc", "-e", "/sys", "-e", "/dev", contexts, "/"},
			Root: root, NoNetwork: true, Env: b.env(), Line: stepLines(b.o.Report, "labelling"),
		})
	}
	return errors.Join(err, m.Close())
}

// labelled looks at a file that every image has, to see that labels stay.
func labelled(t *tree.Tree, root string) bool {
	name := t.First("/usr/bin/bash", "/etc/passwd")
	if name == "" {
		return false
	}
	n, err := unix.Lgetxattr(path.Join(root, name), selinuxAttribute, make([]byte, 256))
	return err == nil && n > 0
}

// stepLines shows a tool's lines as a stage's progress.
func stepLines(r Reporter, what string) func(string) {
	n := int64(0)
	return func(line string) {
		n++
		if len(line) > 60 {
			line = line[:60]
		}
		r.Step(progress.Step{Text: what + ": " + line, Done: n})
	}
}
