package main

import (
	"fmt"
	"io"
)

// env is what a command needs of the world, so that the whole command line is
// tested in-process.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
}

// failure is an error of what was to be done, not of how it was asked for.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// exitCode ends the program without a further word.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }
