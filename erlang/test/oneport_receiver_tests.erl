%% The receiving side: a real node b, and a daemon that does what the test says. The
%% client is a socket that begins the handshake, or a stock node a.
-module(oneport_receiver_tests).
-include_lib("eunit/include/eunit.hrl").
-import(oneport_test_nodes, [start/4, stop/1, output/1, result/1, protocol/2, ebin/0, listener/2, epmd/2]).

-define(V4, {127, 0, 0, 1}).
-define(V6, {0, 0, 0, 0, 0, 0, 0, 1}).
-define(TIME, 20000).

%% ---- an offer

the_handshake_begins_after_the_commit_test_() ->
    world(carrier, fun(World) ->
        ?assertEqual({ok, <<3:16, "sok">>}, hand_over(World, ?V4, 0))
    end).

bytes_that_were_taken_come_first_test_() ->
    world(carrier, fun(World) ->
        Length = byte_size(send_name(1)),
        [?assertEqual({Taken, {ok, <<3:16, "sok">>}}, {Taken, hand_over(World, ?V4, Taken)})
         || Taken <- [1, 2, 3, Length - 1, Length]],
        idle(World)
    end).

%% net_kernel knows one family; a descriptor of the other is taken as well.
both_families_test_() ->
    [{atom_to_list(Kind), world(Kind, fun(World) ->
          [?assertEqual({Ip, {ok, <<3:16, "sok">>}}, {Ip, hand_over(World, Ip, 2)}) || Ip <- [?V4, ?V6]],
          idle(World)
      end)} || Kind <- [carrier, carrier6, application]].

%% check_ip compares addresses of the node's own family; what it cannot compare is
%% closed. (Of a node with IPv6 it lets nobody in, in OTP itself.)
check_ip_test_() ->
    world(check_ip, fun(#{node := Node} = World) ->
        ?assertEqual({ok, <<3:16, "sok">>}, hand_over(World, ?V4, 0)),
        ?assertEqual({error, closed}, hand_over(World, ?V6, 0)),
        ?assertMatch({match, _}, eventually(fun() -> re:run(said(Node), "check_ip of kernel is set") end,
                                            fun(Seen) -> Seen =/= nomatch end)),
        idle(World)
    end).

%% The challenge follows the status at once, and shall not wait for its acknowledgement.
nagle_is_off_from_the_commit_on_test_() ->
    world(carrier, fun(World) ->
        {Client, Server} = pair(?V4),
        ok = inet:setopts(Server, [{nodelay, false}]),
        ok = offer(World, 1, Server, []),
        ?assertEqual({$A, 1}, answer(World)),
        ?assertEqual({ok, [{nodelay, false}]}, inet:getopts(Server, [nodelay])),
        ok = say(World, $C, 1),
        ok = gen_tcp:send(Client, send_name(1)),
        ?assertEqual({ok, <<3:16, "sok">>}, gen_tcp:recv(Client, 5, ?TIME)),
        ?assertEqual({ok, [{nodelay, true}]}, inet:getopts(Server, [nodelay])),
        ok = gen_tcp:close(Client),
        ok = gen_tcp:close(Server)
    end).

nothing_is_read_before_the_commit_test_() ->
    world(carrier, fun(World) ->
        {Client, Server} = pair(?V4),
        Name = send_name(1),
        ok = gen_tcp:send(Client, Name),
        ok = offer(World, 1, Server, []),
        ?assertEqual({$A, 1}, answer(World)),
        ok = say(World, $X, 1),
        %% The daemon goes on with its own copy, which is as it was.
        idle(World),
        ?assertEqual({ok, Name}, gen_tcp:recv(Server, byte_size(Name), ?TIME)),
        ok = gen_tcp:send(Server, "relayed"),
        ?assertEqual({ok, <<"relayed">>}, gen_tcp:recv(Client, 7, ?TIME)),
        ok = gen_tcp:close(Client),
        ok = gen_tcp:close(Server)
    end).

the_daemons_end_before_the_commit_is_a_cancel_test_() ->
    world(carrier, fun(#{connection := Connection} = World) ->
        {Client, Server} = pair(?V4),
        ok = offer(World, 1, Server, []),
        ?assertEqual({$A, 1}, answer(World)),
        ok = socket:close(Connection),
        Again = greet(World),
        idle(Again),
        ok = gen_tcp:send(Server, "relayed"),
        ?assertEqual({ok, <<"relayed">>}, gen_tcp:recv(Client, 7, ?TIME)),
        ok = gen_tcp:close(Client),
        ok = gen_tcp:close(Server)
    end).

offers_in_flight_are_settled_in_any_order_test_() ->
    world(carrier, fun(World) ->
        Offers = [{Id, pair(?V4)} || Id <- [3, 1, 2]],
        [ok = offer(World, Id, Server, []) || {Id, {_, Server}} <- Offers],
        ?assertEqual([{$A, 1}, {$A, 2}, {$A, 3}], lists:sort([answer(World) || _ <- Offers])),
        ok = say(World, $C, 2),
        ok = say(World, $X, 3),
        ok = say(World, $C, 1),
        Heard = [begin
                     ok = gen_tcp:close(Server),
                     _ = gen_tcp:send(Client, send_name(Id)),
                     {Id, gen_tcp:recv(Client, 5, ?TIME)}
                 end || {Id, {Client, Server}} <- Offers],
        ?assertMatch([{1, {ok, <<3:16, "sok">>}}, {2, {ok, _}}, {3, {error, _}}], lists:sort(Heard)),
        [ok = gen_tcp:close(Client) || {_, {Client, _}} <- Offers],
        idle(World)
    end).

refused_test_() ->
    world(carrier, fun(World) ->
        {Client, Server} = pair(?V4),
        {ok, Listen} = gen_tcp:listen(0, [{ip, ?V4}]),
        {ok, Udp} = gen_udp:open(0, [{ip, ?V4}]),
        {ok, Local} = socket:open(local, stream),
        {ok, LocalFd} = socket:getopt(Local, otp, fd),
        [begin
             ok = offer(World, 7, Descriptor, Fields),
             {Type, Id, Why} = answer(World),
             ?assertEqual({$N, 7, Reason}, {Type, Id, Why})
         end || {Descriptor, Fields, Reason} <-
                    [{Server, [{16#02, <<"c">>}], <<"this node is called b">>},
                     {Listen, [], <<"descriptor is not a connected socket: socket is not connected">>},
                     {Udp, [], <<"descriptor is not a connected socket: socket is not connected">>},
                     {LocalFd, [], <<"descriptor is neither an IPv4 nor an IPv6 stream socket">>}]],
        ok = socket:close(Local),
        [ok = gen_tcp:close(S) || S <- [Client, Server, Listen]],
        ok = gen_udp:close(Udp),
        idle(World),
        ?assertMatch({ok, _}, hand_over(World, ?V4, 0))
    end).

no_more_than_256_at_once_test_() ->
    world(carrier, fun(World) ->
        {Client, Server} = pair(?V4),
        [begin ok = offer(World, Id, Server, []), {$A, Id} = answer(World) end || Id <- lists:seq(1, 256)],
        ok = offer(World, 257, Server, []),
        ?assertEqual({$N, 257, <<"256 offers wait already">>}, answer(World)),
        ok = say(World, $X, 256),
        ok = offer(World, 258, Server, []),
        ?assertEqual({$A, 258}, answer(World)),
        [ok = say(World, $X, Id) || Id <- lists:seq(1, 255) ++ [258]],
        idle(World),
        ok = gen_tcp:close(Client),
        ok = gen_tcp:close(Server)
    end).

%% ---- a daemon that does not keep to the protocol

garbage_ends_the_connection_test_() ->
    [{Kind, world(carrier, fun(World) ->
          {Client, Server} = pair(?V4),
          _ = lists:foldl(fun({Bytes, Descriptors}, #{connection := Connection} = W) ->
                                  ok = send(W, Bytes, [Server || descriptor <- Descriptors]),
                                  ?assertEqual({Bytes, end_of_connection}, {Bytes, answer(W)}),
                                  ok = socket:close(Connection),
                                  Again = greet(W),
                                  idle(Again),
                                  Again
                          end, World, Cases),
          ok = gen_tcp:close(Client),
          ok = gen_tcp:close(Server)
      end)}
     || {Kind, Cases} <-
            [{"no frame", [{<<"?">>, []},
                           {binary:copy(<<"garbage">>, 9000), []},
                           {frame($C, []), []},
                           {<<$C, 16#10, 8:16, 1:56>>, []}]},
             {"wrong fields", [{frame($C, [{16#10, <<1:32>>}]), []},
                               {frame($C, [{16#10, <<1:64>>}, {16#10, <<1:64>>}]), []},
                               {frame($C, [{16#10, <<1:64>>}, {16#80, <<>>}]), []},
                               {offer(1, [{16#20, <<5, 1:16, 1:32>>}]), [descriptor]}]},
             {"out of place", [{frame($W, [{16#01, <<1>>}]), []},
                               {frame($A, [{16#10, <<1:64>>}]), []},
                               {frame($C, [{16#10, <<1:64>>}]), [descriptor]}]},
             {"descriptors", [{offer(1, []), []},
                              {offer(1, []), [descriptor, descriptor, descriptor]},
                              {<<"garbage">>, lists:duplicate(250, descriptor)}]}]].

unknown_fields_and_ids_are_left_aside_test_() ->
    world(carrier, fun(World) ->
        ok = send(World, frame($C, [{16#10, <<99:64>>}, {16#7f, <<"new">>}]), []),
        ok = say(World, $X, 98),
        ?assertMatch({ok, _}, hand_over(World, ?V4, 0))
    end).

rejected_it_tries_again_test_() ->
    world(carrier, fun(#{connection := Connection} = World) ->
        ok = socket:close(Connection),
        Times = [begin
                     {Hello, Socket} = hello(World),
                     ?assertEqual(frame($H, [{16#01, <<1>>}, {16#02, <<"b">>}, {16#03, <<"127.0.0.1">>}]), Hello),
                     ok = socket:send(Socket, frame($R, [{16#11, <<"not registered">>}, {16#12, <<2>>}])),
                     ok = socket:close(Socket),
                     erlang:monotonic_time(millisecond)
                 end || _ <- lists:seq(1, 6)],
        %% 100, 200, 400, 800, 1600 ms, each less up to a half.
        ?assert(lists:last(Times) - hd(Times) >= 1500),
        ?assertMatch({ok, _}, hand_over(greet(World), ?V4, 0))
    end).

the_daemons_restart_test_() ->
    world(carrier, fun(#{connection := Connection, listen := Listen, path := Path} = World) ->
        ok = socket:close(Connection),
        ok = socket:close(Listen),
        ok = file:delete(Path),
        Back = greet(World#{listen := listen(Path)}),
        ?assertMatch({ok, _}, hand_over(Back, ?V4, 0)),
        idle(Back),
        socket:close(maps:get(listen, Back))
    end).

%% ---- stock nodes as clients

a_node_without_a_listener_is_reached_test_() ->
    world(carrier, fun(#{registered := Port} = World) ->
        ?assertEqual(0, Port),
        {Result, _} =
            stock(World, "pong = net_adm:ping(B), [{B, P}] = erlang:system_info(dist_ctrl),"
                         "On = fun(F) -> rpc:call(B, erlang, apply, [F, []]) end, {ok, Me} = inet:sockname(P),"
                         "{On(fun() -> [S || S <- erlang:ports(), {ok, T} <- [prim_inet:getstatus(S)],"
                         "  lists:member(listen, T)] end),"
                         " On(fun() -> [inet:peername(S) || {_, S} <- erlang:system_info(dist_ctrl)] end) =:= [{ok, Me}],"
                         " byte_size(rpc:call(B, binary, copy, [binary:copy(<<1>>, 20000000)])),"
                         " On(fun() -> net_kernel:setopts(new, [{nodelay, true}]) end)}"),
        ?assertEqual({[], true, 20000000, ok}, Result)
    end).

an_ordinary_node_keeps_its_listener_test_() ->
    world(application, fun(#{registered := Port} = World) ->
        ?assert(Port > 0),
        ?assertMatch({{pong, pong}, _},
                     stock(World, "{net_adm:ping(B),"
                                  " begin ok = rpc:call(B, application, stop, [oneport]), net_adm:ping(B) end}")),
        ok = direct(World, Port)
    end).

the_peers_end_is_seen_at_once_test_() ->
    world(carrier, fun(World) ->
        {Result, _} = stock(World, "true = net_kernel:connect_node(B), true = erlang:monitor_node(B, true),"
                                   "T = erlang:monotonic_time(millisecond),"
                                   "rpc:cast(B, erlang, disconnect_node, [node()]),"
                                   "receive {nodedown, B} -> ok end,"
                                   "erlang:monotonic_time(millisecond) - T"),
        ?assert(is_integer(Result) andalso Result < 1000),
        idle(World)
    end).

two_hundred_times_up_and_down_test_() ->
    world(carrier, fun(World) ->
        {Result, _} = stock(World, "lists:usort([begin true = net_kernel:connect_node(B),"
                                   " true = erlang:monitor_node(B, true),"
                                   " case N rem 2 of 0 -> erlang:disconnect_node(B);"
                                   " 1 -> rpc:cast(B, erlang, disconnect_node, [node()]) end,"
                                   " receive {nodedown, B} -> ok after 5000 -> still_up end end"
                                   " || N <- lists:seq(1, 200)])"),
        ?assertEqual([ok], Result),
        idle(World)
    end).

%% The port goes on writing after it has told everybody of its end.
a_disconnect_with_50_mb_queued_test_() ->
    world(carrier, fun(World) ->
        {Result, _} = stock(World, "register(sink, self()), S = self(),"
                                   "true = net_kernel:connect_node(B), true = erlang:monitor_node(B, true),"
                                   "rpc:cast(B, erlang, apply, [fun() ->"
                                   " erlang:send({sink, node(S)}, binary:copy(<<1>>, 50000000), [nosuspend]),"
                                   " erlang:disconnect_node(node(S)) end, []]),"
                                   "receive {nodedown, B} -> ok end, net_adm:ping(B)"),
        ?assertEqual(pong, Result),
        idle(World)
    end).

the_receivers_crash_leaves_connections_alone_test_() ->
    world(carrier, fun(World) ->
        {Result, _} = stock(World, "pong = net_adm:ping(B), Old = rpc:call(B, erlang, whereis, [oneport_receiver]),"
                                   "true = erlang:monitor_node(B, true), exit(Old, kill),"
                                   "Await = fun F() -> case rpc:call(B, erlang, whereis, [oneport_receiver]) of"
                                   " New when is_pid(New), New =/= Old -> ok; _ -> F() end end, Await(),"
                                   "Up = receive {nodedown, _} -> down after 500 -> up end,"
                                   "{Up, byte_size(rpc:call(B, binary, copy, [binary:copy(<<1>>, 1000000)]))}"),
        ?assertEqual({up, 1000000}, Result),
        idle(World)
    end).

%% Its descriptor ends with it, and so must the port.
the_holders_crash_ends_its_connection_test_() ->
    world(carrier, fun(World) ->
        {Result, _} = stock(World, "true = net_kernel:connect_node(B), true = erlang:monitor_node(B, true),"
                                   "[rpc:cast(B, erlang, exit, [P, kill]) || P <- rpc:call(B, erlang, processes, []),"
                                   " {initial_call, {oneport_holder, init, 4}}"
                                   "  =:= rpc:call(B, erlang, process_info, [P, initial_call])],"
                                   "receive {nodedown, B} -> down after 5000 -> up end"),
        ?assertEqual(down, Result),
        idle(World)
    end).

%% ---- the world

%% Test runs beside node b and a daemon that has said WELCOME to it.
world(Kind, Test) ->
    {timeout, 120, fun() ->
        Path = lists:concat(["/tmp/oneport-", os:getpid(), "-", erlang:unique_integer([positive])]),
        Self = self(),
        Listen = listen(Path),
        {Ip, Name, Args, Eval} = kind(Kind),
        Epmd = listener(Ip, fun(Socket) -> epmd(Socket, Self) end),
        Node = start(Epmd, Name, Args ++ ["-pa", ebin(), "-oneport", "node_socket=" ++ Path],
                     Eval ++ "io:get_line(\"\"), halt()."),
        try
            Registered = receive {alive, <<"b">>, Port} -> Port after ?TIME -> error(node_did_not_start) end,
            World = greet(#{listen => Listen, path => Path, node => Node, epmd => Epmd,
                            registered => Registered}),
            %% The first connection has b load what it needs, and open what it keeps.
            {ok, _} = hand_over(World, ?V4, 0),
            _ = Test(World#{idle => settled(World)}),
            %% What the VM says when a descriptor is closed under a driver.
            ?assertEqual(nomatch, re:run(said(Node), "driver_select|pollset|CRASH|ended"))
        catch
            Class:Reason:Stack ->
                erlang:raise(Class, {Reason, {node_b_said, said(Node)}}, Stack)
        after
            stop(Node),
            _ = file:delete(Path),
            _ = socket:close(Listen)
        end
    end}.

said(Node) ->
    receive
        {Node, {data, Data}} -> [Data | said(Node)];
        {Node, {exit_status, Status}} -> [io_lib:format("ended with status ~b", [Status])]
    after 0 ->
            []
    end.

kind(carrier) -> {?V4, "b@127.0.0.1", protocol(?V4, "oneport"), ""};
kind(carrier6) -> {?V6, "b@::1", protocol(?V6, "oneport"), ""};
kind(check_ip) -> {?V4, "b@127.0.0.1", protocol(?V4, "oneport") ++ ["-kernel", "check_ip", "true"], ""};
kind(application) -> {?V4, "b@127.0.0.1", [], "{ok, _} = application:ensure_all_started(oneport),"}.

%% Has a stock node run Expression, where B is the node b, and hands all that it
%% connects by to b.
stock(#{epmd := Epmd} = World, Expression) ->
    Door = door(World),
    Node = start(Epmd, "a@127.0.0.1", ["-dist_listen", "false", "-erl_epmd_port", integer_to_list(Door)],
                 "B = 'b@127.0.0.1', R = begin " ++ Expression ++ " end,"
                 "io:format(\"~n@~0p.~n\", [R]), halt()."),
    Output = output(Node),
    {result(Output), Output}.

%% Without the daemon.
direct(#{epmd := Epmd}, Port) ->
    Node = start(Epmd, "c@127.0.0.1", ["-dist_listen", "false", "-erl_epmd_port", integer_to_list(Port)],
                 "io:format(\"~n@~0p.~n\", [net_adm:ping('b@127.0.0.1')]), halt()."),
    pong = result(output(Node)),
    ok.

%% A daemon's door: what is accepted is handed over. b's receiver may come anew.
door(#{connection := Connection} = World) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, ?V4}, binary, {active, false}, {backlog, 64}]),
    {ok, Port} = inet:port(Listen),
    Pid = spawn_link(fun() -> receive go -> ok end, serve(World, Listen, 1000) end),
    ok = gen_tcp:controlling_process(Listen, Pid),
    ok = socket:setopt(Connection, {otp, controlling_process}, Pid),
    Pid ! go,
    Port.

serve(World, Listen, Id) ->
    {ok, Server} = gen_tcp:accept(Listen),
    ok = offer(World, Id, Server, []),
    {$A, Id} = answer(World),
    ok = say(World, $C, Id),
    ok = gen_tcp:close(Server),
    serve(World, Listen, Id + 1).

%% ---- what b has open

idle(#{idle := Idle} = World) ->
    Now = eventually(fun() -> descriptors(World) end, fun(D) -> D =:= Idle end),
    ?assertEqual(Idle, Now).

%% The number once it has not changed for a while.
settled(World) ->
    {_, Number} = eventually(
                    fun() ->
                            Before = descriptors(World),
                            timer:sleep(200),
                            {Before, descriptors(World)}
                    end, fun({Before, After}) -> Before =:= After end),
    Number.

descriptors(#{node := Node}) ->
    {os_pid, Pid} = erlang:port_info(Node, os_pid),
    {ok, Names} = file:list_dir(lists:concat(["/proc/", Pid, "/fd"])),
    length(Names).

eventually(Look, Enough) ->
    eventually(Look, Enough, erlang:monotonic_time(millisecond) + ?TIME).

eventually(Look, Enough, Deadline) ->
    Seen = Look(),
    case Enough(Seen) orelse erlang:monotonic_time(millisecond) > Deadline of
        true -> Seen;
        false -> timer:sleep(10), eventually(Look, Enough, Deadline)
    end.

%% ---- the client

%% What b answers to the begin of a handshake of which the daemon has read Count bytes.
hand_over(World, Ip, Count) ->
    {Client, Server} = pair(Ip),
    <<Taken:Count/binary, Rest/binary>> = send_name(erlang:unique_integer([positive])),
    ok = offer(World, 1, Server, [{16#23, Taken} || Count > 0]),
    {$A, 1} = answer(World),
    ok = say(World, $C, 1),
    ok = gen_tcp:close(Server),
    ok = gen_tcp:send(Client, Rest),
    Answer = gen_tcp:recv(Client, 5, ?TIME),
    ok = gen_tcp:close(Client),
    Answer.

%% The first message of version 6 of the handshake, from a node of its own: b may not yet
%% have seen the end of the last one. All are of one length.
send_name(Number) ->
    Flags = element(2, erts_internal:get_dflags()),
    Name = iolist_to_binary(io_lib:format("x~12..0b@127.0.0.1", [Number])),
    <<(15 + byte_size(Name)):16, $N, Flags:64, 17:32, (byte_size(Name)):16, Name/binary>>.

pair(Ip) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, Ip}, binary, {active, false}]),
    {ok, Port} = inet:port(Listen),
    {ok, Client} = gen_tcp:connect(Ip, Port, [binary, {active, false}], ?TIME),
    {ok, Server} = gen_tcp:accept(Listen, ?TIME),
    ok = gen_tcp:close(Listen),
    {Client, Server}.

%% ---- the daemon

listen(Path) ->
    {ok, Listen} = socket:open(local, seqpacket),
    ok = socket:bind(Listen, #{family => local, path => Path}),
    ok = socket:listen(Listen),
    Listen.

hello(#{listen := Listen}) ->
    {ok, Socket} = socket:accept(Listen, ?TIME),
    {ok, #{iov := [Hello]}} = socket:recvmsg(Socket, 0, 0, [], ?TIME),
    {Hello, Socket}.

greet(World) ->
    {<<$H, _/binary>>, Socket} = hello(World),
    ok = socket:send(Socket, frame($W, [{16#01, <<1>>}]), ?TIME),
    World#{connection => Socket}.

offer(World, Id, Descriptor, Fields) ->
    send(World, offer(Id, Fields), [Descriptor]).

%% An offer for b, with Fields in place of its own.
offer(Id, Fields) ->
    Own = [{16#10, <<Id:64>>}, {16#02, <<"b">>}, {16#20, <<4, 1:16, 127, 0, 0, 1>>},
           {16#21, <<6, 4369:16, 1:128>>}, {16#22, <<"upgrade">>}],
    frame($O, lists:ukeymerge(1, lists:keysort(1, Fields), lists:keysort(1, Own))).

say(World, Type, Id) ->
    send(World, frame(Type, [{16#10, <<Id:64>>}]), []).

send(#{connection := Connection}, Bytes, Descriptors) ->
    Data = << <<(number(D)):32/native>> || D <- Descriptors >>,
    Control = [#{level => socket, type => rights, data => Data} || Descriptors =/= []],
    socket:sendmsg(Connection, #{iov => [Bytes], ctrl => Control}, ?TIME).

number(Port) when is_port(Port) ->
    {ok, Number} = prim_inet:getfd(Port),
    Number;
number(Number) ->
    Number.

answer(#{connection := Connection}) ->
    case socket:recvmsg(Connection, 0, 0, [], ?TIME) of
        {ok, #{iov := [<<$A, 16#10, 8:16, Id:64>>]}} -> {$A, Id};
        {ok, #{iov := [<<$N, 16#10, 8:16, Id:64, 16#11, L:16, Reason:L/binary>>]}} -> {$N, Id, Reason};
        {ok, #{iov := [<<>>]}} -> end_of_connection;
        {error, Reason} -> {error, Reason}
    end.

frame(Type, Fields) ->
    iolist_to_binary([Type, [[<<Tag, (byte_size(Value)):16>>, Value] || {Tag, Value} <- Fields]]).
