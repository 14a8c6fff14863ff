package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// WriteJSON writes a result so that ReadJSON reads it. JSON has no word for what is
// no number: a series with such a round becomes an Absent.
func WriteJSON(w io.Writer, r *Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(numbersOnly(r)); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// ReadJSON reads what WriteJSON has written. It refuses a result of another Schema.
func ReadJSON(rd io.Reader) (*Result, error) {
	data, err := io.ReadAll(rd)
	if err != nil {
		return nil, fmt.Errorf("reading the result: %w", err)
	}
	var version struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("reading the result: %v (is it what `oneport bench --json` wrote?)", err)
	}
	if version.Schema == nil {
		return nil, fmt.Errorf("a result without a schema: give what `oneport bench --json` wrote")
	}
	if *version.Schema != Schema {
		return nil, fmt.Errorf("a result of schema %d, where this oneport reads %d: use the oneport that wrote it, or measure again", *version.Schema, Schema)
	}
	r := &Result{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading the result: %v (measure again)", err)
	}
	return r, nil
}

// numbersOnly returns a result without the series that JSON cannot hold, or the same
// result if it can hold all.
func numbersOnly(r *Result) *Result {
	bad := func(v []float64) bool {
		return slices.ContainsFunc(v, func(x float64) bool { return !finite(x) })
	}
	if !slices.ContainsFunc(r.Series, func(s Series) bool { return bad(s.Rounds) || bad(s.Sample) }) {
		return r
	}
	clean := *r
	clean.Series, clean.Absent = nil, slices.Clone(r.Absent)
	for _, s := range r.Series {
		if bad(s.Sample) {
			s.Sample = nil
		}
		if bad(s.Rounds) {
			clean.Absent = append(clean.Absent, Absent{s.Layout, s.Group, s.Way,
				fmt.Sprintf("a round of %s, %s is no number", workText(s.Point), s.Metric)})
			continue
		}
		clean.Series = append(clean.Series, s)
	}
	return &clean
}
