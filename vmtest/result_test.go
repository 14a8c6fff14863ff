package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestReleasesAreCompared(t *testing.T) {
	for _, test := range []struct {
		release, major, minor string
		older                 bool
	}{
		{"5.10.0-32-cloud-amd64", "6", "1", true},
		{"6.1.0-50-cloud-amd64", "6", "1", false},
		{"6.1.0-50-cloud-amd64", "6", "2", true},
		{"6.12.107+deb13-cloud-amd64", "6", "2", false},
		{"7.3.4+deb13-cloud-amd64", "6", "18", false},
	} {
		if older(test.release, test.major, test.minor) != test.older {
			t.Errorf("%s is older than %s.%s: want %v", test.release, test.major, test.minor, test.older)
		}
	}
}

func TestKernelsAreChosenInTheirOrder(t *testing.T) {
	chosen, err := choose("6.12,6.1")
	if err != nil || len(chosen) != 2 || chosen[0].name != "6.1" || chosen[1].name != "6.12" {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := choose("6.1,2.4"); err == nil || !strings.Contains(err.Error(), "2.4") {
		t.Errorf("an unknown series: %v", err)
	}
}

func TestTheTableSaysWhatWorksAndWhyNot(t *testing.T) {
	results := []kernelResult{
		{kernel: kernel{release: "5.10.0", version: "5.10.2-1"}, packages: []packageResult{
			{path: "oneport/relay", passed: []string{"TestIdle", "TestSplicedBytesDoNotEnterTheProcess"}},
			{path: "oneport/loader", passed: []string{"TestRefusal"}, skipped: []skipped{
				{"TestStreamsArriveWhole", "needs Linux 6.1: a bounded queue"},
				{"TestLiveInsert", "needs Linux 6.1: a bounded queue"},
				{"TestA", "needs Linux 5.14: inodes"}, {"TestB", "needs Linux 5.14: inodes"},
				{"TestC", "needs Linux 5.14: inodes"}, {"TestD", "needs Linux 5.14: inodes"},
			}},
		}},
		{kernel: kernel{release: "6.1.0", version: "6.1.2-1"}, packages: []packageResult{
			{path: "oneport/relay", passed: []string{"TestIdle"}, failed: 1, faults: []string{"TestSplice failed"}},
			{path: "oneport/loader", passed: []string{"TestRefusal", "TestStreamsArriveWhole"}},
		}, faults: []string{"the kernel says: WARNING: so"}},
	}
	var table bytes.Buffer
	if err := writeTable(&table, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| Linux | Debian package | shortcut | splice | tests passed | skipped | kernel's log |\n",
		"| 5.10.0 | 5.10.2-1 | off: needs Linux 6.1: a bounded queue | yes | 3 of 3 | 6 | clean |\n",
		"- 5.10.0: skipped of `loader`: `TestStreamsArriveWhole`, `TestLiveInsert`: needs Linux 6.1: a bounded queue\n" +
			"- 5.10.0: skipped of `loader`: 4 tests: needs Linux 5.14: inodes\n",
		"| 6.1.0 | 6.1.2-1 | yes | **fails** | 3 of 4 | 0 | **the kernel says: WARNING: so** |\n",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no line %q in\n%s", want, table.String())
		}
	}
}
