package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"oneport/door"
)

func TestAliasesAreAddedListedAndRemoved(t *testing.T) {
	addr, socket := daemon(t)
	node(t, addr)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"list"}, 0, "there are no aliases\n"},
		{[]string{"add", "www", "b"}, 0, "added alias www of b\n"},
		{[]string{"add", "api", "web@10-0-3-7.internal"}, 0, "added alias api of web@10-0-3-7.internal\n"},
		{[]string{"add", "www", "c@d"}, exitFailed, "oneport: adding an alias: \"www\" leads to \"b\" already; remove it first\n"},
		{[]string{"add", "x", "nobody"}, exitFailed, "no node \"nobody\" is registered here"},
		{[]string{"add", "x@y", "b"}, exitUsage, "no node's name"},
		{[]string{"list"}, 0, "ALIAS  TARGET                 STATE\napi    web@10-0-3-7.internal  not registered\nwww    b                      registered\n"},
		{[]string{"remove", "www"}, 0, "removed alias www\n"},
		{[]string{"remove", "www"}, exitFailed, "oneport: there is no alias \"www\"; see `oneport alias list`\n"},
	} {
		code, out, errs := oneport(t, append(append([]string{"alias"}, tt.args...), "--control", socket)...)
		if code != tt.code || !strings.Contains(out+errs, tt.says) {
			t.Errorf("alias %v: %d, %s%s", tt.args, code, out, errs)
		}
	}
	_, out, _ := oneport(t, "alias", "list", "--json", "--control", socket)
	var got []door.AliasInfo
	if err := json.Unmarshal([]byte(out), &got); err != nil || !reflect.DeepEqual(got, []door.AliasInfo{{Name: "api", Target: "web@10-0-3-7.internal"}}) {
		t.Errorf("%s: %v", out, err)
	}
	if _, out, _ := oneport(t, "__complete", "alias", "remove", "--control="+socket, ""); !strings.HasPrefix(out, "api\n") {
		t.Errorf("proposed: %s", out)
	}
}
