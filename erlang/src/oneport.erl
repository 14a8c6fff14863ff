%% @doc Nodes that know themselves by another name than the one that leads to them.
%%
%% A node behind NAT, a load balancer or a container network is, say, `web@container',
%% and its users can resolve `public.example' alone. The distribution's handshake
%% insists on the name that a node goes by (`dist_util:recv_challenge/1' of kernel), so
%% `web@public.example' cannot be connected to. {@link connect/1} can:
%% ```
%% {ok, Node} = oneport:connect('web@public.example'),   % 'web@container'
%% rpc:call(Node, erlang, node, []).
%% '''
%% From then on all nodes `...@container' are reached by that door, also when the
%% runtime connects again by itself, until {@link forget/1}.
%%
%% A door is believed what it says: ask only doors that you trust. It can never take
%% over this node's own host part, nor one that is known to be reached otherwise.
%%
%% The node must run with the carrier, `-proto_dist oneport' or `oneport6'; {@link who/1}
%% does not need it.
-module(oneport).

-export([connect/1, connect/2, who/1, who/2, doors/0, forget/1, format_error/1]).

-export_type([options/0, door/0, reason/0]).

-type options() :: #{door => {Host :: string() | binary(), inet:port_number()}}.
%% `door': the door to ask, in place of the one that the settings give for the host.
-type door() :: {Host :: string(), inet:port_number()}.
-type reason() :: not_alive
                | no_carrier
                | {bad_node, term()}
                | {bad_options, term()}
                | {setting, oneport_config:reason()}
                | {short_name | long_name, node()}
                | {conflict, Host :: string(), Known :: door() | this_host, New :: door()}
                | {not_connected, node()}
                | oneport_door:reason().

%% Milliseconds in which a door has to answer: that asks the node in 3 s, or in 6 s
%% another door.
-define(TIME, 7000).

%% @doc As {@link connect/2} without options.
-spec connect(node()) -> {ok, node()} | {error, reason()}.
connect(Node) ->
    connect(Node, #{}).

%% @doc Asks the door at the host part of `Node', which may be an alias, for the node's
%% true name, connects to it under that name, and returns the name.
%%
%% `{conflict, Host, Known, New}': the true name has a host part whose nodes are reached
%% by another door, or that is this node's own. Nothing has changed; {@link forget/1}
%% makes way for the new door.
-spec connect(node(), options()) -> {ok, node()} | {error, reason()}.
connect(Node, Options) ->
    case is_alive() of
        true ->
            case ask(Node, Options) of
                {ok, True, Host, Way} -> connect(True, Host, Way, needs_way(Node, Host, Options));
                {error, Reason} -> {error, Reason}
            end;
        false ->
            {error, not_alive}
    end.

%% The name that leads to the node may be the true one.
needs_way(Node, Host, Options) ->
    {ok, _, Asked} = split(Node),
    Options =/= #{} orelse not same(Asked, Host).

connect(True, _Host, _Way, false) ->
    connected(True);
connect(True, Host, Way, true) ->
    case check(True, Host, Way) of
        ok ->
            case oneport_doors:add(Host, Way) of
                known -> connected(True);
                new -> connected(True, Host);
                {conflict, Known} -> {error, {conflict, Host, door(Known), door(Way)}}
            end;
        Error ->
            Error
    end.

%% What was only just learned and is of no use is not kept.
connected(True, Host) ->
    Result = connected(True),
    case Result =:= {ok, True} orelse in_use(Host) of
        true -> ok;
        false -> oneport_doors:remove(Host)
    end,
    Result.

connected(True) ->
    case net_kernel:connect_node(True) of
        true -> {ok, True};
        false -> {error, {not_connected, True}};
        ignored -> {error, not_alive}
    end.

in_use(Host) ->
    lists:any(fun(Node) -> same(element(3, split(Node)), Host) end, nodes(connected)).

check(True, Host, Way) ->
    {ok, _, Own} = split(node()),
    Long = lists:member($., Host) orelse lists:member($:, Host),
    OwnHost = same(Own, Host),
    case {carriers(), net_kernel:longnames()} of
        {[], _} -> {error, no_carrier};
        {_, true} when not Long -> {error, {short_name, True}};
        {_, false} when Long -> {error, {long_name, True}};
        _ when OwnHost -> {error, {conflict, Host, this_host, door(Way)}};
        _ -> ok
    end.

%% Names of hosts have no case (RFC 4343).
same(A, B) -> string:equal(A, B, true).

%% @doc As {@link who/2} without options.
-spec who(node()) -> {ok, node()} | {error, reason()}.
who(Node) ->
    who(Node, #{}).

%% @doc Asks for the name that a node goes by, without connecting to it. What it says is
%% not remembered.
-spec who(node(), options()) -> {ok, node()} | {error, reason()}.
who(Node, Options) ->
    case ask(Node, Options) of
        {ok, True, _, _} -> {ok, True};
        {error, Reason} -> {error, Reason}
    end.

%% @doc The host parts of true names that {@link connect/1} has learned, with the doors
%% that lead to their nodes.
-spec doors() -> [{Host :: string(), door()}].
doors() ->
    [{Host, door(Way)} || {Host, Way} <- oneport_doors:all()].

%% @doc Forgets which door leads to the nodes of a host, given by the host part of their
%% true names. Connections are not touched.
-spec forget(string() | binary()) -> ok.
forget(Host) ->
    oneport_doors:remove(unicode:characters_to_list(Host)).

%% ---- the question

ask(Node, Options) ->
    case {split(Node), explicit(Options)} of
        {error, _} -> {error, {bad_node, Node}};
        {_, error} -> {error, {bad_options, Options}};
        {{ok, Name, Host}, Explicit} ->
            case way(Host, Explicit) of
                {ok, Way} -> ask(drivers(), Name, Way, now_ms() + ?TIME);
                {error, Reason} -> {error, {setting, Reason}}
            end
    end.

explicit(#{door := {Host, Port}} = Options)
  when map_size(Options) =:= 1, is_integer(Port), Port >= 1, Port =< 65535, Host =/= "", is_list(Host);
       map_size(Options) =:= 1, is_integer(Port), Port >= 1, Port =< 65535, Host =/= <<>>, is_binary(Host) ->
    %% Asked as a gateway is, by HTTP, since its host may not be the node's.
    {via, unicode:characters_to_list(Host), Port};
explicit(Options) ->
    case Options =:= #{} of
        true -> none;
        false -> error
    end.

way(Host, none) ->
    oneport_doors:way(Host);
way(Host, Door) ->
    {ok, {Door, Host}}.

%% The first family in which the door has an address.
ask([Driver | Drivers], Name, {Door, Asked} = Way, Deadline) ->
    Question = {oneport_who, oneport_who:request(Name, Asked)},
    case oneport_door:ask(Driver, Door, Name, Question, Deadline) of
        {ok, {TrueName, TrueHost}, Socket, _At} ->
            ok = gen_tcp:close(Socket),
            {ok, list_to_atom(TrueName ++ "@" ++ TrueHost), TrueHost, Way};
        {error, {lookup, _, _, _}} when Drivers =/= [] ->
            ask(Drivers, Name, Way, Deadline);
        {error, Reason} ->
            {error, Reason}
    end.

drivers() ->
    case lists:usort([driver(P) || P <- protocols()]) of
        [inet6_tcp] -> [inet6_tcp];
        [_] -> [inet_tcp];
        _ -> [inet_tcp, inet6_tcp]
    end.

driver("oneport6") -> inet6_tcp;
driver("inet6_" ++ _) -> inet6_tcp;
driver(_) -> inet_tcp.

carriers() ->
    [P || P <- protocols(), P =:= "oneport" orelse P =:= "oneport6"].

protocols() ->
    case init:get_argument(proto_dist) of
        {ok, [Protocols | _]} -> Protocols;
        error -> ["inet_tcp"]
    end.

split(Node) when is_atom(Node) ->
    case string:split(atom_to_list(Node), "@", all) of
        [Name, Host] when Name =/= "", Host =/= "" -> {ok, Name, Host};
        _ -> error
    end;
split(_) ->
    error.

door({{_, Host, Port}, _Asked}) ->
    {Host, Port}.

now_ms() ->
    erlang:monotonic_time(millisecond).

%% ---- words

%% @doc The reason in one line.
-spec format_error(reason()) -> unicode:chardata().
format_error(not_alive) ->
    "this node is not distributed: start it with -name or -sname";
format_error(no_carrier) ->
    "this node does not use the carrier: start it with -proto_dist oneport, or oneport6 for IPv6";
format_error({bad_node, Node}) ->
    io_lib:format("~tp is no node's name: expected an atom with one @", [Node]);
format_error({bad_options, Options}) ->
    io_lib:format("options ~tp: expected #{door => {Host, Port}}", [Options]);
format_error({setting, Reason}) ->
    oneport_config:format_error(Reason);
format_error({short_name, Node}) ->
    io_lib:format("the node is called ~ts, a short name, and this node uses long names (-name)", [Node]);
format_error({long_name, Node}) ->
    io_lib:format("the node is called ~ts, a long name, and this node uses short names (-sname)", [Node]);
format_error({conflict, Host, this_host, New}) ->
    io_lib:format("the node at ~ts calls its host ~ts, as this node does: one of the two needs another name",
                  [format_door(New), Host]);
format_error({conflict, Host, Known, New}) ->
    io_lib:format("the node at ~ts calls its host ~ts, whose nodes are reached by ~ts: one of the two needs "
                  "another name, or oneport:forget(\"~ts\") comes first",
                  [format_door(New), Host, format_door(Known), Host]);
format_error({not_connected, Node}) ->
    io_lib:format("node ~ts is there and was not connected to: the log says why, or the cookies differ", [Node]);
format_error(Reason) ->
    oneport_door:format_error(Reason, oneport_who).

format_door({Host, Port}) ->
    case lists:member($:, Host) of
        true -> io_lib:format("[~ts]:~b", [Host, Port]);
        false -> io_lib:format("~ts:~b", [Host, Port])
    end.
