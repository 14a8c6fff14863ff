%% Real nodes: a stock one called b, behind a door of a few lines, and one with the
%% carrier. In EPMD's place is a listener that registers nodes and answers nothing
%% else, so a client that asks it for a port is found out.
-module(oneport_dist_tests).
-include_lib("eunit/include/eunit.hrl").
-import(oneport_test_nodes, [start/4, stop/1, output/1, result/1, protocol/2, ebin/0, listener/2, epmd/2]).

-define(V4, {127, 0, 0, 1}).
-define(V6, {0, 0, 0, 0, 0, 0, 0, 1}).
-define(TIME, 20000).

%% ---- the way there

reaches_a_stock_node_and_asks_no_epmd_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        {Result, Output} =
            client(World, ["-oneport", "port", Door],
                   "{net_adm:ping(B),"
                   " byte_size(rpc:call(B, binary, copy, [binary:copy(<<1>>, 10000000)])),"
                   " [{N, P =/= undefined} || {N, P} <- erlang:system_info(dist_ctrl)],"
                   " rpc:call(B, erlang, nodes, [])}"),
        ?assertEqual({pong, 10000000, [{'b@127.0.0.1', true}], ['a@127.0.0.1']}, Result),
        ?assertEqual([], warnings(Output)),
        ?assertEqual([<<"CONNECT /erl/b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
                        "Upgrade: erlang-distribution\r\n\r\n">>], heard(request)),
        %% b itself may ask for a, once that is gone.
        ?assertEqual([], [Asked || {ok, <<_:16, $z, "b", _/binary>>} = Asked <- heard(epmd)])
    end).

%% b must not try to reach a by itself, as OTP's global has it do when a has gone: of two
%% nodes that connect to each other at once, the one whose name is greater refuses.
connects_again_after_a_disconnect_test_() ->
    world("b@127.0.0.1", ?V4, ["-kernel", "dist_auto_connect", "never"], fun(#{door := Door} = World) ->
        {Result, _} =
            client(World, ["-oneport", "port", Door],
                   "net_kernel:monitor_nodes(true), pong = net_adm:ping(B),"
                   "true = erlang:disconnect_node(B), receive {nodedown, B} -> ok end,"
                   "{net_adm:ping(B), net_kernel:setopts(B, [{nodelay, false}]),"
                   " net_kernel:getopts(B, [nodelay])}"),
        ?assertEqual({pong, ok, {ok, [{nodelay, false}]}}, Result),
        ?assertEqual(2, length(heard(request)))
    end).

lives_through_code_changes_and_ticks_test_() ->
    Ticks = ["-kernel", "net_ticktime", "4"],
    world("b@127.0.0.1", ?V4, Ticks, fun(#{door := Door} = World) ->
        {Result, _} =
            client(World, ["-oneport", "port", Door | Ticks],
                   "pong = net_adm:ping(B), ok = net_kernel:monitor_nodes(true),"
                   "[begin code:purge(oneport_setup), {module, _} = code:load_file(oneport_setup) end"
                   " || _ <- [1, 2, 3]],"
                   "{ok, Before} = net_kernel:node_info(B),"
                   "Down = receive {nodedown, _} -> down after 6000 -> up end,"
                   "{ok, After} = net_kernel:node_info(B),"
                   "{Down, proplists:get_value(owner, Before) =:= proplists:get_value(owner, After),"
                   " proplists:get_value(out, After) > proplists:get_value(out, Before)}"),
        ?assertEqual({up, true, true}, Result)
    end).

uses_get_where_connect_is_refused_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        ?assertMatch({pong, _}, client(World, ["-oneport", "port", Door, "request", "get"],
                                       "net_adm:ping(B)")),
        ?assertMatch([<<"GET /erl/b HTTP/1.1\r\n", _/binary>>], heard(request))
    end).

reaches_a_stock_node_by_handover_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        {Result, Output} =
            client(World, ["-oneport", "port", Door, "method", "handover"],
                   "{net_adm:ping(B), net_adm:ping('nobody@127.0.0.1')}"),
        ?assertEqual({pong, pang}, Result),
        ?assertEqual([<<2:16, 16#68, "b">>, <<7:16, 16#68, "nobody">>], heard(request)),
        ?assertEqual(["oneport: cannot connect to nobody@127.0.0.1: door 127.0.0.1:" ++ Door ++
                          " refused the handover: the node is not registered there, or cannot be reached"],
                     warnings(Output))
    end).

%% EPMD's request cannot say which host is meant.
a_gateway_is_asked_by_upgrade_test_() ->
    world("b@behind.invalid", ?V4, fun(#{door := Door} = World) ->
        ?assertMatch({pong, _}, client(World, ["-oneport", "via=127.0.0.1:" ++ Door, "-oneport",
                                               "method", "handover"], "net_adm:ping(B)")),
        ?assertMatch([<<"CONNECT /erl/b HTTP/1.1\r\nHost: behind.invalid\r\n", _/binary>>], heard(request))
    end).

%% Nothing but the gateway knows the host.
a_gateway_reaches_hosts_that_have_no_address_here_test_() ->
    world("b@behind.invalid", ?V4, fun(#{door := Door} = World) ->
        [begin
             ?assertMatch({pong, _}, client(World, ["-oneport" | Via], "net_adm:ping(B)")),
             ?assertMatch([<<"CONNECT /erl/b HTTP/1.1\r\nHost: behind.invalid\r\n", _/binary>>],
                          heard(request))
         end || Via <- [["via=127.0.0.1:" ++ Door],
                        ["via=*.invalid=127.0.0.1:" ++ Door]]]
    end).

ipv6_test_() ->
    world("b@::1", ?V6, fun(#{door := Door} = World) ->
        ?assertMatch({pong, _}, client(World, ["-oneport", "port", Door], "net_adm:ping(B)")),
        ?assertMatch([<<"CONNECT /erl/b HTTP/1.1\r\nHost: [::1]\r\n", _/binary>>], heard(request)),
        ?assertMatch({pong, _}, client(World, ["-oneport", "via=[::1]:" ++ Door], "net_adm:ping(B)"))
    end).

short_names_test_() ->
    world("b@localhost", ?V4, fun(#{door := Door} = World) ->
        {Result, Output} = client(World, ["-oneport", "port", Door],
                                  "{net_adm:ping(B), net_adm:ping('b@127.0.0.1')}"),
        ?assertEqual({pong, pang}, Result),
        ?assertEqual(["oneport: cannot connect to b@127.0.0.1: this node uses short names (-sname), "
                      "and 127.0.0.1 is a long one"], warnings(Output))
    end).

%% For hosts without the daemon.
with_a_listener_it_is_reached_as_any_node_test_() ->
    world("b@127.0.0.1", ?V4, ["-proto_dist", "oneport", "-pa", ebin(), "-oneport", "listen=true"],
          fun(#{node_port := Port} = World) ->
        ?assertMatch({pong, _}, stock(World, ["-dist_listen", "false", "-erl_epmd_port", Port],
                                      "net_adm:ping(B)"))
    end).

a_node_that_does_not_listen_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        ?assertMatch({pong, _}, client(World, ["-dist_listen", "false", "-oneport", "port", Door],
                                       "net_adm:ping(B)"))
    end).

%% ---- settings

sys_config_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        Right = sys_config([{port, list_to_integer(Door)}]),
        Wrong = sys_config([{port, 1}, {via, "127.0.0.1:1"}]),
        Elixir = sys_config([{via, list_to_binary("127.0.0.1:" ++ Door)}, {request, get}]),
        Ping = "net_adm:ping(B)",
        try
            ?assertMatch({pong, _}, client(World, ["-config", Right], Ping)),
            ?assertMatch({pong, _}, client(World, ["-config", Elixir], Ping)),
            ?assertMatch({pang, _}, client(World, ["-config", Wrong], Ping)),
            ?assertMatch({pong, _}, client(World, ["-config", Wrong, "-oneport", "via=",
                                                   "-oneport", "port=" ++ Door], Ping)),
            %% Starting the application changes nothing.
            ?assertMatch({{ok, pong}, _},
                         client(World, ["-config", Right, "-oneport", "request=get"],
                                "{application:start(oneport), net_adm:ping(B)}"))
        after
            [ok = file:delete(File) || File <- [Right, Wrong, Elixir]]
        end
    end).

%% OTP would fail to load the application: the node says what to write instead.
an_address_as_a_second_word_works_and_is_warned_about_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        {Result, Output} = client(World, ["-oneport", "via", "127.0.0.1:" ++ Door], "net_adm:ping(B)"),
        ?assertEqual(pong, Result),
        ?assertEqual(["oneport: the application cannot be loaded and its sys.config is not read, because "
                      "OTP takes the words in -oneport via 127.0.0.1:" ++ Door ++ " for Erlang terms: "
                      "write one -oneport KEY=VALUE for each setting"], warnings(Output))
    end).

a_wrong_setting_stops_the_node_test_() ->
    world("b@127.0.0.1", ?V4, fun(World) ->
        {none, Output} = client(World, ["-oneport", "port", "99999"], "net_adm:ping(B)"),
        ?assertMatch({match, _}, re:run(Output, "port,\"99999\",\"an integer from 1 to 65535\""))
    end).

%% ---- refusals

the_reason_of_the_door_is_logged_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        {Result, Output} = client(World, ["-oneport", "port", Door], "net_adm:ping('nobody@127.0.0.1')"),
        ?assertEqual(pang, Result),
        ?assertEqual(["oneport: cannot connect to nobody@127.0.0.1: door 127.0.0.1:" ++ Door ++
                          " answered 404: no node nobody here; nodes here: b"], warnings(Output))
    end).

no_door_test_() ->
    world("b@127.0.0.1", ?V4, fun(World) ->
        {Result, Output} = client(World, ["-oneport", "port", "1"], "net_adm:ping(B)"),
        ?assertEqual(pang, Result),
        ?assertEqual(["oneport: cannot connect to b@127.0.0.1: door 127.0.0.1:1 "
                      "cannot be connected to: connection refused"], warnings(Output))
    end).

no_address_test_() ->
    world("b@nowhere.invalid", ?V4, fun(World) ->
        [begin
             {Result, Output} = client(World, Args, "net_adm:ping(B)"),
             ?assertEqual(pang, Result),
             ?assertEqual(["oneport: cannot connect to b@nowhere.invalid: host " ++ Host ++
                               " has no IPv4 address: non-existing domain"], warnings(Output))
         end || {Host, Args} <- [{"nowhere.invalid", []},
                                 {"gw.invalid", ["-oneport", "via=gw.invalid:1"]}]]
    end).

%% OTP asks its carriers in turn who can reach a node.
carriers_side_by_side_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        ?assertMatch({pong, _}, run(World, ["-pa", ebin(), "-proto_dist", "oneport6", "oneport",
                                            "-dist_listen", "false", "-oneport", "port", Door],
                                    "net_adm:ping(B)"))
    end).

%% Their own EPMD module, as people use to find nodes without EPMD.
addresses_come_from_the_epmd_module_test_() ->
    world("b@known.invalid", ?V4, fun(#{door := Door} = World) ->
        Dir = filename:dirname(code:which(?MODULE)),
        {ok, Module, Code} =
            compile:forms([{attribute, 1, module, known_hosts},
                           {attribute, 1, export, [{start_link, 0}, {address_please, 3},
                                                   {register_node, 3}, {listen_port_please, 2}]}
                           | [form(Text) || Text <-
                               ["start_link() -> ignore.",
                                "register_node(_, _, _) -> {ok, 1}.",
                                "listen_port_please(_, _) -> {ok, 0}.",
                                "address_please(\"b\", \"known.invalid\", inet) -> "
                                "{ok, {127, 0, 0, 1}, 1, 5}."]]]),
        File = filename:join(Dir, atom_to_list(Module) ++ ".beam"),
        ok = file:write_file(File, Code),
        try
            ?assertMatch({pong, _}, client(World, ["-epmd_module", "known_hosts", "-pa", Dir,
                                                   "-oneport", "port", Door], "net_adm:ping(B)"))
        after
            ok = file:delete(File)
        end
    end).

a_silent_door_costs_no_more_than_net_setuptime_test_() ->
    world("b@127.0.0.1", ?V4, fun(#{door := Door} = World) ->
        {{pang, Millis}, Output} =
            client(World, ["-oneport", "port", Door, "-kernel", "net_setuptime", "1"],
                   "T = erlang:monotonic_time(millisecond), Pang = net_adm:ping('silent@127.0.0.1'),"
                   "{Pang, erlang:monotonic_time(millisecond) - T}"),
        ?assert(Millis >= 900),
        ?assert(Millis < 5000),
        ?assertEqual(["oneport: cannot connect to silent@127.0.0.1: door 127.0.0.1:" ++ Door ++
                          " accepted the connection, but did not answer in time"], warnings(Output))
    end).

%% ---- the world

world(Name, Ip, Test) ->
    world(Name, Ip, [], Test).

%% Test runs beside the node Name, its door and its EPMD, all on Ip.
world(Name, Ip, Args, Test) ->
    {timeout, 120, fun() ->
        Self = self(),
        %% EUnit runs all tests in one process: what the last one has not read.
        _ = [heard(What) || What <- [request, epmd]],
        Epmd = listener(Ip, fun(Socket) -> epmd(Socket, Self) end),
        World = #{epmd => Epmd, name => Name, ip => Ip},
        Node = start(Epmd, Name, Args ++ protocol(Ip, "inet"), "io:get_line(\"\"), halt()."),
        NodePort = receive {alive, <<"b">>, P} -> P after ?TIME -> error(node_did_not_start) end,
        Door = listener(Ip, fun(Socket) -> door(Socket, NodePort, Self) end),
        try
            Test(World#{door => integer_to_list(Door), node_port => integer_to_list(NodePort)})
        after
            stop(Node)
        end
    end}.

%% Has the carrier's node run Expression, where B is the stock node, and returns
%% its value and all output.
client(#{ip := Ip} = World, Args, Expression) ->
    run(World, ["-pa", ebin() | protocol(Ip, "oneport")] ++ Args, Expression).

stock(#{ip := Ip} = World, Args, Expression) ->
    run(World, protocol(Ip, "inet") ++ Args, Expression).

run(#{name := "b" ++ Host = B, epmd := Epmd}, Args, Expression) ->
    Node = start(Epmd, "a" ++ Host, Args,
                 "B = '" ++ B ++ "', R = begin " ++ Expression ++ " end,"
                 "logger_std_h:filesync(default), io:format(\"~n@~0p.~n\", [R]), halt()."),
    Output = output(Node),
    {result(Output), Output}.

warnings(Output) ->
    %% What is logged before the logger has started is printed twice, by OTP.
    lists:usort([string:trim(Line) || "oneport: " ++ _ = Line <- string:split(Output, "\n", all)]).

form(Text) ->
    {ok, Tokens, _} = erl_scan:string(Text),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.

heard(What) ->
    receive {What, Bytes} -> [Bytes | heard(What)] after 0 -> [] end.

sys_config(Env) ->
    Name = lists:concat([?MODULE, "-", os:getpid(), "-", erlang:unique_integer([positive]), ".config"]),
    File = filename:join(filename:absname(filename:dirname(code:which(?MODULE))), Name),
    ok = file:write_file(File, io_lib:format("~p.~n", [[{oneport, Env}]])),
    File.

%% ---- what listens

door(Socket, NodePort, Test) ->
    {ok, Begin} = gen_tcp:recv(Socket, 2, ?TIME),
    case Begin of
        <<0, Length>> ->
            {ok, <<16#68, Name/binary>> = Request} = gen_tcp:recv(Socket, Length, ?TIME),
            Test ! {request, <<Begin/binary, Request/binary>>},
            handover(Socket, NodePort, Name);
        _ ->
            Request = head(Socket, Begin),
            Test ! {request, Request},
            upgrade(Socket, NodePort, Request)
    end.

handover(Socket, NodePort, <<"b">>) ->
    {ok, {Ip, _}} = inet:sockname(Socket),
    {ok, Node} = gen_tcp:connect(Ip, NodePort, [binary, {active, false}]),
    ok = gen_tcp:send(Socket, <<16#69, 0, 6:16>>),
    spawn_link(fun() -> copy(Socket, Node) end),
    copy(Node, Socket);
handover(Socket, _NodePort, _Name) ->
    gen_tcp:send(Socket, <<16#69, 1>>).

upgrade(Socket, NodePort, Request) ->
    [_, <<"/erl/", Name/binary>> | _] = binary:split(Request, <<" ">>, [global]),
    case Name of
        <<"b">> ->
            {ok, {Ip, _}} = inet:sockname(Socket),
            {ok, Node} = gen_tcp:connect(Ip, NodePort, [binary, {active, false}]),
            ok = gen_tcp:send(Socket, <<"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                                        "Upgrade: erlang-distribution\r\nVersion: 6\r\n\r\n">>),
            spawn_link(fun() -> copy(Socket, Node) end),
            copy(Node, Socket);
        <<"silent">> ->
            {error, closed} = gen_tcp:recv(Socket, 0);
        _ ->
            Reason = <<"no node ", Name/binary, " here; nodes here: b\n">>,
            gen_tcp:send(Socket, ["HTTP/1.1 404 Not Found\r\nContent-Length: ",
                                  integer_to_list(byte_size(Reason)), "\r\n\r\n", Reason])
    end.

head(Socket, Acc) ->
    case binary:match(Acc, <<"\r\n\r\n">>) of
        nomatch ->
            {ok, More} = gen_tcp:recv(Socket, 0, ?TIME),
            head(Socket, <<Acc/binary, More/binary>>);
        _ ->
            Acc
    end.

copy(From, To) ->
    case gen_tcp:recv(From, 0) of
        {ok, Bytes} ->
            case gen_tcp:send(To, Bytes) of
                ok -> copy(From, To);
                {error, _} -> ok
            end;
        {error, _} ->
            gen_tcp:shutdown(To, write)
    end.
