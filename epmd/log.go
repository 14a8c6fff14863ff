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

// verbose tells whether log takes messages of level debug.
func verbose(log logrus.FieldLogger) bool { return enabled(log, logrus.DebugLevel) }

// enabled tells whether log takes messages of a level. Asking before every request
// is cheaper than to write what nobody reads.
func enabled(log logrus.FieldLogger, level logrus.Level) bool {
	switch log := log.(type) {
	case nil:
		return false
	case *logrus.Logger:
		return log.IsLevelEnabled(level)
	case *logrus.Entry:
		return log.Logger.IsLevelEnabled(level)
	}
	return true
}
