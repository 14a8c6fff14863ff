// Package bench measures what each way of serving a connection costs: direct TCP,
// handed over, the shortcut in its forms, splice, copy, and what a user would take
// instead of oneport.
//
// The ways take turns within every round, in an order that is drawn anew, so that
// whatever disturbs the machine disturbs all of them; what counts is the ratio to
// the baseline of the same round. What arrives is checked, so that a way which
// loses bytes cannot win. It is `oneport bench`, and knows nothing of what the
// figures are good for.
package bench
