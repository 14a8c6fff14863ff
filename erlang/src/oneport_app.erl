%% @doc Start of the application `oneport'.
%%
%% It lets an ordinary node, one with OTP's own carrier, take the connections that the
%% daemon hands over. The carriers, {@link oneport_dist} and {@link oneport6_dist}, do
%% so without it: the distribution starts before any application does.
-module(oneport_app).
-behaviour(application).

-export([start/2, stop/1]).

%% @private
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case oneport_config:prepare() of
        ok -> start_supervisor();
        {error, Reason} -> {error, Reason}
    end.

start_supervisor() ->
    case oneport_sup:start_link(application) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, Reason} -> {error, Reason}
    end.

%% @private
-spec stop(term()) -> ok.
stop(_State) ->
    ok.
