%% The EPMD of a node that is told by its environment where the other one is
%% (BENCH_PORT), or asks the door that ERL_EPMD_PORT names. It registers the node
%% nowhere: nobody is to find it but by the way that is measured.
-module(bench_epmd).
-export([start_link/0, register_node/2, register_node/3, listen_port_please/2,
         address_please/3, port_please/2, port_please/3, names/1]).

%% Of the distribution protocol, from OTP 23 on.
-define(VERSION, 6).

start_link() -> ignore.

register_node(Name, Port) -> register_node(Name, Port, inet).

%% The creation tells one node of a name from the next; below 4 they are old ones.
register_node(_, _, _) -> {ok, (erlang:system_time(second) band 16#7fffffff) bor 4}.

listen_port_please(_, _) -> {ok, 0}.

address_please(_, Host, Family) -> inet:getaddr(Host, Family).

port_please(Name, Host) ->
    case os:getenv("BENCH_PORT") of
        false -> erl_epmd:port_please(Name, Host);
        Port -> {port, list_to_integer(Port), ?VERSION}
    end.

port_please(Name, Host, _Timeout) -> port_please(Name, Host).

names(_) -> {error, address}.
