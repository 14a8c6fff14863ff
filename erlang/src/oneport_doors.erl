%% @doc Remembers by which door the nodes of a host are reached, where the host part of
%% their names does not lead there.
%%
%% What is learned by {@link oneport:connect/1} is kept by host part, and not by node:
%% the nodes that a node learns of through another one, as those of its cluster, have
%% that host part too, and shall be found. So a host part has one door. A second one is
%% a conflict, which its finder has to solve: two hosts that call themselves the same
%% cannot be told apart by names.
%%
%% The process is started when something is to be remembered, under OTP's own
%% `kernel_safe_sup', as the carrier may run without the application. It only owns the
%% table; {@link way/1} reads it in the caller.
-module(oneport_doors).
-behaviour(gen_server).

-export([start_link/0, way/1, add/2, remove/1, all/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-export_type([way/0]).

-type host() :: string().
-type way() :: {oneport_config:door(), Asked :: host()}.
%% The door, and the host part under which the node is asked for there.

%% @private
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The way to the nodes of a host: the one that is remembered, or else that of the
%% settings.
-spec way(host()) -> {ok, way()} | {error, oneport_config:reason()}.
way(Host) ->
    case find(Host) of
        {ok, Way} ->
            {ok, Way};
        error ->
            case oneport_config:door(Host) of
                {ok, Door} -> {ok, {Door, Host}};
                {error, Reason} -> {error, Reason}
            end
    end.

find(Host) ->
    try ets:lookup(?MODULE, key(Host)) of
        [{_, Way}] -> {ok, Way};
        [] -> error
    catch
        error:badarg -> error   % nothing was ever remembered
    end.

%% @doc Remembers the way to the nodes of a host, unless another one is known.
-spec add(host(), way()) -> new | known | {conflict, way()}.
add(Host, Way) ->
    ok = ensure_started(),
    gen_server:call(?MODULE, {add, key(Host), Way}).

%% @doc Forgets the way to the nodes of a host.
-spec remove(host()) -> ok.
remove(Host) ->
    ok = ensure_started(),
    gen_server:call(?MODULE, {remove, key(Host)}).

%% @doc All that is remembered.
-spec all() -> [{host(), way()}].
all() ->
    try
        lists:sort(ets:tab2list(?MODULE))
    catch
        error:badarg -> []
    end.

%% Names of hosts have no case (RFC 4343).
key(Host) -> string:lowercase(Host).

ensure_started() ->
    Child = #{id => ?MODULE, start => {?MODULE, start_link, []}},
    case whereis(?MODULE) =/= undefined orelse supervisor:start_child(kernel_safe_sup, Child) of
        true -> ok;
        {ok, _} -> ok;
        {error, {already_started, _}} -> ok
    end.

%% @private
-spec init([]) -> {ok, ets:tid() | atom()}.
init([]) ->
    {ok, ets:new(?MODULE, [named_table, protected, {read_concurrency, true}])}.

%% @private
-spec handle_call(term(), gen_server:from(), Table) -> {reply, term(), Table}.
handle_call({add, Host, Way}, _From, Table) ->
    Result = case ets:lookup(Table, Host) of
                 [{_, Way}] -> known;
                 [{_, Other}] -> {conflict, Other};
                 [] ->
                     true = ets:insert(Table, {Host, Way}),
                     new
             end,
    {reply, Result, Table};
handle_call({remove, Host}, _From, Table) ->
    true = ets:delete(Table, Host),
    {reply, ok, Table}.

%% @private
-spec handle_cast(term(), Table) -> {noreply, Table}.
handle_cast(_Message, Table) ->
    {noreply, Table}.
