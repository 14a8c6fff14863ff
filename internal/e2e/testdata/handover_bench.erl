%% What BenchmarkHandedOver has a node do: the same work with two other nodes in turn,
%% slice by slice, so that whatever disturbs the machine disturbs both.
-module(handover_bench).
-export([main/1, echo/0]).

-define(TRIPS, 200).
-define(BULK, 50000000).

%% `erl -run handover_bench main ROUNDS DIRECT HANDED'. It prints which port each connection
%% goes to, and then, for each work, round and node, the nanoseconds that it took.
main([Rounds, Direct, Handed]) ->
    Pairs = [connect(Kind, list_to_atom(Node)) || {Kind, Node} <- [{direct, Direct}, {handed, Handed}]],
    [round(Work, Slices, Pairs) || _ <- lists:seq(0, list_to_integer(Rounds)),
                                   {Work, Slices} <- [{trips, 20}, {bulk, 4}]],
    halt().

connect(Kind, Node) ->
    pong = net_adm:ping(Node),
    {Node, Port} = lists:keyfind(Node, 1, erlang:system_info(dist_ctrl)),
    {ok, {_, Number}} = inet:peername(Port),
    io:format("port ~s ~b~n", [Kind, Number]),
    {Kind, spawn(Node, ?MODULE, echo, [])}.

round(Work, Slices, Pairs) ->
    Took = lists:foldl(fun(_, Acc) ->
                               Shuffled = [P || {_, P} <- lists:sort([{rand:uniform(), P} || P <- Pairs])],
                               lists:foldl(fun({Kind, Pid}, A) ->
                                                   Nanos = take(Work, Pid),
                                                   maps:update_with(Kind, fun(N) -> N + Nanos end, Nanos, A)
                                           end, Acc, Shuffled)
                       end, #{}, lists:seq(1, Slices)),
    [io:format("~s ~s ~b~n", [Work, Kind, Nanos]) || {Kind, Nanos} <- maps:to_list(Took)].

take(trips, Pid) ->
    Message = {self(), binary:copy(<<1>>, 64)},
    Begin = erlang:monotonic_time(nanosecond),
    trips(?TRIPS, Pid, Message),
    erlang:monotonic_time(nanosecond) - Begin;
take(bulk, Pid) ->
    Message = {self(), {size, binary:copy(<<1>>, ?BULK)}},
    Begin = erlang:monotonic_time(nanosecond),
    Pid ! Message,
    receive ?BULK -> ok end,
    erlang:monotonic_time(nanosecond) - Begin.

trips(0, _Pid, _Message) -> ok;
trips(N, Pid, {_, Payload} = Message) ->
    Pid ! Message,
    receive Payload -> trips(N - 1, Pid, Message) end.

echo() ->
    receive
        {From, {size, Binary}} -> From ! byte_size(Binary);
        {From, Payload} -> From ! Payload
    end,
    echo().
