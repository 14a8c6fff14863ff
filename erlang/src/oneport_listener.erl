%% @doc Where the carriers take connections: nowhere but from the daemon, or, with the
%% setting `listen', on a TCP port. Where the release cannot take descriptors it is the
%% port, whatever is set, so that the node can be reached at all.
%%
%% A node without a TCP listener registers port 0 by EPMD. In place of a listening
%% socket `net_kernel' holds the atom `oneport', and in place of the accepting process
%% the supervisor of the receiver ({@link oneport_sup}): should that end, `net_kernel'
%% starts it anew, as it does for any carrier.
-module(oneport_listener).

-export([receives/0, listen/3, accept/2, close/2, setopts/2, getopts/2]).

-export_type([listener/0]).

-include_lib("kernel/include/logger.hrl").
-include_lib("kernel/include/net_address.hrl").

-type listener() :: oneport | gen_tcp:socket().

%% @doc Whether a node with a carrier has no listener, and takes connections from the
%% daemon instead.
-spec receives() -> boolean().
receives() ->
    oneport_config:listen() =:= {ok, false} andalso oneport_descriptor:supported().

%% @doc Registers `Name', and listens before if it is set so. Wrong settings are told
%% here, when the node starts, and not when it first connects.
-spec listen(inet_tcp | inet6_tcp, atom(), string()) ->
          {ok, {listener(), #net_address{}, Creation :: integer()}} | {error, term()}.
listen(Driver, Name, Host) ->
    case oneport_config:prepare() of
        ok ->
            case receives() of
                true -> register_name(Driver, Name);
                false -> listen_tcp(Driver, Name, Host)
            end;
        {error, Reason} ->
            {error, Reason}
    end.

listen_tcp(Driver, Name, Host) ->
    case oneport_config:listen() of
        {ok, true} ->
            ok;
        {ok, false} ->
            ?LOG_NOTICE("oneport: this node has a TCP listener: OTP ~s takes no connections "
                        "by descriptor, OTP 25 does", [erlang:system_info(otp_release)])
    end,
    inet_tcp_dist:gen_listen(Driver, Name, Host).

%% erl_epmd remembers the port, and registers with it again after EPMD's restart.
register_name(Driver, Name) ->
    case (net_kernel:epmd_module()):register_node(Name, 0, Driver) of
        {ok, Creation} -> {ok, {oneport, inet_tcp_dist:gen_address(Driver), Creation}};
        {error, Reason} -> {error, Reason}
    end.

%% @doc The process that `net_kernel', the caller, is linked to as long as it listens.
-spec accept(inet_tcp | inet6_tcp, listener()) -> pid().
accept(_Driver, oneport) ->
    {ok, Pid} = oneport_sup:start_link(carrier),
    Pid;
accept(Driver, Socket) ->
    inet_tcp_dist:gen_accept(Driver, Socket).

-spec close(inet_tcp | inet6_tcp, listener()) -> ok.
close(_Driver, oneport) ->
    ok;
close(Driver, Socket) ->
    Driver:close(Socket).

%% @doc Of the listener or of a connection. `net_kernel' asks the listener first, and
%% does not go on to the connections if it has said no.
-spec setopts(listener(), [gen_tcp:option()]) -> ok | {error, term()}.
setopts(oneport, _Options) ->
    ok;
setopts(Socket, Options) ->
    inet_tcp_dist:setopts(Socket, Options).

-spec getopts(listener(), [gen_tcp:option_name()]) -> {ok, [gen_tcp:option()]} | {error, term()}.
getopts(oneport, _Options) ->
    {ok, []};
getopts(Socket, Options) ->
    inet_tcp_dist:getopts(Socket, Options).
