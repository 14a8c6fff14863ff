package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"oneport/door"
)

func newAlias(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "alias",
		Short: "Add, remove or list further names of nodes",
		Long: `Add, remove or list aliases: further names by which clients may ask for the
nodes of this host. The distribution's handshake insists on the name that a node
knows itself by; oneport:connect/1 of the OTP application learns it from here.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newAliasAdd(e), newAliasRemove(e), newAliasList(e))
	return c
}

func newAliasAdd(e *env) *cobra.Command {
	var daemon client
	c := &cobra.Command{
		Use:   "add ALIAS TARGET",
		Short: "Add a further name of a node",
		Long: `Add the name ALIAS of the node TARGET, which is the name of a registered node
or a full name, NAME@HOST, as the node itself knows it. With a full name the
node need not be registered yet, and is not asked what it is called.

A registered node of the name ALIAS is meant before the alias. An alias leads
to no other alias. The daemon forgets it when it ends; to keep it, give
--alias ALIAS=TARGET to oneport serve.`,
		Example: `  oneport alias add api web
  oneport alias add api web@10-0-3-7.internal`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			a := door.Alias{Name: args[0], Target: args[1]}
			if err := a.Validate(); err != nil {
				return err
			}
			if err := daemon.addAlias(c.Context(), a); err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "added alias %s of %s\n", a.Name, a.Target)
			return nil
		},
	}
	daemon.flag(c)
	return c
}

func newAliasRemove(e *env) *cobra.Command {
	var daemon client
	c := &cobra.Command{
		Use:   "remove ALIAS",
		Short: "Remove a further name of a node",
		Long: `Remove an alias. Connections that came by it stay. One of --alias of oneport
serve is back when the daemon starts again.`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var aliases []door.AliasInfo
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			if err := daemon.get(c.Context(), "aliases", &aliases); err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			var names []string
			for _, a := range aliases {
				names = append(names, a.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := daemon.removeAlias(c.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(e.stdout, "removed alias %s\n", args[0])
			return nil
		},
	}
	daemon.flag(c)
	return c
}

func newAliasList(e *env) *cobra.Command {
	var daemon client
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the further names of nodes",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var aliases []door.AliasInfo
			if err := daemon.get(c.Context(), "aliases", &aliases); err != nil {
				return err
			}
			if asJSON {
				return printJSON(e, aliases)
			}
			if len(aliases) == 0 {
				fmt.Fprintln(e.stdout, "there are no aliases")
				return nil
			}
			t := newTable(e, "ALIAS", "TARGET", "STATE")
			for _, a := range aliases {
				t.row(a.Name, a.Target, aliasState(a))
			}
			return t.flush()
		},
	}
	daemon.flag(c)
	jsonFlag(c, &asJSON)
	return c
}

// aliasState says in a few words where an alias leads now.
func aliasState(a door.AliasInfo) string {
	switch {
	case a.Shadowed:
		return "shadowed: a node " + a.Name + " is registered"
	case a.Registered:
		return "registered"
	}
	return "not registered"
}

// changed is the answer to a change of the aliases.
type changed struct {
	Error string `json:"error,omitempty"` // why nothing was changed
}

// routeAliases adds the routes of the aliases to the control socket.
func routeAliases(mux *http.ServeMux, d *door.Door) {
	mux.HandleFunc("GET /v1/aliases", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.Aliases()) })
	mux.HandleFunc("POST /v1/aliases", func(w http.ResponseWriter, r *http.Request) {
		var answer changed
		if err := d.AddAlias(door.Alias{Name: r.FormValue("alias"), Target: r.FormValue("target")}); err != nil {
			answer.Error = err.Error()
		}
		reply(w, answer)
	})
	mux.HandleFunc("DELETE /v1/aliases", func(w http.ResponseWriter, r *http.Request) {
		var answer changed
		if alias := r.FormValue("alias"); !d.RemoveAlias(alias) {
			answer.Error = fmt.Sprintf("there is no alias %q; see `oneport alias list`", alias)
		}
		reply(w, answer)
	})
}

func (c *client) addAlias(ctx context.Context, a door.Alias) error {
	return c.change(ctx, http.MethodPost, url.Values{"alias": {a.Name}, "target": {a.Target}})
}

func (c *client) removeAlias(ctx context.Context, alias string) error {
	return c.change(ctx, http.MethodDelete, url.Values{"alias": {alias}})
}

func (c *client) change(ctx context.Context, method string, form url.Values) error {
	var answer changed
	err := c.do(ctx, method, "aliases?"+form.Encode(), &answer)
	if err == nil && answer.Error != "" {
		err = failed(errors.New(answer.Error))
	}
	return err
}
