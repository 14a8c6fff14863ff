%% @doc A connection to a door, and one question asked on it.
%%
%% What is asked is a client's matter: {@link oneport_upgrade}, {@link oneport_handover}
%% or {@link oneport_who}. This module finds the door's address, connects, and says in
%% words what went wrong. It knows neither nodes nor the distribution.
-module(oneport_door).

-export([ask/5, resolves/2, format_error/2]).

-export_type([driver/0, at/0, reason/0]).

-include_lib("kernel/include/inet.hrl").

-type driver() :: inet_tcp | inet6_tcp.
-type at() :: {inet:hostname(), inet:ip_address(), inet:port_number()}.
-type reason() :: {lookup, inet:hostname(), driver(), inet:posix() | timeout}
                | {door, at(), term()}.
%% What `door' has last is the client's own reason, or that of the connecting as
%% `{connect, _}' in the words of {@link oneport_upgrade}.

%% @doc Connects to a door and has `Client' ask it there, by `Deadline'. `Name' is the
%% node's that it is about. The socket, which is good only if there is an answer, is the
%% caller's.
-spec ask(driver(), oneport_config:door(), Name :: string(), {Client :: module(), Request :: iodata()},
          oneport_upgrade:deadline()) ->
          {ok, Answer :: term(), gen_tcp:socket(), at()} | {error, reason()}.
ask(Driver, {_, Host, Port} = Door, Name, {Client, Request}, Deadline) ->
    case resolve(Driver, Door, Name, Deadline) of
        {ok, Ip} ->
            At = {Host, Ip, Port},
            case dial(Driver, Ip, Port, Client, Request, Deadline) of
                {ok, Answer, Socket} -> {ok, Answer, Socket, At};
                {error, Reason} -> {error, {door, At, Reason}}
            end;
        {error, Reason} ->
            {error, {lookup, Host, Driver, Reason}}
    end.

%% @doc Whether a host has an address of the driver's family.
-spec resolves(driver(), inet:hostname()) -> boolean().
resolves(Driver, Host) ->
    case inet:getaddr(Host, Driver:family()) of
        {ok, _} -> true;
        {error, _} -> false
    end.

%% An EPMD module of their own is where people put their own resolution of hosts, so
%% its address is used; the port that it may add is the node's, not the door's.
resolve(Driver, {direct, Host, _}, Name, Deadline) ->
    Epmd = net_kernel:epmd_module(),
    case Epmd =/= erl_epmd andalso erlang:function_exported(Epmd, address_please, 3) of
        true ->
            case Epmd:address_please(Name, Host, Driver:family()) of
                {ok, Ip} -> {ok, Ip};
                {ok, Ip, _Port, _Version} -> {ok, Ip};
                {error, Reason} -> {error, Reason}
            end;
        false ->
            lookup(Driver, Host, Deadline)
    end;
resolve(Driver, {via, Host, _}, _Name, Deadline) ->
    lookup(Driver, Host, Deadline).

lookup(Driver, Host, Deadline) ->
    case inet:gethostbyname(Host, Driver:family(), oneport_upgrade:time_left(Deadline)) of
        {ok, #hostent{h_addr_list = [Ip | _]}} -> {ok, Ip};
        {error, Reason} -> {error, Reason}
    end.

dial(Driver, Ip, Port, Client, Request, Deadline) ->
    case Driver:connect(Ip, Port, connect_options(), oneport_upgrade:time_left(Deadline)) of
        {ok, Socket} ->
            case Client:client(Socket, Request, Deadline) of
                {ok, Answer} ->
                    {ok, Answer, Socket};
                {error, Reason} ->
                    Driver:close(Socket),
                    {error, Reason}
            end;
        {error, Reason} ->
            {error, {connect, Reason}}
    end.

connect_options() ->
    case application:get_env(kernel, inet_dist_connect_options) of
        {ok, Options} -> Options ++ [{active, false}];
        undefined -> [{active, false}]
    end.

%% @doc The reason in words, where `Client' was asking.
-spec format_error(reason(), Client :: module()) -> unicode:chardata().
format_error({lookup, Host, Driver, Reason}, _Client) ->
    ["host ", Host, " has no ", family_name(Driver), " address: ", format_lookup(Reason)];
format_error({door, At, {connect, _} = Reason}, _Client) ->
    ["door ", format_at(At), " ", oneport_upgrade:format_error(Reason)];
format_error({door, At, Reason}, Client) ->
    ["door ", format_at(At), " ", Client:format_error(Reason)].

family_name(inet_tcp) -> "IPv4";
family_name(inet6_tcp) -> "IPv6".

format_lookup(timeout) -> "no answer in time";
format_lookup(Reason) -> inet:format_error(Reason).

format_at({Host, Ip, Port}) ->
    Literal = case tuple_size(Ip) of
                  4 -> inet:ntoa(Ip);
                  8 -> ["[", inet:ntoa(Ip), "]"]
              end,
    Address = io_lib:format("~ts:~b", [Literal, Port]),
    case inet:parse_address(Host) of
        {ok, _} -> Address;
        {error, _} -> [Host, " (", Address, ")"]
    end.
