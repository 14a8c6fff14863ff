package epmd

import (
	"io"

	"github.com/sirupsen/logrus"
)

// logger returns log, or one that discards everything.
func logger(log logrus.FieldLogger) logrus.FieldLogger {
	if log != nil {
		return log
	}
	discard := logrus.New()
	discard.SetOutput(io.Discard)
	discard.SetLevel(logrus.PanicLevel)
	return discard
}

// verbose tells whether log takes messages of level debug. Asking before every
// request is cheaper than to write what nobody reads.
func verbose(log logrus.FieldLogger) bool {
	switch log := log.(type) {
	case nil:
		return false
	case *logrus.Logger:
		return log.IsLevelEnabled(logrus.DebugLevel)
	case *logrus.Entry:
		return log.Logger.IsLevelEnabled(logrus.DebugLevel)
	}
	return true
}
