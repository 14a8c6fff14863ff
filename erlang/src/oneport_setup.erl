%% @doc One outgoing connection: from a node's name, through a door, to the
%% beginning of the distribution handshake.
%%
%% `net_kernel' starts a process here for each node it wants to reach. The
%% process connects to the door ({@link oneport_door}), asks for the upgrade
%% ({@link oneport_upgrade}) or the handover ({@link oneport_handover}), and then runs
%% OTP's own handshake on the same socket;
%% it stays the connection's controller, as the process of `inet_tcp_dist' does.
%%
%% == Why not `inet_tcp_dist:do_setup/7' ==
%%
%% `do_setup/7' takes a driver module, and a driver whose `connect/3' asks for the
%% upgrade would be less code. But `do_setup' first asks the EPMD of the target
%% for the node's port and gives up without one; behind a door or a gateway that
%% EPMD may be out of reach, and waiting for it is what one port per host is to
%% end. It also takes the version of the protocol from EPMD, where ours comes with
%% the answer to the upgrade. The remaining seam, which OTP documents for carriers
%% and has kept the same from 23 to 29, is `dist_util:handshake_we_started/1' with
%% a `#hs_data{}'.
%%
%% == Time ==
%%
%% `SetupTime' (`net_setuptime', 7 s) bounds everything before the handshake, and
%% each step of the handshake, as in `inet_tcp_dist'. Where it is about to run out
%% before the handshake, the process says so first, in the log.
-module(oneport_setup).

-export([start/6, select/2]).
-export([init/7, tick/1]).

-include_lib("kernel/include/dist_util.hrl").
-include_lib("kernel/include/logger.hrl").
-include_lib("kernel/include/net_address.hrl").

%% @doc Starts the process that sets up the connection from `MyNode' to `Node' in
%% `SetupTime' milliseconds. It is linked to the caller, which must be
%% `net_kernel'.
-spec start(oneport_door:driver(), node(), term(), node(), longnames | shortnames, non_neg_integer()) -> pid().
start(Driver, Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    spawn_opt(?MODULE, init,
              [Driver, self(), Node, Type, MyNode, LongOrShortNames, SetupTime],
              spawn_options()).

%% OTP 24 made these options a setting of the VM.
spawn_options() ->
    case erlang:function_exported(dist_util, net_ticker_spawn_options, 0) of
        true -> dist_util:net_ticker_spawn_options();
        false -> [link, {priority, max}]
    end.

%% @doc Whether this carrier is the one to reach `Node' by. That takes an address of
%% the carrier's family, but `net_kernel' itself waits here, for every connection,
%% so the host is resolved only if there is another carrier to leave the node to;
%% and never if a gateway leads to it, which may know hosts that are unknown here.
-spec select(oneport_door:driver(), node()) -> boolean().
select(Driver, Node) ->
    case split(Node) of
        {_Name, Host} ->
            case {init:get_argument(proto_dist), oneport_doors:way(Host)} of
                {{ok, [[_, _ | _]]}, {ok, {{direct, DoorHost, _}, _}}} ->
                    oneport_door:resolves(Driver, DoorHost);
                _ ->
                    true
            end;
        error ->
            false
    end.

%% @private
-spec init(oneport_door:driver(), pid(), node(), term(), node(), longnames | shortnames, non_neg_integer()) ->
          no_return().
init(Driver, Kernel, Node, Type, MyNode, LongOrShortNames, SetupTime) ->
    Timer = dist_util:start_timer(SetupTime),
    %% The timer kills without a word: be a tenth earlier.
    Deadline = erlang:monotonic_time(millisecond) + SetupTime - SetupTime div 10,
    case connect(Driver, Node, LongOrShortNames, Deadline) of
        {ok, Socket, Version, Address} ->
            dist_util:reset_timer(Timer),
            dist_util:handshake_we_started(
              (hs_data(Driver, Socket))#hs_data{
                kernel_pid = Kernel,
                other_node = Node,
                this_node = MyNode,
                timer = Timer,
                this_flags = 0,
                other_version = Version,
                f_address = fun(_, _) -> Address end,
                request_type = Type});
        {error, Reason} ->
            ?LOG_WARNING("oneport: cannot connect to ~ts: ~ts", [Node, Reason],
                         #{peer_node => Node}),
            ?shutdown(Node)
    end.

connect(Driver, Node, LongOrShortNames, Deadline) ->
    case split(Node) of
        {Name, Host} ->
            case check_host(Driver, Host, LongOrShortNames) of
                ok -> connect_host(Driver, Name, Host, Deadline);
                {error, Reason} -> {error, Reason}
            end;
        error ->
            {error, "a node's name has one @"}
    end.

connect_host(Driver, Name, Host, Deadline) ->
    case {oneport_doors:way(Host), oneport_config:method(), oneport_config:request()} of
        {{ok, {{direct, _, _} = Door, _}}, {ok, handover}, _} ->
            connect_door(Driver, Door, Name, Host,
                         {oneport_handover, oneport_handover:request(Name)}, Deadline);
        {{ok, {Door, Asked}}, {ok, _}, {ok, Method}} ->
            %% The request of EPMD has no place for a host: a gateway needs the upgrade.
            connect_door(Driver, Door, Name, Host,
                         {oneport_upgrade, oneport_upgrade:request(Method, Name, Asked)}, Deadline);
        {{error, Reason}, _, _} ->
            %% The settings are right or wrong as a whole.
            {error, oneport_config:format_error(Reason)}
    end.

%% What is asked of the door, and by which of the two clients.
connect_door(Driver, Door, Name, Host, {Client, _} = Question, Deadline) ->
    case oneport_door:ask(Driver, Door, Name, Question, Deadline) of
        {ok, Version, Socket, {_, Ip, Port}} ->
            %% What dist_util expects of a socket at the start.
            case inet:setopts(Socket, [list, {packet, 2}]) of
                ok ->
                    {ok, Socket, Version,
                     #net_address{address = {Ip, Port}, host = Host,
                                  protocol = tcp, family = Driver:family()}};
                {error, _} ->
                    Driver:close(Socket),
                    {error, "the door closed the connection"}
            end;
        {error, Reason} ->
            {error, oneport_door:format_error(Reason, Client)}
    end.

%% A socket in the hands of dist_util is used exactly as inet_tcp_dist uses it. What
%% outlives the handshake (mf_*) names its module: a local fun would tie the
%% connection to this version of the code, and the second code change would end it.
hs_data(Driver, Socket) ->
    #hs_data{
       socket = Socket,
       f_send = fun Driver:send/2,
       f_recv = fun Driver:recv/3,
       f_setopts_pre_nodeup =
           fun(S) -> inet:setopts(S, [{active, false}, {packet, 4}, nodelay()]) end,
       f_setopts_post_nodeup =
           fun(S) ->
                   inet:setopts(S, [{active, true}, {deliver, port}, {packet, 4},
                                    binary, nodelay()])
           end,
       f_getll = fun inet:getll/1,
       mf_tick = fun ?MODULE:tick/1,
       mf_getstat = fun inet_tcp_dist:getstat/1,
       mf_setopts = fun inet_tcp_dist:setopts/2,
       mf_getopts = fun inet_tcp_dist:getopts/2}.

%% @private
%% The driver only sends here, and both drivers send alike.
-spec tick(gen_tcp:socket()) -> ok | {error, term()}.
tick(Socket) ->
    inet_tcp_dist:tick(inet_tcp, Socket).

nodelay() ->
    case application:get_env(kernel, dist_nodelay) of
        {ok, false} -> {nodelay, false};
        _ -> {nodelay, true}
    end.

split(Node) ->
    case string:split(atom_to_list(Node), "@", all) of
        [Name, Host] when Name =/= "", Host =/= "" -> {Name, Host};
        _ -> error
    end.

%% Nodes with long and with short names do not mix; the check is the one that
%% every carrier makes.
check_host(Driver, Host, LongOrShortNames) ->
    case {LongOrShortNames, lists:member($., Host)} of
        {shortnames, true} ->
            {error, ["this node uses short names (-sname), and ", Host, " is a long one"]};
        {longnames, false} ->
            case Driver:parse_address(Host) of
                {ok, _} -> ok;
                _ -> {error, ["this node uses long names (-name), and ", Host, " is a short one"]}
            end;
        _ ->
            ok
    end.
