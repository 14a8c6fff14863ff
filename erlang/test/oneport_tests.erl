%% The question for a node's name, on the wire and in words, and what is remembered. Doors
%% are sockets that say what they are told; connections of real nodes are in the
%% end-to-end tests.
-module(oneport_tests).
-include_lib("eunit/include/eunit.hrl").

-define(V4, {127, 0, 0, 1}).

%% ---- the question

the_request_test_() ->
    [?_assertEqual(<<"GET /erl/", Name/binary, "/node HTTP/1.1\r\nHost: ", Host/binary, "\r\nConnection: close\r\n\r\n">>,
                   iolist_to_binary(oneport_who:request(N, H)))
     || {N, H, Name, Host} <- [{"web", "public.example", <<"web">>, <<"public.example">>},
                               {"a/b", "2001:db8::2", <<"a%2Fb">>, <<"[2001:db8::2]">>}]].

answers_test_() ->
    [{Answer, ?_assertEqual(Result, who(Answer))}
     || {Answer, Result} <-
            [{ok("web@container\n"), {ok, web@container}},
             {ok("web@10-0-3-7.internal\n"), {ok, 'web@10-0-3-7.internal'}},
             {"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n", {refused, 404, "none"}},
             {ok("web\n"), not_a_name},
             {ok("@container\n"), not_a_name},
             {ok("web@a@b\n"), not_a_name},
             {ok("web@a b\n"), not_a_name},
             {ok("web@" ++ lists:duplicate(300, $x)), not_a_name},
             {"HTTP/1.1 200 OK\r\n\r\n", not_a_name},
             {"HTTP/1.1 101 x\r\nUpgrade: erlang-distribution\r\n\r\n", not_a_name},
             {"SSH-2.0-OpenSSH_9.2\r\n", not_http},
             {"", closed}]].

ok(Body) ->
    lists:flatten(io_lib:format("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                                "Content-Length: ~b\r\n\r\n~s", [length(Body), Body])).

%% Asks a door that answers so, whatever it is asked.
who(Answer) ->
    Port = oneport_test_nodes:listener(?V4, fun(Socket) ->
                                                    {ok, _} = gen_tcp:recv(Socket, 0, 5000),
                                                    ok = gen_tcp:send(Socket, Answer),
                                                    gen_tcp:close(Socket)
                                            end),
    case oneport:who('web@public.example', #{door => {"127.0.0.1", Port}}) of
        {ok, Node} -> {ok, Node};
        {error, {door, {"127.0.0.1", ?V4, Port}, Reason}} -> Reason
    end.

%% ---- what is remembered

the_later_door_does_not_replace_the_earlier_test() ->
    First = {{direct, "public.example", 4369}, "public.example"},
    Second = {{direct, "other.example", 4369}, "other.example"},
    ?assertEqual({ok, {{direct, "container", 4369}, "container"}}, oneport_doors:way("container")),
    ?assertEqual(new, oneport_doors:add("container", First)),
    ?assertEqual(known, oneport_doors:add("Container", First)),
    ?assertEqual({conflict, First}, oneport_doors:add("container", Second)),
    ?assertEqual({ok, First}, oneport_doors:way("CONTAINER")),
    ?assertEqual([{"container", {"public.example", 4369}}], oneport:doors()),
    ok = oneport:forget(<<"container">>),
    ?assertEqual([], oneport:doors()),
    ?assertEqual(new, oneport_doors:add("container", Second)),
    ok = oneport:forget("container").

%% ---- words

wrong_use_test_() ->
    [?_assertEqual({error, {bad_node, web}}, oneport:who(web)),
     ?_assertEqual({error, {bad_node, "web@h"}}, oneport:who("web@h")),
     ?_assertEqual({error, {bad_options, #{dor => 1}}}, oneport:who(web@h, #{dor => 1})),
     ?_assertEqual({error, {bad_options, #{door => {"", 1}}}}, oneport:who(web@h, #{door => {"", 1}})),
     ?_assertEqual({error, not_alive}, oneport:connect(web@h))].

every_reason_has_words_test_() ->
    [?_assertEqual({Reason, Words}, {Reason, unicode:characters_to_list(oneport:format_error(Reason))})
     || {Reason, Words} <-
            [{no_carrier, "this node does not use the carrier: start it with -proto_dist oneport, or oneport6 for IPv6"},
             {not_alive, "this node is not distributed: start it with -name or -sname"},
             {{bad_node, web}, "web is no node's name: expected an atom with one @"},
             {{bad_options, #{}}, "options #{}: expected #{door => {Host, Port}}"},
             {{setting, {no_value, via}}, "setting via has no value: write -oneport via=VALUE"},
             {{short_name, web@container},
              "the node is called web@container, a short name, and this node uses long names (-name)"},
             {{long_name, 'web@c.d'},
              "the node is called web@c.d, a long name, and this node uses short names (-sname)"},
             {{conflict, "c", {"one", 4369}, {"2001:db8::2", 1}},
              "the node at [2001:db8::2]:1 calls its host c, whose nodes are reached by one:4369: one of the two "
              "needs another name, or oneport:forget(\"c\") comes first"},
             {{conflict, "c", this_host, {"two", 1}},
              "the node at two:1 calls its host c, as this node does: one of the two needs another name"},
             {{not_connected, web@c},
              "node web@c is there and was not connected to: the log says why, or the cookies differ"},
             {{lookup, "nowhere", inet6_tcp, nxdomain},
              "host nowhere has no IPv6 address: non-existing domain"},
             {{door, {"public.example", {192, 0, 2, 1}, 4369}, not_a_name},
              "door public.example (192.0.2.1:4369) answered with something that is no node's name"},
             {{door, {"192.0.2.1", {192, 0, 2, 1}, 4369}, {connect, econnrefused}},
              "door 192.0.2.1:4369 cannot be connected to: connection refused"}]].
