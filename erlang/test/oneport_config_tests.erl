%% The settings: what may be written, what wins, and what is said when it is wrong.
-module(oneport_config_tests).
-include_lib("eunit/include/eunit.hrl").

defaults_test() ->
    ?assertEqual({ok, #{port => 4369, via => [], method => upgrade, request => connect,
                        listen => false, node_socket => "/run/oneport/node.sock"}},
                 oneport_config:read([], [])).

otp_adds_a_key_to_every_environment_test() ->
    ?assertMatch({ok, _}, oneport_config:read([], [{included_applications, []}])).

port_test_() ->
    [?_assertMatch({ok, #{port := Port}}, oneport_config:read(Flags, Env))
     || {Port, Flags, Env} <- [{1, [["port", "1"]], []},
                               {65535, [["port=65535"]], []},
                               {4370, [], [{port, 4370}]},
                               {4370, [], [{port, "4370"}]},
                               {4370, [], [{port, <<"4370">>}]}]].

request_test_() ->
    [?_assertMatch({ok, #{request := get}}, oneport_config:read(Flags, Env))
     || {Flags, Env} <- [{[["request", "get"]], []},
                         {[["request=get"]], []},
                         {[], [{request, get}]},
                         {[], [{request, <<"get">>}]}]].

method_and_listen_test_() ->
    [?_assertMatch({ok, #{method := handover, listen := true}}, oneport_config:read(Flags, Env))
     || {Flags, Env} <- [{[["method", "handover", "listen", "true"]], []},
                         {[["method=handover"], ["listen=true"]], []},
                         {[], [{method, handover}, {listen, true}]},
                         {[], [{method, <<"handover">>}, {listen, "true"}]}]].

node_socket_test_() ->
    Longest = "/" ++ lists:duplicate(106, $x),
    [?_assertMatch({ok, #{node_socket := Path}}, oneport_config:read(Flags, Env))
     || {Path, Flags, Env} <- [{"/run/x.sock", [["node_socket=/run/x.sock"]], []},
                               {"/run/x.sock", [["node_socket", "/run/x.sock"]], []},
                               {"/run/x.sock", [], [{node_socket, <<"/run/x.sock">>}]},
                               {Longest, [["node_socket=" ++ Longest]], []}]].

via_test_() ->
    All = {"*", "gw.example", 443},
    [?_assertEqual({Via, Written},
                   {maps:get(via, element(2, oneport_config:read(Flags, Env))), Written})
     || {Via, Flags, Env} = Written <-
            [{[All], [["via", "gw.example:443"]], []},
             {[All], [["via", "\"gw.example:443\""]], []},
             {[All], [["via=gw.example:443"]], []},
             {[All], [], [{via, "gw.example:443"}]},
             {[All], [], [{via, <<"gw.example:443">>}]},
             {[{"*", "2001:db8::1", 443}], [["via=[2001:db8::1]:443"]], []},
             {[{"*.a.example", "gw", 1}, {"*", "gw", 2}],
              [["via", "*.A.example=gw:1"], ["via", "gw:2"]], []},
             {[{"*.a.example", "gw", 1}], [["via=*.a.example=gw:1"]], []},
             {[{"*.a", "gw", 1}, {"b", "gw", 2}], [],
              [{via, [{"*.a", "gw:1"}, {<<"b">>, <<"gw:2">>}]}]},
             {[], [["via="]], []},
             {[], [], [{via, []}]}]].

several_settings_in_one_flag_test() ->
    ?assertMatch({ok, #{port := 4370, via := [{"*", "gw", 1}], request := get}},
                 oneport_config:read([["port", "4370", "request", "get"], ["via=gw:1"]], [])).

the_command_line_wins_test() ->
    Env = [{port, 1}, {request, get}, {via, [{"a", "env:1"}, {"b", "env:1"}]}],
    ?assertMatch({ok, #{port := 2, via := [{"*", "line", 2}], request := connect}},
                 oneport_config:read([["port", "2"], ["request", "connect"], ["via", "line:2"]], Env)),
    ?assertMatch({ok, #{port := 1, via := []}}, oneport_config:read([["via="]], Env)).

the_last_of_two_ports_wins_test() ->
    ?assertMatch({ok, #{port := 2}}, oneport_config:read([["port", "1"], ["port", "2"]], [])).

the_first_pattern_that_matches_wins_test_() ->
    {ok, Settings} = oneport_config:read([["via=db*.example=a:1"], ["via=*.example=b:2"],
                                          ["via=10.*.0.?=c:3"], ["port=4370"]], []),
    [?_assertEqual({Host, Door}, {Host, oneport_config:door(Host, Settings)})
     || {Host, Door} <- [{"db1.example", {via, "a", 1}},
                         {"db.example", {via, "a", 1}},
                         {"DB1.Example", {via, "a", 1}},
                         {"x.db1.example", {via, "b", 2}},
                         {".example", {via, "b", 2}},
                         {"example", {direct, "example", 4370}},
                         {"10.0.0.?", {via, "c", 3}},
                         {"10.0.0.1", {direct, "10.0.0.1", 4370}},
                         {"Other", {direct, "Other", 4370}}]].

%% Every refusal names the key, the value and what was expected.
wrong_test_() ->
    TooLong = "/" ++ lists:duplicate(107, $x),
    Known = "there are port, via, method, request, listen, node_socket",
    [{Says, ?_assertEqual(Says, says(oneport_config:read(Flags, Env)))}
     || {Says, Flags, Env} <-
            [{"setting port is \"0\": expected an integer from 1 to 65535", [["port", "0"]], []},
             {"setting port is \"65536\": expected an integer from 1 to 65535", [["port=65536"]], []},
             {"setting port is \"80x\": expected an integer from 1 to 65535", [["port", "80x"]], []},
             {"setting port is []: expected an integer from 1 to 65535", [["port="]], []},
             {"setting port is {80}: expected an integer from 1 to 65535", [], [{port, {80}}]},
             {"setting request is \"post\": expected connect or get", [["request", "post"]], []},
             {"setting method is \"epmd\": expected upgrade or handover", [["method=epmd"]], []},
             {"setting listen is 1: expected false or true", [], [{listen, 1}]},
             {"setting node_socket is \"n.sock\": expected an absolute path of at most 107 bytes",
              [["node_socket=n.sock"]], []},
             {"setting node_socket is \"" ++ TooLong ++ "\": expected an absolute path of at most 107 bytes",
              [["node_socket=" ++ TooLong]], []},
             {"setting request has no value: write -oneport request=VALUE", [["request"]], []},
             {"no setting is called \"prot\": " ++ Known, [["prot", "1"]], []},
             {"no setting is called prot: " ++ Known, [], [{prot, 1}]}]]
        ++
    [{Value, ?_assertEqual("setting via is \"" ++ Value ++ "\": expected HOST:PORT, [IPV6]:PORT, "
                           "PATTERN=HOST:PORT or a list of {PATTERN, \"HOST:PORT\"}",
                           says(oneport_config:read([["via", Value]], [])))}
     || Value <- ["gw", "gw:", ":443", "gw:0", "gw:x", "=gw:1", "a=", "a=gw", "::1:443",
                  "[::1]443", "[gw]:443", "[::1", "a=b=c:1", "http://gw:1", "b@gw:1"]]
        ++
    [?_assertMatch({error, {bad_setting, via, _, _}}, oneport_config:read([], [{via, Value}]))
     || Value <- [443, [{"a", 443}], [{"a", "gw:1"}, "b"], {"a", "gw:1"}, [a], <<255>>]].

says({error, Reason}) ->
    unicode:characters_to_list(oneport_config:format_error(Reason)).
