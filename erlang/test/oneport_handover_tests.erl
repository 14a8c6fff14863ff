%% The EPMD handover on the wire. The door is a socket that sends what it is told.
-module(oneport_handover_tests).
-include_lib("eunit/include/eunit.hrl").

request_test_() ->
    [?_assertEqual(Bytes, oneport_handover:request(Name))
     || {Name, Bytes} <- [{"b", <<2:16, 16#68, "b">>},
                          {[16#e9], <<3:16, 16#68, 16#c3, 16#a9>>}]].

accepted_test_() ->
    [?_assertEqual({Wire, {ok, Version}, "sok"}, {Wire, Result, Next})
     || {Version, Wire} <- [{6, <<6:16>>}, {5, <<5:16>>}, {5, <<16#2a:16>>}],
        {Result, Next} <- [handover([<<16#69, 0, Wire/binary, 3:16, "sok">>], hold, 5000)]].

one_byte_at_a_time_test() ->
    ?assertEqual({{ok, 6}, "sok"},
                 handover([<<B>> || <<B>> <= <<16#69, 0, 6:16, 3:16, "sok">>], hold, 5000)).

refused_test_() ->
    [?_assertEqual({Part, Says}, {Part, says(handover([Part], End, 300))})
     || {Part, End, Says} <-
            [{<<16#69, 1>>, hold, "refused the handover: the node is not registered there, or cannot be reached"},
             {<<16#69, 16#ff>>, close, "refused the handover: the node is not registered there, or cannot be reached"},
             {<<"HTTP/1.1 400">>, hold, "does not speak EPMD's handover: is the port another server's?"},
             {<<>>, close, "closed the connection without an answer: does it know EPMD's handover?"},
             {<<16#69>>, close, "closed the connection without an answer: does it know EPMD's handover?"},
             {<<>>, hold, "accepted the connection, but did not answer in time"},
             {<<16#69, 0, 0>>, hold, "accepted the connection, but did not answer in time"}]].

says({{error, Reason}, none}) ->
    unicode:characters_to_list(oneport_handover:format_error(Reason)).

%% Asks a door that sends Parts and then holds or closes the connection: the result,
%% and the node's first message.
handover(Parts, End, Time) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {active, false}, {nodelay, true}]),
    {ok, Port} = inet:port(Listen),
    {ok, Client} = inet_tcp:connect({127, 0, 0, 1}, Port, [{active, false}, {nodelay, true}], 5000),
    {ok, Door} = gen_tcp:accept(Listen, 5000),
    _ = [ok = gen_tcp:send(Door, Part) || Part <- Parts],
    [ok = gen_tcp:shutdown(Door, write) || End =:= close],
    Request = oneport_handover:request("b"),
    try
        case oneport_handover:client(Client, Request, erlang:monotonic_time(millisecond) + Time) of
            {ok, _} = Ok ->
                {ok, Heard} = gen_tcp:recv(Door, byte_size(Request), 5000),
                Request = list_to_binary(Heard),
                ok = inet:setopts(Client, [list, {packet, 2}]),
                {ok, Next} = gen_tcp:recv(Client, 0, 5000),
                {Ok, Next};
            Error ->
                {Error, none}
        end
    after
        [ok = gen_tcp:close(Socket) || Socket <- [Client, Door, Listen]]
    end.
