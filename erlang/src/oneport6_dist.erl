%% @doc Distribution carrier over IPv6: `-proto_dist oneport6'.
%%
%% {@link oneport_dist} over the driver `inet6_tcp'. Hosts, doors and gateways are
%% reached by their IPv6 addresses; name resolution must give one.
-module(oneport6_dist).

-export([listen/1, listen/2, accept/1, accept_connection/5, setup/5, close/1,
         select/1, address/0, is_node_name/1, setopts/2, getopts/2]).

-include_lib("kernel/include/net_address.hrl").

-define(DRIVER, inet6_tcp).

%% @doc As {@link listen/2}, on this host's own name.
-spec listen(atom()) ->
          {ok, {oneport_listener:listener(), #net_address{}, integer()}} | {error, term()}.
listen(Name) ->
    {ok, Host} = inet:gethostname(),
    listen(Name, Host).

%% @doc Registers the node, if the settings are right.
-spec listen(atom(), string()) ->
          {ok, {oneport_listener:listener(), #net_address{}, integer()}} | {error, term()}.
listen(Name, Host) ->
    oneport_listener:listen(?DRIVER, Name, Host).

-spec accept(oneport_listener:listener()) -> pid().
accept(Listener) ->
    oneport_listener:accept(?DRIVER, Listener).

-spec accept_connection(pid(), gen_tcp:socket(), node(), [node()], timeout()) -> pid().
accept_connection(AcceptPid, Socket, MyNode, Allowed, SetupTime) ->
    inet_tcp_dist:gen_accept_connection(?DRIVER, AcceptPid, Socket, MyNode, Allowed, SetupTime).

-spec setup(node(), term(), node(), longnames | shortnames, non_neg_integer()) -> pid().
setup(Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    oneport_setup:start(?DRIVER, Node, Type, MyNode, LongOrShortNames, SetupTime).

-spec close(oneport_listener:listener()) -> ok.
close(Listener) ->
    oneport_listener:close(?DRIVER, Listener).

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

-spec setopts(oneport_listener:listener(), [gen_tcp:option()]) -> ok | {error, term()}.
setopts(Listener, Options) ->
    oneport_listener:setopts(Listener, Options).

-spec getopts(oneport_listener:listener(), [gen_tcp:option_name()]) ->
          {ok, [gen_tcp:option()]} | {error, term()}.
getopts(Listener, Options) ->
    oneport_listener:getopts(Listener, Options).
