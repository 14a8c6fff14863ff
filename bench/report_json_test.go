package bench

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestJSONThereAndBack(t *testing.T) {
	r := syntheticResult()
	var b bytes.Buffer
	if err := WriteJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r) {
		t.Error("what was read is not what was written")
	}
}

func TestJSONOfAnotherSchemaIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"newer":      {`{"schema": 2, "began": 17}`, "measure again"},
		"none":       {`{"series": []}`, "without a schema"},
		"no JSON":    {`Benchmark`, "is it what"},
		"not a list": {`{"schema": 1, "series": 5}`, "measure again"},
		"empty":      {``, "is it what"},
	} {
		_, err := ReadJSON(strings.NewReader(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestJSONKeepsTheRestOfARunWithABadRound(t *testing.T) {
	r := syntheticResult()
	find(r, "splice", "bulk to node", "throughput", 4).Rounds[3] = nan
	find(r, "copy", "round trip", "p50", 4).Sample[7] = inf
	var b bytes.Buffer
	if err := WriteJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Series) != len(r.Series)-1 {
		t.Errorf("%d series of %d were kept, want all but one", len(got.Series), len(r.Series))
	}
	last := got.Absent[len(got.Absent)-1]
	if last.Way != "splice" || !strings.Contains(last.Why, "bulk to node, 4 connections") {
		t.Errorf("the missing series is not named: %+v", last)
	}
	if find(got, "copy", "round trip", "p50", 4).Sample != nil {
		t.Error("a distribution with what is no number was kept")
	}
	if len(r.Absent) != 1 {
		t.Error("the result itself was changed")
	}
}
