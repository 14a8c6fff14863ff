%% @doc Supervisor of the receiver, {@link oneport_receiver}.
%%
%% With a carrier that does not listen it is started by the distribution, before any
%% application, and lives as long as `net_kernel'. Otherwise it is the top supervisor
%% of the application `oneport'. Connections are no children of it: they outlive the
%% receiver, and `net_kernel' links them to itself.
-module(oneport_sup).
-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-spec start_link(application | carrier) -> supervisor:startlink_ret().
start_link(application) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, application);
start_link(carrier) ->
    supervisor:start_link(?MODULE, carrier).

%% @private
-spec init(application | carrier) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Owner) ->
    Receiver = #{id => receiver, start => {oneport_receiver, start_link, []}},
    Children = case Owner =:= application andalso carrier_receives() of
                   true -> [];
                   false -> [Receiver]
               end,
    {ok, {#{strategy => one_for_one, intensity => 3, period => 10}, Children}}.

%% Whether the receiver is the business of a carrier, now or when the distribution starts.
carrier_receives() ->
    case {init:get_argument(proto_dist), oneport_listener:receives()} of
        {{ok, [Protocols | _]}, true} ->
            lists:any(fun(P) -> P =:= "oneport" orelse P =:= "oneport6" end, Protocols);
        _ ->
            false
    end.
