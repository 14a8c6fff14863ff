%% @doc Distribution carrier over IPv4: `-proto_dist oneport'.
%%
%% A node with this carrier reaches other nodes through the one open port of
%% their hosts, by an HTTP upgrade, and never asks their EPMD. Everything but the
%% outgoing connection is OTP's `inet_tcp_dist': the node listens, registers and
%% accepts as any node does, so nodes without the carrier still reach it.
%%
%% {@link oneport_setup} makes the connection, {@link oneport_config} knows where
%% to; {@link oneport6_dist} is the same carrier over IPv6.
%%
%% The callbacks are those of OTP's "How to Implement an Alternative Carrier for
%% the Erlang Distribution".
-module(oneport_dist).

-export([listen/1, listen/2, accept/1, accept_connection/5, setup/5, close/1,
         select/1, address/0, is_node_name/1, setopts/2, getopts/2]).

-include_lib("kernel/include/net_address.hrl").

-define(DRIVER, inet_tcp).

%% @doc As {@link listen/2}, on this host's own name.
-spec listen(atom()) -> {ok, {gen_tcp:socket(), #net_address{}, non_neg_integer()}} | {error, term()}.
listen(Name) ->
    {ok, Host} = inet:gethostname(),
    listen(Name, Host).

%% @doc Listens and registers as `inet_tcp_dist' does, if the settings are right:
%% a node whose settings are wrong is told so when it starts, not when it first
%% connects.
-spec listen(atom(), string()) ->
          {ok, {gen_tcp:socket(), #net_address{}, non_neg_integer()}} | {error, term()}.
listen(Name, Host) ->
    case oneport_config:prepare() of
        ok -> inet_tcp_dist:gen_listen(?DRIVER, Name, Host);
        {error, Reason} -> {error, Reason}
    end.

-spec accept(gen_tcp:socket()) -> pid().
accept(Listen) ->
    inet_tcp_dist:gen_accept(?DRIVER, Listen).

-spec accept_connection(pid(), gen_tcp:socket(), node(), [node()], timeout()) -> pid().
accept_connection(AcceptPid, Socket, MyNode, Allowed, SetupTime) ->
    inet_tcp_dist:gen_accept_connection(?DRIVER, AcceptPid, Socket, MyNode, Allowed, SetupTime).

-spec setup(node(), term(), node(), longnames | shortnames, non_neg_integer()) -> pid().
setup(Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    oneport_setup:start(?DRIVER, Node, Type, MyNode, LongOrShortNames, SetupTime).

-spec close(gen_tcp:socket()) -> ok.
close(Socket) ->
    ?DRIVER:close(Socket).

-spec select(node()) -> boolean().
select(Node) ->
    oneport_setup:select(?DRIVER, Node).

%% @doc The address of a node that does not listen (`-dist_listen false').
-spec address() -> #net_address{}.
address() ->
    inet_tcp_dist:gen_address(?DRIVER).

-spec is_node_name(term()) -> boolean().
is_node_name(Node) ->
    inet_tcp_dist:is_node_name(Node).

-spec setopts(gen_tcp:socket(), [gen_tcp:option()]) -> ok | {error, term()}.
setopts(Socket, Options) ->
    inet_tcp_dist:setopts(Socket, Options).

-spec getopts(gen_tcp:socket(), [gen_tcp:option_name()]) -> {ok, [gen_tcp:option()]} | {error, term()}.
getopts(Socket, Options) ->
    inet_tcp_dist:getopts(Socket, Options).
