package worker

import (
	"context"

	"imgbuild/image"
	"imgbuild/installer"
	"imgbuild/installer/answers"
	"imgbuild/installer/cmdline"
	"imgbuild/installer/fetch"
	"imgbuild/installer/medium"
)

// maxAnswers bounds an answer file, in bytes.
const maxAnswers = 1 << 20

// answer gets the answer file and tells the installation what it says. All that is wrong with it is an error before anything else is
// looked at.
func (w *worker) answer(ctx context.Context, c *installer.Config) error {
	address, name := c.Args.Answers, fetch.Shown(c.Args.Answers)
	if address == cmdline.AnswersOnMedium {
		address, name = medium.AnswersURL, image.AnswersFile
	}
	f := fetch.New(fetch.Options{Report: w.say, Proxy: c.Args.Proxy, Transport: w.system.Transport})
	data, err := f.Small(ctx, address, maxAnswers)
	if err != nil {
		return err
	}
	a, err := answers.Parse(name, data)
	if err != nil {
		return err
	}
	w.say.Info("answers: %s", name)
	c.Machine = w.machine
	a.Apply(c, w.cards())
	return nil
}
