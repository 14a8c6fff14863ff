%% @doc One connection that the daemon offers, from the offer to the connection's end.
%%
%% The process owns the descriptor: it checks it, answers, and once the daemon has
%% committed makes an inet port of it and gives that to `net_kernel', as the accepting
%% process of `inet_tcp_dist' does with what it has accepted. Then it sleeps until the
%% port is gone, and closes the descriptor.
%%
%% Before the commit nothing is read from the connection, written to it or set on it,
%% and an end is close(2) alone: until then the daemon may go on with its own copy.
%%
%% The holder is not linked to the receiver, and after the commit has nothing to do
%% with it: the receiver's end does not end connections. It is linked to the port, so
%% that its own end, which closes the descriptor, ends the port too.
-module(oneport_holder).

-export([start/3, commit/1, cancel/1, refusal/0]).
-export([init/4, hold/2]).

-include_lib("kernel/include/logger.hrl").
-include_lib("kernel/include/net_address.hrl").

-type answer() :: accept | {refuse, iodata()}.
%% The holder sends `{holder_answer, HolderPid, Id, answer()}' to the receiver, once.

-export_type([answer/0]).

%% How long an accepted offer waits for COMMIT or CANCEL, in milliseconds. The daemon
%% itself waits 2 s for the answer, and the client's next word may take longer.
-define(COMMIT_TIMEOUT, 10000).

%% Milliseconds between two looks for a port that is flushing.
-define(MAX_LOOK, 1000).

%% @doc Starts the holder of descriptor `Number', which from here on is the holder's.
%% It answers the caller. `Taken' is what the daemon has read from the connection.
-spec start(oneport_frame:id(), non_neg_integer(), binary()) -> {pid(), reference()}.
start(Id, Number, Taken) ->
    spawn_monitor(?MODULE, init, [self(), Id, Number, Taken]).

%% @doc The connection is the node's.
-spec commit(pid()) -> ok.
commit(Holder) ->
    Holder ! {self(), commit},
    ok.

%% @doc The connection is not the node's.
-spec cancel(pid()) -> ok.
cancel(Holder) ->
    Holder ! {self(), cancel},
    ok.

%% @doc Why this node can take no connection at all, or `none'.
-spec refusal() -> none | iodata().
refusal() ->
    case {is_alive(), init:get_argument(dist_listen), families()} of
        {false, _, _} -> "the node is not alive";
        {_, {ok, [["false"] | _]}, _} -> "the node does not listen (-dist_listen false)";
        {_, _, []} -> "the node's distribution is not plain TCP";
        _ -> none
    end.

%% @private
-spec init(pid(), oneport_frame:id(), non_neg_integer(), binary()) -> ok.
init(Receiver, Id, Number, Taken) ->
    %% First of all, for until then nobody closes the descriptor.
    {ok, Descriptor} = oneport_descriptor:own(Number),
    _ = process_flag(trap_exit, true),
    %% The end of an application ends every process of its group.
    true = group_leader(whereis(init), self()),
    Monitor = erlang:monitor(process, Receiver),
    case open(Number) of
        {ok, Socket, Driver} ->
            Receiver ! {holder_answer, self(), Id, accept},
            receive
                {Receiver, commit} ->
                    _ = erlang:demonitor(Monitor, [flush]),
                    give(Socket, Driver, Taken, Descriptor);
                {Receiver, cancel} ->
                    close(Socket, Driver, Descriptor);
                {'DOWN', Monitor, process, Receiver, _} ->
                    close(Socket, Driver, Descriptor)
            after ?COMMIT_TIMEOUT ->
                    close(Socket, Driver, Descriptor)
            end;
        {error, Reason} ->
            ok = oneport_descriptor:close(Descriptor),
            Receiver ! {holder_answer, self(), Id, {refuse, Reason}},
            ok
    end.

%% ---- the descriptor

open(Number) ->
    case refusal() of
        none -> open(Number, [inet_tcp, inet6_tcp]);
        Reason -> {error, Reason}
    end.

%% The descriptor itself says of which family it is: the driver refuses the other.
open(Number, [Driver | Drivers]) ->
    case Driver:fdopen(Number, [{active, false}, {packet, 2}]) of
        {ok, Socket} ->
            case inet:peername(Socket) of
                {ok, _} ->
                    {ok, Socket, Driver};
                {error, Reason} ->
                    ok = Driver:close(Socket),
                    ok = gone(Socket),
                    {error, ["descriptor is not a connected socket: ", inet:format_error(Reason)]}
            end;
        {error, _} ->
            open(Number, Drivers)
    end;
open(_Number, []) ->
    {error, "descriptor is neither an IPv4 nor an IPv6 stream socket"}.

close(Socket, Driver, Descriptor) ->
    ok = Driver:close(Socket),
    finish(Socket, Descriptor).

finish(Socket, Descriptor) ->
    ok = gone(Socket),
    oneport_descriptor:close(Descriptor).

%% Waits until the port is really gone. A port that ends with output in its queue tells
%% its links and monitors at once, and then goes on writing: to close the descriptor
%% under it would let it write into whatever gets the number next. Exiting ports are
%% still listed by erlang:ports/0, which is documented. The wait is as long as the
%% driver's own, which ends with the connection.
gone(Socket) ->
    gone(Socket, 1).

gone(Socket, Millis) ->
    case lists:member(Socket, erlang:ports()) of
        false ->
            ok;
        true ->
            timer:sleep(Millis),
            gone(Socket, min(2 * Millis, ?MAX_LOOK))
    end.

%% ---- net_kernel

give(Socket, Driver, Taken, Descriptor) ->
    case prepare(Socket, Driver, Taken) of
        ok ->
            case announce(Socket, Driver) of
                ok ->
                    true = link(Socket),
                    erlang:hibernate(?MODULE, hold, [Socket, Descriptor]);
                {error, Reason} ->
                    ?LOG_WARNING("oneport: a connection that was handed over is closed: ~ts", [Reason]),
                    close(Socket, Driver, Descriptor)
            end;
        {error, _} ->
            close(Socket, Driver, Descriptor)
    end.

prepare(Socket, Driver, Taken) ->
    case inet:setopts(Socket, inherited()) of
        ok -> put_back(Socket, Driver, Taken);
        Error -> Error
    end.

%% The driver fails on a buffer that is full and not yet as long as the header of a
%% packet, so what is put back has both of its bytes.
put_back(_Socket, _Driver, <<>>) ->
    ok;
put_back(Socket, Driver, <<First>>) ->
    case second(Socket, Driver) of
        {ok, Second} -> Driver:unrecv(Socket, [First, Second]);
        Error -> Error
    end;
put_back(Socket, Driver, Taken) ->
    Driver:unrecv(Socket, Taken).

second(Socket, Driver) ->
    case inet:setopts(Socket, [{packet, raw}]) of
        ok ->
            %% As long as any step of the handshake.
            Result = Driver:recv(Socket, 1, net_kernel:connecttime()),
            case inet:setopts(Socket, [{packet, 2}]) of
                ok -> Result;
                Error -> Error
            end;
        Error ->
            Error
    end.

%% What the accepted socket would have from its listener. Before it comes `nodelay', which
%% OTP sets only after the handshake: there Nagle's algorithm costs 40 ms on a connection
%% that has carried an HTTP exchange before, for the peer delays its acknowledgements then.
inherited() ->
    [nodelay() | listen_options()].

nodelay() ->
    {nodelay, application:get_env(kernel, dist_nodelay) =/= {ok, false}}.

listen_options() ->
    case application:get_env(kernel, inet_dist_listen_options) of
        {ok, Options} when is_list(Options) ->
            [Option || {Key, _} = Option <- Options,
                       lists:member(Key, [keepalive, nodelay, priority, tos, tclass, ttl, linger,
                                          sndbuf, recbuf, buffer, high_watermark, low_watermark,
                                          high_msgq_watermark, low_msgq_watermark,
                                          send_timeout, send_timeout_close, delay_send])];
        _ ->
            []
    end.

%% net_kernel looks for a listener by family and protocol, and has its carrier take the
%% socket. A carrier of the other family takes it as well: both drivers send and
%% receive alike. But it cannot compare addresses: with kernel's `check_ip' it would
%% crash, or take the client for a stranger.
announce(Socket, Driver) ->
    Family = Driver:family(),
    Families = [F || F <- [Family | [inet, inet6] -- [Family]], lists:member(F, families())],
    case application:get_env(kernel, check_ip) of
        {ok, true} when hd(Families) =/= Family ->
            {error, ["check_ip of kernel is set, and the node knows no address of the family ",
                     atom_to_list(Family)]};
        _ ->
            announce(Socket, Driver, Families)
    end.

announce(Socket, Driver, [Family | Families]) ->
    case whereis(net_kernel) of
        undefined ->
            {error, "the node is not alive any more"};
        Kernel ->
            Monitor = erlang:monitor(process, Kernel),
            Kernel ! {accept, self(), Socket, Family, tcp},
            Answer = controller(Socket, Driver, Kernel, Monitor),
            _ = erlang:demonitor(Monitor, [flush]),
            case Answer of
                unsupported -> announce(Socket, Driver, Families);
                _ -> Answer
            end
    end;
announce(_Socket, _Driver, []) ->
    {error, "the node does not listen"}.

%% As in inet_tcp_dist there is no deadline but net_kernel's life: the process it has
%% started waits for this one.
controller(Socket, Driver, Kernel, Monitor) ->
    receive
        {Kernel, controller, Pid} ->
            %% An error means that the connection has ended, which Pid finds out itself.
            _ = Driver:controlling_process(Socket, Pid),
            Pid ! {self(), controller},
            ok;
        {Kernel, unsupported_protocol} ->
            unsupported;
        {'DOWN', Monitor, process, Kernel, _} ->
            {error, "the node is not alive any more"}
    end.

%% Of the carriers whose sockets are TCP and nothing else: TLS has its own protocol.
families() ->
    lists:append([family(list_to_atom(Protocol ++ "_dist")) || Protocol <- protocols()]).

protocols() ->
    case init:get_argument(proto_dist) of
        {ok, [Protocols | _]} -> Protocols;
        _ -> ["inet_tcp"]
    end.

family(Carrier) ->
    try Carrier:address() of
        #net_address{protocol = tcp, family = Family} -> [Family];
        _ -> []
    catch
        error:undef -> []
    end.

%% ---- the rest of the connection's life

%% @private
-spec hold(port(), oneport_descriptor:descriptor()) -> ok.
hold(Socket, Descriptor) ->
    receive
        {'EXIT', Socket, _} -> finish(Socket, Descriptor);
        _ -> erlang:hibernate(?MODULE, hold, [Socket, Descriptor])
    end.
