%% @doc Real nodes for the tests, and an EPMD that registers them and answers nothing
%% else, so that a client that asks it for a port is found out.
-module(oneport_test_nodes).

-export([start/4, stop/1, output/1, result/1, protocol/2, ebin/0, listener/2, epmd/2]).

-define(V4, {127, 0, 0, 1}).
-define(V6, {0, 0, 0, 0, 0, 0, 0, 1}).
-define(TIME, 20000).

%% A node ends when its standard input does: not later than these tests.
-spec start(inet:port_number(), string(), [string()], string()) -> port().
start(Epmd, Name, Args, Eval) ->
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    NameFlag = case string:split(Name, "@") of
                   [_, "localhost"] -> "-sname";
                   _ -> "-name"
               end,
    Guard = "spawn(fun() -> io:get_line(\"\"), halt(3) end), ",
    open_port({spawn_executable, Erl},
              [{args, ["-noshell", "-start_epmd", "false", NameFlag, Name, "-setcookie", "c"]
                    ++ Args ++ ["-eval", Guard ++ Eval]},
               {env, [{"ERL_EPMD_PORT", integer_to_list(Epmd)}, {"ERL_FLAGS", false},
                      {"ERL_CRASH_DUMP_SECONDS", "0"}]},
               exit_status, stderr_to_stdout, binary]).

-spec stop(port()) -> true.
stop(Node) ->
    try
        port_close(Node)
    catch
        %% It has ended by itself, and the test that failed for it says so.
        error:badarg -> true
    end.

%% @doc All that the node writes until it ends.
-spec output(port()) -> string().
output(Node) ->
    output(Node, []).

output(Node, Acc) ->
    receive
        {Node, {data, Data}} -> output(Node, [Acc, Data]);
        {Node, {exit_status, _}} -> unicode:characters_to_list(iolist_to_binary(Acc))
    after ?TIME ->
            stop(Node),
            error({node_did_not_end, iolist_to_binary(Acc)})
    end.

%% @doc The value that a node has printed after a line's @.
-spec result(string()) -> term().
result(Output) ->
    value(string:split(Output, "\n@")).

value([_, Term]) ->
    {ok, Tokens, _} = erl_scan:string(Term),
    {ok, Value} = erl_parse:parse_term(Tokens),
    Value;
value([_]) ->
    none.

%% @doc The carrier's arguments.
-spec protocol(inet:ip_address(), string()) -> [string()].
protocol(?V4, "inet") -> [];
protocol(?V6, "inet") -> ["-proto_dist", "inet6_tcp"];
protocol(?V4, "oneport") -> ["-proto_dist", "oneport"];
protocol(?V6, "oneport") -> ["-proto_dist", "oneport6"].

-spec ebin() -> file:filename().
ebin() ->
    filename:dirname(code:which(oneport_dist)).

%% The listener and its connections end with the test's process.
listener(Ip, Serve) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, Ip}, binary, {active, false}, {backlog, 16}]),
    {ok, Port} = inet:port(Listen),
    Pid = spawn_link(fun() -> receive go -> accept(Listen, Serve) end end),
    ok = gen_tcp:controlling_process(Listen, Pid),
    Pid ! go,
    Port.

accept(Listen, Serve) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    Pid = spawn_link(fun() -> receive go -> Serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listen, Serve).

epmd(Socket, Test) ->
    case gen_tcp:recv(Socket, 0, ?TIME) of
        {ok, <<_:16, $x, Port:16, _:8, _:8, _:16, _:16, Length:16, Name:Length/binary, _/binary>>} ->
            Test ! {alive, Name, Port},
            ok = gen_tcp:send(Socket, <<$y, 0, 1:16>>),
            {error, closed} = gen_tcp:recv(Socket, 0);
        Other ->
            Test ! {epmd, Other}
    end.

