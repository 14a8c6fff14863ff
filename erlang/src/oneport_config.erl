%% @doc The settings of the carriers.
%%
%% <table>
%% <tr><td>`port'</td><td>1..65535, default 4369: the port of the door on every
%% host that is reached directly</td></tr>
%% <tr><td>`via'</td><td>a gateway, `HOST:PORT' or `[IPV6]:PORT', for all hosts; or
%% `PATTERN=HOST:PORT' for the hosts that match, where `*' stands for any number of
%% characters. Repeatable, the first match wins; hosts without one are reached
%% directly. Empty for none, which is the default</td></tr>
%% <tr><td>`method'</td><td>`upgrade' (default) or `handover': what is asked of doors
%% that are reached directly, HTTP or EPMD; gateways are always asked by HTTP</td></tr>
%% <tr><td>`request'</td><td>`connect' (default) or `get': the method of the
%% upgrade</td></tr>
%% <tr><td>`listen'</td><td>`false' (default) or `true': whether a carrier's node has a
%% TCP listener beside the daemon's door</td></tr>
%% <tr><td>`node_socket'</td><td>path of the daemon's socket for nodes, absolute and at
%% most 107 bytes, default `/run/oneport/node.sock'</td></tr>
%% </table>
%%
%% A setting comes from the command line, as `-oneport KEY=VALUE' or
%% `-oneport KEY VALUE'; if it is not there, from the environment of the
%% application `oneport' (sys.config), where `via' is a string or a list of
%% `{Pattern, "HOST:PORT"}'. A setting of the command line replaces that of the
%% environment whole, also one that is repeatable.
%%
%% == Two spellings on the command line ==
%%
%% `-oneport KEY VALUE' is also OTP's own way to set the environment of the
%% application `oneport'. When the application is loaded, OTP takes VALUE for an
%% Erlang term, and an address like `gw.example:443' is none: the load fails. OTP
%% leaves flags with a single word alone, so `-oneport via=gw.example:443' always
%% works.
%%
%% The distribution starts before applications do, and outside of a release before
%% any but kernel's environment is loaded: {@link prepare/0} loads that of `oneport'.
-module(oneport_config).

-export([prepare/0, door/1, method/0, request/0, listen/0, node_socket/0, format_error/1]).
-export([read/2, door/2]).

-export_type([door/0, method/0, settings/0, reason/0]).

-include_lib("kernel/include/logger.hrl").

-type host() :: string().
-type door() :: {direct | via, host(), inet:port_number()}.
%% Where to connect to: the target's own host, or a gateway.
-type method() :: upgrade | handover.
-type settings() :: #{port := inet:port_number(),
                      via := [{Pattern :: string(), host(), inet:port_number()}],
                      method := method(),
                      request := oneport_upgrade:method(),
                      listen := boolean(),
                      node_socket := file:filename()}.
-type reason() :: {bad_setting, Key :: atom(), Value :: term(), Expected :: string()}
                | {unknown_setting, Key :: term(), Known :: [atom()]}
                | {no_value, Key :: atom()}.

-define(KEYS, [port, via, method, request, listen, node_socket]).
-define(DEFAULT_PORT, 4369).
-define(DEFAULT_NODE_SOCKET, "/run/oneport/node.sock").
%% Bytes of a path in a sockaddr_un, less the zero at its end (unix(7)).
-define(MAX_PATH, 107).

%% @doc Makes the application's environment readable, if it is not yet, and checks
%% all settings. To be called when the distribution starts.
-spec prepare() -> ok | {error, reason()}.
prepare() ->
    ok = load(),
    case settings() of
        {ok, _} -> ok;
        {error, Reason} -> {error, Reason}
    end.

%% @doc The door for nodes of `Host', the host part of a node's name.
-spec door(host()) -> {ok, door()} | {error, reason()}.
door(Host) ->
    case settings() of
        {ok, Settings} -> {ok, door(Host, Settings)};
        {error, Reason} -> {error, Reason}
    end.

%% @doc What is asked of doors that are reached directly.
-spec method() -> {ok, method()} | {error, reason()}.
method() ->
    setting(method).

%% @doc The method of the upgrade.
-spec request() -> {ok, oneport_upgrade:method()} | {error, reason()}.
request() ->
    setting(request).

%% @doc Whether a carrier's node has a TCP listener.
-spec listen() -> {ok, boolean()} | {error, reason()}.
listen() ->
    setting(listen).

%% @doc The path of the daemon's socket for nodes.
-spec node_socket() -> {ok, file:filename()} | {error, reason()}.
node_socket() ->
    setting(node_socket).

%% @doc As {@link door/1}, by the given settings.
-spec door(host(), settings()) -> door().
door(Host, #{port := Port, via := Routes}) ->
    %% Names of hosts have no case (RFC 4343).
    Lower = string:lowercase(Host),
    case [{Via, ViaPort} || {Pattern, Via, ViaPort} <- Routes, matches(Pattern, Lower)] of
        [{Via, ViaPort} | _] -> {via, Via, ViaPort};
        [] -> {direct, Host, Port}
    end.

matches([$* | Pattern], Host) ->
    matches(Pattern, Host) orelse (Host =/= [] andalso matches([$* | Pattern], tl(Host)));
matches([C | Pattern], [C | Host]) ->
    matches(Pattern, Host);
matches(Pattern, Host) ->
    Pattern =:= [] andalso Host =:= [].

%% @doc The reason in one line.
-spec format_error(reason()) -> unicode:chardata().
format_error({bad_setting, Key, Value, Expected}) ->
    io_lib:format("setting ~ts is ~tp: expected ~ts", [Key, Value, Expected]);
format_error({unknown_setting, Key, Known}) ->
    io_lib:format("no setting is called ~tp: there are ~ts",
                  [Key, lists:join(", ", [atom_to_list(K) || K <- Known])]);
format_error({no_value, Key}) ->
    io_lib:format("setting ~ts has no value: write -oneport ~ts=VALUE", [Key, Key]).

%% ---- sources

setting(Key) ->
    case settings() of
        {ok, Settings} -> {ok, maps:get(Key, Settings)};
        {error, Reason} -> {error, Reason}
    end.

settings() ->
    read(flags(), application:get_all_env(oneport)).

%% One list of words per -oneport on the command line.
flags() ->
    case init:get_argument(oneport) of
        {ok, Flags} -> Flags;
        error -> []
    end.

load() ->
    case application:get_key(oneport, vsn) of
        {ok, _} -> ok;
        undefined -> load(lists:append([unreadable(Words) || Words <- flags()]))
    end.

load([]) ->
    case application:load(oneport) of
        ok -> ok;
        {error, {already_loaded, oneport}} -> ok;
        {error, Reason} ->
            %% The modules may be in the path without the .app file: then there is
            %% nothing to read but the command line.
            ?LOG_INFO("oneport: the application's environment is not read: ~tp", [Reason])
    end;
load([{Key, Value} | _]) ->
    ?LOG_WARNING("oneport: the application cannot be loaded and its sys.config is not read, because "
                 "OTP takes the words in -oneport ~ts ~ts for Erlang terms: write one "
                 "-oneport KEY=VALUE for each setting", [Key, Value]).

%% The pairs of one flag that application:load/1 would fail on.
unreadable([Key, Value | Words]) ->
    case is_term(Key) andalso is_term(Value) of
        true -> unreadable(Words);
        false -> [{Key, Value} | unreadable(Words)]
    end;
unreadable(_) ->
    [].

is_term(Text) ->
    case erl_scan:string(Text) of
        {ok, Tokens, Location} ->
            case erl_parse:parse_term(Tokens ++ [{dot, Location}]) of
                {ok, _} -> true;
                {error, _} -> false
            end;
        {error, _, _} ->
            false
    end.

%% @doc The settings that the words of all `-oneport' flags and the application's
%% environment make together.
-spec read([[string()]], [{atom(), term()}]) -> {ok, settings()} | {error, reason()}.
read(Flags, Env) ->
    try
        Given = lists:append([pairs(Words) || Words <- Flags]),
        ok = known(Env),
        {ok, #{port => port(last(port, Given, Env)),
               via => lists:append([via(V) || V <- all(via, Given, Env)]),
               method => one_of(method, last(method, Given, Env), [upgrade, handover]),
               request => one_of(request, last(request, Given, Env), [connect, get]),
               listen => one_of(listen, last(listen, Given, Env), [false, true]),
               node_socket => node_socket(last(node_socket, Given, Env))}}
    catch
        throw:Reason -> {error, Reason}
    end.

%% OTP adds included_applications to every environment.
known(Env) ->
    case [Key || {Key, _} <- Env, not lists:member(Key, [included_applications | ?KEYS])] of
        [] -> ok;
        [Key | _] -> throw({unknown_setting, Key, ?KEYS})
    end.

%% The words of one flag: KEY VALUE pairs and KEY=VALUE words.
pairs([]) ->
    [];
pairs([Word | Words]) ->
    case {string:split(Word, "="), Words} of
        {[Name, Value], _} -> [{key(Name), Value} | pairs(Words)];
        {[Name], [Value | Rest]} -> [{key(Name), unquote(Value)} | pairs(Rest)];
        {[Name], []} -> throw({no_value, key(Name)})
    end.

key(Name) ->
    case [Key || Key <- ?KEYS, atom_to_list(Key) =:= Name] of
        [Key] -> Key;
        [] -> throw({unknown_setting, Name, ?KEYS})
    end.

%% A value that was written as an Erlang string, for OTP.
unquote([$" | _] = Value) ->
    case erl_scan:string(Value) of
        {ok, [{string, _, Text}], _} -> Text;
        _ -> Value
    end;
unquote(Value) ->
    Value.

all(Key, Given, Env) ->
    case {proplists:get_all_values(Key, Given), lists:keyfind(Key, 1, Env)} of
        {[], {Key, Value}} -> [Value];
        {Values, _} -> Values
    end.

%% As with OTP's own flags, the last one counts.
last(Key, Given, Env) ->
    case lists:reverse(all(Key, Given, Env)) of
        [Value | _] -> {value, Value};
        [] -> default
    end.

%% ---- values

port(default) ->
    ?DEFAULT_PORT;
port({value, Port}) when is_integer(Port), Port >= 1, Port =< 65535 ->
    Port;
port({value, Value}) ->
    case text(Value) of
        {ok, Text} ->
            case string:to_integer(Text) of
                {Port, ""} when Port >= 1, Port =< 65535 -> Port;
                _ -> bad_port(Value)
            end;
        error ->
            bad_port(Value)
    end.

-spec bad_port(term()) -> no_return().
bad_port(Value) ->
    throw({bad_setting, port, Value, "an integer from 1 to 65535"}).

%% An atom, or its text. The first one is the default.
one_of(_Key, default, [Default | _]) ->
    Default;
one_of(Key, {value, Value}, [A, B] = Known) ->
    case [K || K <- Known, Value =:= K orelse text(Value) =:= {ok, atom_to_list(K)}] of
        [Setting] -> Setting;
        [] -> throw({bad_setting, Key, Value, lists:concat([A, " or ", B])})
    end.

node_socket(default) ->
    ?DEFAULT_NODE_SOCKET;
node_socket({value, Value}) ->
    case text(Value) of
        {ok, [$/ | _] = Path} ->
            Bytes = unicode:characters_to_binary(Path),
            case byte_size(Bytes) =< ?MAX_PATH andalso not lists:member(0, Path) of
                true -> Path;
                false -> bad_node_socket(Value)
            end;
        _ ->
            bad_node_socket(Value)
    end.

-spec bad_node_socket(term()) -> no_return().
bad_node_socket(Value) ->
    throw({bad_setting, node_socket, Value,
           lists:concat(["an absolute path of at most ", ?MAX_PATH, " bytes"])}).

via([{_, _} | _] = Routes) ->
    [case {text_of(Route), Route} of
         {{ok, Pattern, Address}, _} -> route(Pattern, Address, Route);
         {error, _} -> bad_via(Route)
     end || Route <- Routes];
via(Value) ->
    case text(Value) of
        {ok, []} -> [];
        {ok, Text} ->
            case string:split(Text, "=") of
                [Pattern, Address] -> [route(Pattern, Address, Value)];
                [Address] -> [route("*", Address, Value)]
            end;
        error -> bad_via(Value)
    end.

text_of({Pattern, Address}) ->
    case {text(Pattern), text(Address)} of
        {{ok, P}, {ok, A}} -> {ok, P, A};
        _ -> error
    end;
text_of(_) ->
    error.

route("", _Address, Value) ->
    bad_via(Value);
route(Pattern, Address, Value) ->
    {Host, PortText} = split_address(Address, Value),
    try port({value, PortText}) of
        Port -> {string:lowercase(Pattern), Host, Port}
    catch
        throw:_ -> bad_via(Value)
    end.

split_address("[" ++ Rest, Value) ->
    case string:split(Rest, "]:") of
        [Host, Port] ->
            case inet:parse_ipv6strict_address(Host) of
                {ok, _} -> {Host, Port};
                {error, _} -> bad_via(Value)
            end;
        _ -> bad_via(Value)
    end;
split_address(Address, Value) ->
    case string:split(Address, ":", all) of
        [Host, Port] when Host =/= "" ->
            %% What slips into the host of a mistyped address.
            case [C || C <- Host, lists:member(C, " =/@[]")] of
                [] -> {Host, Port};
                _ -> bad_via(Value)
            end;
        _ -> bad_via(Value)
    end.

-spec bad_via(term()) -> no_return().
bad_via(Value) ->
    throw({bad_setting, via, Value,
           "HOST:PORT, [IPV6]:PORT, PATTERN=HOST:PORT or a list of {PATTERN, \"HOST:PORT\"}"}).

%% Strings of Erlang and of Elixir.
text(Value) when is_list(Value); is_binary(Value) ->
    try unicode:characters_to_list(Value) of
        Text when is_list(Text) -> {ok, Text};
        _ -> error
    catch
        error:badarg -> error
    end;
text(_) ->
    error.
