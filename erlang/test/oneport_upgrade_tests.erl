%% The upgrade on the wire. The door is a socket that sends what it is told.
-module(oneport_upgrade_tests).
-include_lib("eunit/include/eunit.hrl").

-define(ACCEPT, "HTTP/1.1 101 Switching Protocols\r\n"
                "Connection: Upgrade\r\n"
                "Upgrade: erlang-distribution\r\n").

%% ---- the request

request_test_() ->
    [?_assertEqual(<<Line/binary, "\r\nHost: ", Header/binary, "\r\nConnection: Upgrade\r\n"
                     "Upgrade: erlang-distribution\r\n\r\n">>,
                   iolist_to_binary(oneport_upgrade:request(Method, Name, Host)))
     || {Method, Name, Host, Line, Header} <-
            [{connect, "b", "host", <<"CONNECT /erl/b HTTP/1.1">>, <<"host">>},
             {get, "b", "host", <<"GET /erl/b HTTP/1.1">>, <<"host">>},
             {connect, "b", "b.example.org", <<"CONNECT /erl/b HTTP/1.1">>, <<"b.example.org">>},
             {connect, "b", "10.0.0.2", <<"CONNECT /erl/b HTTP/1.1">>, <<"10.0.0.2">>},
             {connect, "b", "2001:db8::2", <<"CONNECT /erl/b HTTP/1.1">>, <<"[2001:db8::2]">>},
             {connect, "b", "::ffff:10.0.0.2", <<"CONNECT /erl/b HTTP/1.1">>, <<"[::ffff:10.0.0.2]">>},
             {connect, "a-b_c.d~1", "h", <<"CONNECT /erl/a-b_c.d~1 HTTP/1.1">>, <<"h">>},
             {connect, "a b/c?d%\r\n", "h", <<"CONNECT /erl/a%20b%2Fc%3Fd%25%0D%0A HTTP/1.1">>, <<"h">>},
             {connect, [16#e9, 16#20ac], "h\r\nX: y", <<"CONNECT /erl/%C3%A9%E2%82%AC HTTP/1.1">>,
              <<"h%0D%0AX%3A%20y">>}]].

%% ---- the answer

accepted_test_() ->
    [?_assertEqual({Answer, {ok, Version}}, {Answer, upgrade([Answer])})
     || {Version, Answer} <-
            [{6, ?ACCEPT "Version: 6\r\n\r\n"},
             {5, ?ACCEPT "Version: 5\r\n\r\n"},
             {5, ?ACCEPT "\r\n"},
             {6, "HTTP/1.1 101 x\r\nVERSION:6\r\nupgrade: h2c, Erlang-Distribution\r\n\r\n"},
             {6, ?ACCEPT "Version: 6\r\nServer: a door with a name of its own\r\n\r\n"},
             {6, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" ?ACCEPT "Version: 6\r\n\r\n"}]].

refused_test_() ->
    [?_assertEqual({Says, Answer}, {says(upgrade([Answer])), Answer})
     || {Says, Answer} <-
            [{"answered 404: no node b here; nodes here: c, d",
              refusal("404 Not Found", "no node b here; nodes here: c, d\n")},
             {"answered 421: not a name of this host", refusal("421 Misdirected", "not a name of this host\n")},
             {"answered 503: Service Unavailable", refusal("503 Service Unavailable", "")},
             {"answered 407: Proxy Authentication Required",
              "HTTP/1.1 407 Proxy Authentication Required\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nno!\n\r\n0\r\n\r\n"},
             {"answered 502: Bad Gateway", "HTTP/1.0 502 Bad Gateway\r\n\r\n<html>"},
             {"answered 200: Connection established", "HTTP/1.1 200 Connection established\r\n\r\n"},
             %% What is quoted is one line, and no more of it than is needed.
             {"answered 400: a", refusal("400 Bad Request", "a\e[2J\nb")},
             {"answered 400: " ++ lists:duplicate(1024, $x), refusal("400 Bad", lists:duplicate(100000, $x))},
             {"answered 400: Bad", "HTTP/1.1 400 Bad\r\nContent-Length: -3\r\n\r\nabc"}]].

wrong_test_() ->
    [?_assertEqual({Says, Answer}, {says(upgrade([Answer])), Answer})
     || {Says, Answer} <-
            [{"answered with version 7 of the distribution protocol, where 5 or 6 is expected",
              ?ACCEPT "Version: 7\r\n\r\n"},
             {"answered with version  of the distribution protocol, where 5 or 6 is expected",
              ?ACCEPT "Version: \r\n\r\n"},
             {"answered 101, but not for erlang-distribution",
              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
             {"answered 101, but not for erlang-distribution", "HTTP/1.1 101 x\r\n\r\n"},
             {"does not speak HTTP/1.1: is the port another server's?", "HTTP/1.0 101 x\r\n\r\n"},
             {"does not speak HTTP/1.1: is the port another server's?", "SSH-2.0-OpenSSH_9.2\r\n"},
             {"does not speak HTTP/1.1: is the port another server's?", "\0\0\0\0garbage\r\n\r\n"},
             {"does not speak HTTP/1.1: is the port another server's?",
              "HTTP/1.1 101 x\r\nno header at all\r\n\r\n"},
             {"does not speak HTTP/1.1: is the port another server's?", "GET / HTTP/1.1\r\n\r\n"}]].

%% ---- exactly the header, however it comes

the_nodes_first_bytes_in_the_same_packet_test() ->
    ?assertEqual({{ok, 6}, "sok"}, upgrade_and_read([?ACCEPT "Version: 6\r\n\r\n\0\3sok"])).

split_at_every_byte_test_() ->
    Answer = ?ACCEPT "Version: 6\r\n\r\n\0\3sok",
    {timeout, 60,
     [?_assertEqual({I, {{ok, 6}, "sok"}},
                    {I, upgrade_and_read(tuple_to_list(lists:split(I, Answer)))})
      || I <- lists:seq(1, length(Answer) - 1)]}.

refusal_split_at_every_byte_test_() ->
    Answer = refusal("404 Not Found", "no node b here\n"),
    {timeout, 60,
     [?_assertEqual({I, "answered 404: no node b here"},
                    {I, says(upgrade(tuple_to_list(lists:split(I, Answer))))})
      || I <- lists:seq(1, length(Answer) - 1)]}.

one_byte_at_a_time_test() ->
    ?assertEqual({{ok, 6}, "sok"},
                 upgrade_and_read([[C] || C <- ?ACCEPT "Version: 6\r\n\r\n\0\3sok"])).

%% ---- bounds

silence_test_() ->
    [?_assertEqual({Said, {error, timeout}}, {Said, upgrade([Said], hold, 200)})
     || Said <- ["", "HTTP/1.1 101 Sw", ?ACCEPT, "HTTP/1.1 100 x\r\n\r\n"]].

%% The status has been told: what was heard is better than a time-out.
silence_in_the_reason_test() ->
    ?assertEqual("answered 404: Not Found",
                 says(upgrade(["HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno"], hold, 200))).

closed_test_() ->
    [?_assertEqual({Said, {error, closed}}, {Said, upgrade([Said], close, 5000)})
     || Said <- ["", "HTTP/1.1 101 Sw", ?ACCEPT]].

endless_header_test_() ->
    Endless = [{"many fields", "\r\n" ++ lists:append(lists:duplicate(3000, "X: y\r\n"))},
               {"many empty fields", "\r\n" ++ lists:append(lists:duplicate(3000, "X:\r\n"))},
               {"one long field", "\r\nX: " ++ lists:duplicate(20000, $y)},
               {"a long phrase", lists:duplicate(20000, $y)},
               {"interim answers",
                lists:append(lists:duplicate(2000, "\r\n\r\nHTTP/1.1 100 x\r\nX: y"))}],
    [{Title, ?_assertEqual({error, header_too_long}, upgrade(["HTTP/1.1 100 x" ++ Rest]))}
     || {Title, Rest} <- Endless].

%% ---- a door

refusal(Status, Body) ->
    lists:flatten(io_lib:format("HTTP/1.1 ~s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                                "Content-Length: ~b\r\n\r\n~s", [Status, length(Body), Body])).

says({error, Reason}) ->
    unicode:characters_to_list(oneport_upgrade:format_error(Reason)).

upgrade(Parts) ->
    upgrade(Parts, hold, 5000).

upgrade(Parts, End, Time) ->
    with_door(Parts, End, Time, fun(_Socket, Result) -> Result end).

upgrade_and_read(Parts) ->
    with_door(Parts, hold, 5000,
              fun(Socket, Result) ->
                      ok = inet:setopts(Socket, [list, {packet, 2}]),
                      {ok, Frame} = gen_tcp:recv(Socket, 0, 5000),
                      {Result, Frame}
              end).

%% Connects to a door that sends Parts once it has the request, each when the one
%% before it has been read, and then holds or closes the connection.
with_door(Parts, End, Time, Fun) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {active, false}, {nodelay, true}]),
    {ok, Port} = inet:port(Listen),
    {ok, Client} = inet_tcp:connect({127, 0, 0, 1}, Port, [{active, false}], 5000),
    {ok, Door} = gen_tcp:accept(Listen, 5000),
    Request = iolist_to_binary(oneport_upgrade:request(connect, "b", "host")),
    {Pid, Monitor} = spawn_monitor(fun() ->
                                           receive go -> ok end,
                                           {ok, _} = gen_tcp:recv(Door, byte_size(Request), 5000),
                                           send(Door, Client, Parts),
                                           [ok = gen_tcp:shutdown(Door, write) || End =:= close],
                                           receive stop -> ok end
                                   end),
    ok = gen_tcp:controlling_process(Door, Pid),
    Pid ! go,
    try
        Deadline = erlang:monotonic_time(millisecond) + Time,
        Fun(Client, oneport_upgrade:client(Client, Request, Deadline))
    after
        gen_tcp:close(Client),
        Pid ! stop,
        receive {'DOWN', Monitor, process, Pid, _} -> ok end,
        gen_tcp:close(Listen)
    end.

send(_Door, _Client, []) ->
    ok;
send(Door, Client, [Part | Parts]) ->
    _ = gen_tcp:send(Door, Part),
    [until_read(Door, Client) || Parts =/= []],
    send(Door, Client, Parts).

%% The driver counts bytes when it delivers them, which tells nothing about a part
%% of a line. The kernel knows what has not been acknowledged (tcpi_unacked of
%% TCP_INFO) and what has not been read (the first number of SO_MEMINFO).
until_read(Door, Client) ->
    {ok, [{raw, 6, 11, <<_:24/binary, Unacked:32/native, _/binary>>}]} =
        inet:getopts(Door, [{raw, 6, 11, 104}]),
    case inet:getopts(Client, [{raw, 1, 55, 36}]) of
        {ok, [{raw, 1, 55, <<Unread:32/native, _/binary>>}]} when Unacked > 0; Unread > 0 ->
            erlang:yield(),
            until_read(Door, Client);
        {ok, _} ->
            ok
    end.
