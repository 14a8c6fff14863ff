%% A TCP proxy inside an Erlang VM, as a server that takes an HTTP upgrade there has to
%% be one: every byte is read into a binary and written again, by two processes for
%% each connection. For speed: no messages but {active, N}, so that the VM reads on
%% while a process writes, and large buffers.
-module(copying_proxy).
-export([main/1]).

%% How many packets a process is sent before it has to ask for more; they are all
%% that can wait in its queue, so a slow receiver pushes back.
-define(PACKETS, 16).
-define(BUFFER, 262144).
-define(ACCEPTORS, 8).

main([Listen, Target]) ->
    spawn(fun() -> listen(endpoint(Listen), endpoint(Target)) end).

%% listen stays, since a listening socket closes with the process that opened it.
listen({Address, Port}, To) ->
    {ok, Listener} = gen_tcp:listen(Port, [{ip, Address}, {backlog, 4096}, {reuseaddr, true} | options()]),
    [spawn_link(fun() -> accept(Listener, To) end) || _ <- lists:seq(1, ?ACCEPTORS)],
    receive stop -> ok end.

endpoint(Name) ->
    [Host, Port] = string:split(atom_to_list(Name), ":", trailing),
    {ok, Address} = inet:parse_address(Host),
    {Address, list_to_integer(Port)}.

%% exit_on_close: the end of the one direction must not close the other.
options() ->
    [binary, {active, false}, {packet, raw}, {nodelay, true}, {buffer, ?BUFFER},
     {exit_on_close, false}, {show_econnreset, true}].

accept(Listener, To) ->
    {ok, Client} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> connect(Client, To) end end),
    ok = gen_tcp:controlling_process(Client, Pid),
    Pid ! go,
    accept(Listener, To).

connect(Client, {Address, Port}) ->
    case gen_tcp:connect(Address, Port, options(), 10000) of
        {ok, Node} ->
            Self = self(),
            Back = spawn_link(fun() -> receive go -> copy(Node, Client, Self) end end),
            ok = gen_tcp:controlling_process(Node, Back),
            Back ! go,
            copy(Client, Node, Back);
        {error, _} ->
            abort(Client)
    end.

copy(From, To, Other) ->
    case inet:setopts(From, [{active, ?PACKETS}]) of
        ok -> forward(From, To, Other);
        {error, _} -> failed(From, To)
    end.

forward(From, To, Other) ->
    receive
        {tcp, From, Data} ->
            case gen_tcp:send(To, Data) of
                ok -> forward(From, To, Other);
                {error, _} -> failed(From, To)
            end;
        {tcp_passive, From} ->
            copy(From, To, Other);
        {tcp_closed, From} ->
            gen_tcp:shutdown(To, write),
            finished(Other);
        {tcp_error, From, _} ->
            failed(From, To)
    end.

%% A process owns the socket that it reads, which closes with it. So both stay
%% until both directions have ended.
finished(Other) ->
    Other ! {finished, self()},
    receive {finished, Other} -> ok end.

failed(From, To) ->
    abort(From),
    abort(To),
    exit(failed).

abort(Socket) ->
    inet:setopts(Socket, [{linger, {true, 0}}]),
    gen_tcp:close(Socket).
