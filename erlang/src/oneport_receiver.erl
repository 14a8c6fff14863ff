%% @doc Takes the connections that the daemon hands to this node.
%%
%% One process per node keeps one SOCK_SEQPACKET connection to the daemon, at the path
%% of the setting `node_socket', and says on it which name it is. An offer comes with
%% a descriptor; a {@link oneport_holder} takes that at once, and this process only
%% carries its answer and the daemon's word to and fro. Frames are those of
%% {@link oneport_frame}.
%%
%% Whatever is not as it should be (no daemon, a name that is not registered yet,
%% garbage) ends the connection, and a new one is tried after 50 ms, then after twice
%% that, up to 5 s, less up to a half at random: a host's nodes shall not all come back
%% at once. Connections that were committed are not touched by any of this.
-module(oneport_receiver).
-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

%% Milliseconds.
-define(MIN_DELAY, 50).
-define(MAX_DELAY, 5000).
-define(SOCKET_TIMEOUT, 1000).
-define(WELCOME_TIMEOUT, 5000).
%% After this long without the daemon it is worth a line in the log.
-define(PATIENCE, 5000).

%% Offers without COMMIT or CANCEL, at once.
-define(MAX_OFFERS, 256).

%% The longest frame, and room for every descriptor that may come with one, so that
%% what should not have come is closed here.
-define(MAX_FRAME, 65535).
-define(MAX_CONTROL, 2048).

-record(offer, {holder :: pid(),
                monitor :: reference(),
                accepted = false :: boolean()}).

-record(state, {phase = away :: away | greeting | welcome,
                socket :: undefined | socket:socket(),
                name = <<>> :: binary(),
                host = <<>> :: binary(),
                kernel :: undefined | reference(),
                timer :: undefined | reference(),
                delay = ?MIN_DELAY :: pos_integer(),
                since :: integer(),
                said = false :: boolean(),
                offers = #{} :: #{oneport_frame:id() => #offer{}}}).
%% `kernel' monitors net_kernel while there is a connection: the node's name is its.
%% `timer' is that of the next try, or of WELCOME. `since' is when the phase `welcome'
%% began or ended; `said' that the log knows about its end.

%% @doc Starts the receiver, unless there is one, or the release cannot take descriptors.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    case oneport_descriptor:supported() of
        true ->
            start_one();
        false ->
            ?LOG_WARNING("oneport: no connection can be handed to this node: OTP ~s takes none "
                         "by descriptor, OTP 25 does", [erlang:system_info(otp_release)]),
            ignore
    end.

start_one() ->
    case gen_server:start_link({local, ?MODULE}, ?MODULE, [], []) of
        {error, {already_started, _}} -> ignore;
        Result -> Result
    end.

%% @private
-spec init([]) -> {ok, #state{}, {continue, connect}}.
init([]) ->
    {ok, #state{since = now_ms()}, {continue, connect}}.

%% @private
-spec handle_continue(connect, #state{}) -> {noreply, #state{}}.
handle_continue(connect, State) ->
    {noreply, connect(State)}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, {error, unknown}, #state{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_Message, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'$socket', Socket, select, _}, #state{socket = Socket} = State) ->
    {noreply, read(State)};
handle_info({'$socket', Socket, abort, _}, #state{socket = Socket} = State) ->
    {noreply, disconnect("the connection was aborted", State)};
handle_info({holder_answer, Holder, Id, Answer}, State) ->
    {noreply, answer(Id, Holder, Answer, State)};
handle_info({timeout, Timer, retry}, #state{timer = Timer} = State) ->
    {noreply, connect(State#state{timer = undefined})};
handle_info({timeout, Timer, welcome}, #state{timer = Timer} = State) ->
    {noreply, disconnect("the daemon does not answer", State)};
handle_info({'DOWN', Monitor, process, _, _}, #state{kernel = Monitor} = State) ->
    {noreply, disconnect("the node is not alive any more", State)};
handle_info({'DOWN', Monitor, process, Holder, Reason}, State) ->
    {noreply, ended(Holder, Monitor, Reason, State)};
handle_info(_Message, State) ->
    {noreply, State}.

%% ---- the connection: it ends with this process, and the holders see that.

connect(State) ->
    case {oneport_holder:refusal(), oneport_config:node_socket()} of
        {none, {ok, Path}} ->
            Monitor = erlang:monitor(process, net_kernel),
            [Name, Host] = string:split(atom_to_list(node()), "@"),
            connect(Path, State#state{name = unicode:characters_to_binary(Name),
                                      host = unicode:characters_to_binary(Host), kernel = Monitor});
        {none, {error, Reason}} ->
            disconnect(oneport_config:format_error(Reason), State);
        {_, _} ->
            %% Nothing to complain of: the distribution may start later, or never.
            retry(State)
    end.

connect(Path, #state{name = Name, host = Host} = State) ->
    case socket:open(local, seqpacket) of
        {ok, Socket} ->
            Connected = State#state{socket = Socket},
            case socket:connect(Socket, #{family => local, path => Path}, ?SOCKET_TIMEOUT) of
                ok -> greet(send(oneport_frame:hello(Name, Host), Connected));
                {error, Reason} -> disconnect([Path, ": ", format(Reason)], Connected)
            end;
        {error, Reason} ->
            disconnect(["opening a socket: ", format(Reason)], State)
    end.

greet(#state{socket = undefined} = State) ->
    State;
greet(State) ->
    read(start_timer(?WELCOME_TIMEOUT, welcome, State#state{phase = greeting})).

send(Frame, #state{socket = Socket} = State) ->
    case socket:send(Socket, Frame, ?SOCKET_TIMEOUT) of
        ok -> State;
        {error, Reason} -> disconnect(["sending to the daemon: ", format(Reason)], State)
    end.

%% Reads until there is nothing to read. A frame is one message, a message of no bytes
%% is the end.
read(#state{socket = undefined} = State) ->
    State;
read(#state{socket = Socket} = State) ->
    case socket:recvmsg(Socket, ?MAX_FRAME, ?MAX_CONTROL, [cmsg_cloexec], nowait) of
        {ok, #{iov := Iov, ctrl := Control, flags := Flags}} ->
            Numbers = numbers(Control),
            case {iolist_to_binary(Iov), [trunc, ctrunc] -- Flags} of
                {<<>>, _} ->
                    ok = close_all(Numbers),
                    disconnect("the daemon closed the connection", State);
                {Bytes, [trunc, ctrunc]} ->
                    read(frame(oneport_frame:decode(Bytes), Numbers, State));
                {_, _} ->
                    malformed(Numbers, State)
            end;
        {select, _} ->
            State;
        {error, Reason} ->
            disconnect(["reading from the daemon: ", format(Reason)], State)
    end.

numbers(Control) ->
    [Number || #{level := socket, type := rights, data := Data} <- Control,
               <<Number:32/native>> <= Data].

%% Descriptors that nobody holds yet.
close_all(Numbers) ->
    lists:foreach(fun(Number) ->
                          {ok, Descriptor} = oneport_descriptor:own(Number),
                          ok = oneport_descriptor:close(Descriptor)
                  end, Numbers).

%% Closes the connection, if there is one, takes its offers back, and has the next one
%% tried later.
disconnect(Reason, State) ->
    retry(complain(Reason, close(State))).

close(#state{phase = Phase, socket = Socket, kernel = Kernel, offers = Offers} = State) ->
    _ = Socket =:= undefined orelse socket:close(Socket),
    case Kernel of
        undefined -> ok;
        _ -> true = erlang:demonitor(Kernel, [flush])
    end,
    ok = lists:foreach(fun(Offer) -> release(Offer, cancel) end, maps:values(Offers)),
    Now = now_ms(),
    Away = State#state{phase = away, socket = undefined, kernel = undefined, offers = #{}},
    case Phase of
        %% A daemon that greets and goes at once is not one to be asked 20 times a second.
        welcome when Now - State#state.since >= ?MAX_DELAY ->
            Away#state{since = Now, delay = ?MIN_DELAY};
        welcome ->
            Away#state{since = Now};
        _ ->
            Away
    end.

retry(#state{delay = Delay} = State) ->
    start_timer(Delay - rand:uniform(Delay div 2), retry,
                State#state{delay = min(2 * Delay, ?MAX_DELAY)}).

complain(Reason, #state{said = Said, since = Since} = State) ->
    case not Said andalso now_ms() - Since >= ?PATIENCE of
        true ->
            ?LOG_WARNING("oneport: no connection can be handed to this node: ~ts", [Reason]),
            State#state{said = true};
        false ->
            ?LOG_DEBUG("oneport: not connected to the daemon: ~ts", [Reason]),
            State
    end.

%% There is one timer; the old one's message, if it is under way, carries another
%% reference.
start_timer(Millis, Message, #state{timer = Old} = State) ->
    _ = Old =:= undefined orelse erlang:cancel_timer(Old),
    State#state{timer = erlang:start_timer(Millis, self(), Message)}.

%% ---- what the daemon says

frame({ok, {welcome, _Version}}, [], #state{phase = greeting} = State) ->
    _ = erlang:cancel_timer(State#state.timer),
    case State#state.said of
        true -> ?LOG_NOTICE("oneport: connections can be handed to this node again");
        false -> ok
    end,
    State#state{phase = welcome, timer = undefined, since = now_ms(), said = false};
frame({ok, {reject, _Code, Reason}}, [], State) ->
    disconnect(["the daemon says: ", printable(Reason)], State);
frame({ok, {offer, #{id := Id, name := Name, taken := Taken}}}, [Number],
      #state{phase = welcome, offers = Offers} = State) when not is_map_key(Id, Offers) ->
    case Offers of
        _ when Name =/= State#state.name ->
            refuse(Id, Number, ["this node is called ", State#state.name], State);
        _ when map_size(Offers) >= ?MAX_OFFERS ->
            refuse(Id, Number, [integer_to_list(?MAX_OFFERS), " offers wait already"], State);
        _ ->
            {Holder, Monitor} = oneport_holder:start(Id, Number, Taken),
            State#state{offers = Offers#{Id => #offer{holder = Holder, monitor = Monitor}}}
    end;
frame({ok, {commit, Id}}, [], #state{phase = welcome, offers = Offers} = State) ->
    case Offers of
        #{Id := #offer{accepted = false}} -> malformed([], State);
        _ -> settle(Id, commit, State)
    end;
frame({ok, {cancel, Id}}, [], #state{phase = welcome} = State) ->
    settle(Id, cancel, State);
frame(_, Numbers, State) ->
    malformed(Numbers, State).

malformed(Numbers, State) ->
    ok = close_all(Numbers),
    disconnect("the daemon does not keep to the protocol", State).

refuse(Id, Number, Reason, State) ->
    ok = close_all([Number]),
    send(oneport_frame:refuse(Id, Reason), State).

%% An id that is not known is that of a holder that has ended or refused.
settle(Id, Word, #state{offers = Offers} = State) ->
    case maps:take(Id, Offers) of
        {Offer, Rest} ->
            ok = release(Offer, Word),
            State#state{offers = Rest};
        error ->
            State
    end.

release(#offer{holder = Holder, monitor = Monitor}, Word) ->
    true = erlang:demonitor(Monitor, [flush]),
    case Word of
        commit -> oneport_holder:commit(Holder);
        cancel -> oneport_holder:cancel(Holder)
    end.

%% ---- what the holders say

%% The answer of a holder whose offer was taken back counts no more.
answer(Id, Holder, Answer, #state{offers = Offers} = State) ->
    case {Offers, Answer} of
        {#{Id := #offer{holder = Holder} = Offer}, accept} ->
            send(oneport_frame:accept(Id),
                 State#state{offers = Offers#{Id := Offer#offer{accepted = true}}});
        {#{Id := #offer{holder = Holder, monitor = Monitor}}, {refuse, Reason}} ->
            true = erlang:demonitor(Monitor, [flush]),
            send(oneport_frame:refuse(Id, Reason), State#state{offers = maps:remove(Id, Offers)});
        _ ->
            State
    end.

%% A holder ends before the daemon's word when it has waited long enough, or because
%% somebody ended it.
ended(Holder, Monitor, Reason, #state{offers = Offers} = State) ->
    case [{Id, Accepted} || {Id, #offer{holder = H, monitor = M, accepted = Accepted}}
                                <- maps:to_list(Offers), H =:= Holder, M =:= Monitor] of
        [{Id, Accepted}] ->
            Left = State#state{offers = maps:remove(Id, Offers)},
            case Accepted of
                true -> Left;
                false -> send(oneport_frame:refuse(Id, io_lib:format("holder ended: ~0p", [Reason])), Left)
            end;
        [] ->
            State
    end.

%% ---- words

format(Reason) when is_atom(Reason) -> inet:format_error(Reason);
format(Reason) -> io_lib:format("~0p", [Reason]).

%% What the daemon wrote, fit for one line of the log.
printable(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Text when is_list(Text) -> [C || C <- Text, C >= 32, C < 127 orelse C >= 160];
        _ -> io_lib:format("~0p", [Bytes])
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).
