%% What one node does with another one to measure the way between them, and the
%% door by which the harness has it done: a local socket, which uses neither the
%% network nor the distribution. A connection to it carries one request, a term
%% such as {work, call, 1000, 'node@host'}, and one answer, "ok" and integers, or
%% "error" and why.
-module(bench_node).
-export([start/1, echo/0]).

-define(MEGABYTE, 1048576).
-define(PATIENCE, 100000). % for one answer of the other node, in ms
-define(RISING, 2000). % for a connection to be known at both ends, in ms or a bit more

%% start listens at a path, which is there when it does.
start([Path]) ->
    spawn(fun() ->
                  New = Path ++ ".new",
                  {ok, Listener} = gen_tcp:listen(0, [{ifaddr, {local, New}}, local, binary, {packet, 4}, {active, false}]),
                  ok = file:rename(New, Path),
                  serve(Listener)
          end).

serve(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> answer(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    serve(Listener).

answer(Socket) ->
    {ok, Request} = gen_tcp:recv(Socket, 0),
    Answer =
        try
            {ok, Tokens, _} = erl_scan:string(binary_to_list(Request) ++ "."),
            {ok, Term} = erl_parse:parse_term(Tokens),
            ["ok" | [[$\s, integer_to_list(I)] || I <- do(Term)]]
        catch
            Class:Reason -> io_lib:format("error ~0tp", [{Class, Reason}])
        end,
    ok = gen_tcp:send(Socket, unicode:characters_to_binary(Answer)),
    gen_tcp:close(Socket).

%% connect makes a connection and returns where it leads. ends is the same for one
%% that there is.
do({connect, Node}) ->
    true = net_kernel:connect_node(Node),
    do({ends, Node});
do({ends, Node}) ->
    Port = controller(Node, ?RISING),
    {ok, {Here, HerePort}} = inet:sockname(Port),
    {ok, {There, TherePort}} = inet:peername(Port),
    tuple_to_list(Here) ++ [HerePort] ++ tuple_to_list(There) ++ [TherePort];
do({work, Work, N, Node}) ->
    Pid = peer(Node),
    work(Work, N, Node, Pid).

%% controller returns the port of a connection. Who was connected to has it a moment
%% after the one who connected.
controller(Node, Left) ->
    case proplists:get_value(Node, erlang:system_info(dist_ctrl)) of
        undefined when Left > 0 -> timer:sleep(1), controller(Node, Left - 1);
        undefined -> error({not_connected, Node});
        Port -> Port
    end.

%% Each returns the nanoseconds that it took; call those of each call.
work(call, N, Node, _) ->
    [timed(fun() -> ok = rpc:call(Node, erlang, hd, [[ok]], ?PATIENCE) end) || _ <- lists:seq(1, N)];
work({callers, Callers}, N, _, Pid) ->
    Message = pattern(1000),
    Call = fun() -> [call(Pid, Message) || _ <- lists:seq(1, N div Callers)] end,
    [timed(fun() ->
                   Running = [spawn_monitor(Call) || _ <- lists:seq(1, Callers)],
                   [receive {'DOWN', Ref, process, P, Why} -> normal = Why end || {P, Ref} <- Running]
           end)];
work(messages, N, _, Pid) -> [sent(Pid, N, pattern(100))];
work(megabytes, N, _, Pid) -> [sent(Pid, N, pattern(?MEGABYTE))];
work({to_node, Size}, N, _, Pid) -> [sent(Pid, N, pattern(Size))];
work({to_client, Size}, N, _, Pid) ->
    Want = pattern(Size),
    ok = call(Pid, {keep, Size}),
    Took = timed(fun() -> [Want = call(Pid, fetch) || _ <- lists:seq(1, N)] end),
    ok = call(Pid, {keep, 0}), % many nodes share the memory
    [Took].

%% sent sends a message many times, and waits until the other node has taken as many
%% and has found each to be right.
sent(Pid, N, Message) ->
    ok = call(Pid, {expect, byte_size(Message)}),
    Took = timed(fun() ->
                         [Pid ! {take, Message} || _ <- lists:seq(1, N)],
                         case call(Pid, taken) of
                             N -> ok;
                             Taken -> error({taken, Taken, N})
                         end
                 end),
    ok = call(Pid, {expect, 0}),
    Took.

call(Pid, Request) ->
    Ref = make_ref(),
    Pid ! {self(), Ref, Request},
    receive {Ref, Answer} -> Answer after ?PATIENCE -> error(timeout) end.

timed(Fun) ->
    Begin = erlang:monotonic_time(nanosecond),
    Fun(),
    erlang:monotonic_time(nanosecond) - Begin.

%% peer is the process that answers on a node, which is started if need be.
peer(Node) ->
    case rpc:call(Node, erlang, whereis, [?MODULE], ?PATIENCE) of
        undefined ->
            Pid = spawn(Node, ?MODULE, echo, []),
            ok = call(Pid, {expect, 0}),
            Pid;
        Pid when is_pid(Pid) -> Pid
    end.

echo() ->
    register(?MODULE, self()),
    echo(<<>>, <<>>, 0).

%% Taken counts the messages that were what was expected. Kept is for fetch.
echo(Expected, Kept, Taken) ->
    receive
        {take, Expected} -> echo(Expected, Kept, Taken + 1);
        {take, _} -> exit(wrong_bytes);
        {From, Ref, {expect, Size}} -> prepared(From, Ref, pattern(Size), Kept);
        {From, Ref, {keep, Size}} -> prepared(From, Ref, Expected, pattern(Size));
        {From, Ref, fetch} -> From ! {Ref, Kept}, echo(Expected, Kept, Taken);
        {From, Ref, taken} -> From ! {Ref, Taken}, echo(Expected, Kept, Taken);
        {From, Ref, Message} -> From ! {Ref, Message}, echo(Expected, Kept, Taken)
    end.

%% prepared says that all is there for what is measured next, and nothing else.
prepared(From, Ref, Expected, Kept) ->
    erlang:garbage_collect(),
    From ! {Ref, ok},
    echo(Expected, Kept, 0).

%% pattern is a binary of which no part looks like that a block earlier: the tile's
%% length is no multiple of anything that is lost in whole.
pattern(Size) ->
    Tile = << <<(I * 2654435761):32>> || I <- lists:seq(1, 16381) >>,
    binary:part(binary:copy(Tile, Size div byte_size(Tile) + 1), 0, Size).
