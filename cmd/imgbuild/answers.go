package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imgbuild/builder/iso"
	"imgbuild/builder/tool"
	"imgbuild/installer/answers"
)

func answersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "answers FILE [LIVE.ISO COPY.ISO]",
		Short: "Put an answer file onto a copy of a live.iso, which then installs without anybody typing",
		Long: `answers checks an answer file (docs/install.md says what is in it) and prints what it would do to a machine. With a live.iso it
writes a copy of that with the answers on it, whose menu has "Install as the answer file on this medium says".

Nothing chooses that entry by itself. What the answers do not name under "wipe" is not erased: disks that hold anything else are refused.`,
		Example: `  imgbuild answers node1.json
  imgbuild answers node1.json out/web/1/live.iso node1.iso && sudo imgbuild write node1.iso /dev/sdb`,
		RunE: func(c *cobra.Command, args []string) error {
			switch len(args) {
			case 1, 3:
			case 0:
				return usageError{errors.New("imgbuild: answers needs an answer file")}
			case 2:
				return usageError{errors.New("imgbuild: answers needs a name for the copy of the medium: imgbuild answers FILE LIVE.ISO COPY.ISO")}
			default:
				return usageError{fmt.Errorf("imgbuild: answers takes an answer file, a medium and its copy, and %q is one too many", args[3])}
			}
			data, err := readAnswers(args[0])
			if err != nil {
				return err
			}
			a, err := answers.Parse(args[0], data)
			if err != nil {
				return usageError{err}
			}
			if err := describe(c.OutOrStdout(), a); err != nil || len(args) == 1 {
				return err
			}
			return copyWithAnswers(c.Context(), c.OutOrStdout(), data, args[1], args[2])
		},
	}
}

// maxAnswers is more than any answer file has, in bytes; what is larger is another file.
const maxAnswers = 16 << 20

func readAnswers(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usageError{fmt.Errorf("imgbuild: open the answer file: %w", err)}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAnswers))
	if err != nil {
		return nil, fmt.Errorf("read the answer file: %w", err)
	}
	return data, nil
}

// describe says what the answers would do to a machine's disks.
func describe(w io.Writer, a answers.Answers) error {
	list := func(names []string, none string) string {
		if len(names) == 0 {
			return none
		}
		return strings.Join(names, ", ")
	}
	_, err := fmt.Fprintf(w, "installs to: %s\nerases:      %s\n", list(a.Disks, "the disk that the layout chooses, or the only eligible one"), list(a.Wipe, "nothing; a disk that is not empty is refused"))
	if err == nil && a.Host.Hostname != "" {
		_, err = fmt.Fprintf(w, "host name:   %s\n", a.Host.Hostname)
	}
	return err
}

func copyWithAnswers(ctx context.Context, w io.Writer, data []byte, medium, out string) (err error) {
	for _, name := range iso.AnswerTools() {
		if _, err := tool.Find(name); err != nil {
			return fmt.Errorf("%w; make setup installs it", err)
		}
	}
	for _, p := range []*string{&medium, &out} { // xorriso gets no name that could be an option or a drive of its own
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	switch st, err := os.Stat(medium); {
	case errors.Is(err, fs.ErrNotExist):
		return usageError{fmt.Errorf("imgbuild: there is no %s", medium)}
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return usageError{fmt.Errorf("imgbuild: %s is no regular file; name the ISO", medium)}
	}
	if st, err := os.Stat(out); err == nil && !st.Mode().IsRegular() {
		return usageError{fmt.Errorf("imgbuild: %s is no regular file; write the copy to a file, and then to a stick with imgbuild write", out)}
	}
	work, err := os.MkdirTemp("", "imgbuild-answers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	var log bytes.Buffer // what failed says its last lines itself
	m, err := iso.WithAnswers(ctx, tool.NewRunner(&log), work, medium, out, data)
	if err != nil {
		return said(ctx, err)
	}
	st, err := os.Stat(out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "wrote %s, %d MiB: its menu's \"%s\" installs %s %s\n", filepath.Base(out), st.Size()>>20, iso.AnswersEntry, m.Name, m.Version)
	return err
}
