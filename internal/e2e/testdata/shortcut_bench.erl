%% The work that BenchmarkShortcut has one node do with another one. work/2 returns the
%% nanoseconds that it took; of the calls, the median.
-module(shortcut_bench).
-export([work/2, echo/0]).

-define(CALLS, 1000).
-define(CALLERS, 100).
-define(CALLS_EACH, 30).
-define(MEGABYTES, 100).
-define(FLOOD, 50000).
-define(BULK, 50000000).

work(Work, Node) ->
    Pid = peer(Node),
    case Work of
        calls ->
            Message = binary:copy(<<1>>, 64),
            Took = lists:sort([timed(fun() -> call(Pid, Message) end) || _ <- lists:seq(1, ?CALLS)]),
            lists:nth(?CALLS div 2, Took);
        callers ->
            timed(fun() ->
                          Message = binary:copy(<<1>>, 1000),
                          Callers = [spawn_monitor(fun() -> [call(Pid, Message) || _ <- lists:seq(1, ?CALLS_EACH)] end)
                                     || _ <- lists:seq(1, ?CALLERS)],
                          [receive {'DOWN', Ref, process, P, Why} -> normal = Why end || {P, Ref} <- Callers]
                  end);
        megabytes ->
            Message = binary:copy(<<1>>, 1 bsl 20),
            timed(fun() -> [taken(Pid, Message) || _ <- lists:seq(1, ?MEGABYTES)] end);
        burst -> sent(Pid, ?MEGABYTES, 1 bsl 20);
        flood -> sent(Pid, ?FLOOD, 100);
        bulk -> sent(Pid, 1, ?BULK);
        fetch -> timed(fun() -> Pid ! {self(), fetch}, receive {fetched, Data} -> ?BULK = byte_size(Data) end end)
    end.

%% peer returns the process that answers on a node, which it starts if need be.
peer(Node) ->
    case rpc:call(Node, erlang, whereis, [?MODULE]) of
        undefined ->
            Pid = spawn(Node, ?MODULE, echo, []),
            call(Pid, ready),
            Pid;
        Pid -> Pid
    end.

sent(Pid, N, Size) ->
    Message = {take, binary:copy(<<1>>, Size)},
    timed(fun() ->
                  [Pid ! Message || _ <- lists:seq(1, N)],
                  call(Pid, done)
          end).

call(Pid, Message) ->
    Ref = make_ref(),
    Pid ! {self(), Ref, Message},
    receive {Ref, _} -> ok end.

%% taken sends a message and waits until the other node has it.
taken(Pid, Message) ->
    Pid ! {take, Message},
    call(Pid, done).

timed(Fun) ->
    Begin = erlang:monotonic_time(nanosecond),
    Fun(),
    erlang:monotonic_time(nanosecond) - Begin.

echo() ->
    register(?MODULE, self()),
    echo(binary:copy(<<1>>, ?BULK)).

echo(Data) ->
    receive
        {take, _} -> ok;
        {From, fetch} -> From ! {fetched, Data};
        {From, Ref, Message} -> From ! {Ref, Message}
    end,
    echo(Data).
